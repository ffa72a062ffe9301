//! Compiles the one part of the command that has to run before Rust does, and says where the files are that become part of it.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/closed_stdout.c");
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        // Nothing refers to it: the whole archive is linked.
        cc::Build::new()
            .file("src/closed_stdout.c")
            .link_lib_modifier("+whole-archive")
            .compile("closed_stdout");
    }
    // A published crate has copies of them (packaging/crates), as it cannot reach out of its folder.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copies = here.join("files");
    let files = if copies.exists() { copies } else { here.join("..") };
    println!("cargo:rustc-env=ESOLM_FILES={}", files.display());
}
