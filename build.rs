//! Names the shared library, so that programs ask for its binary interface's version.
fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The number is ESOLM_ABI_VERSION.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libesolm.so.0");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
