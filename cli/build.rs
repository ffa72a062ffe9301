//! Compiles the one part of the command that has to run before Rust does.

fn main() {
    println!("cargo:rerun-if-changed=src/closed_stdout.c");
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        // Nothing refers to it: the whole archive is linked.
        cc::Build::new()
            .file("src/closed_stdout.c")
            .link_lib_modifier("+whole-archive")
            .compile("closed_stdout");
    }
}
