//! Names the shared library, so that programs ask for its binary interface's version; links C++'s library; compiles what is written in CUDA.
use std::path::PathBuf;
use std::process::Command;

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The number is ESOLM_ABI_VERSION.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libesolm.so.0");
        // Nothing of other packages: llguidance has functions for C, which Rust would export, too. (zig does not know the
        // option; packaging/pack-library does it for zig.)
        if !std::env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc")) {
            println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        }
    }
    // ggml's C++; its crate says so on other systems.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("windows")
        && std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu")
    {
        println!("cargo:rustc-link-lib=stdc++");
    }
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile_cuda();
    }
}

/// Compiles src/ggml/cuda with nvcc, of CUDA_PATH if that is set, for CUDAARCHS (`90-real;100-real`, as CMake has it) or
/// every architecture that nvcc knows.
fn compile_cuda() {
    const SOURCE: &str = "src/ggml/cuda/sample.cu";
    for name in ["CUDA_PATH", "CUDAARCHS"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed={SOURCE}");
    let nvcc = match std::env::var_os("CUDA_PATH") {
        Some(path) => PathBuf::from(path).join("bin/nvcc"),
        None => PathBuf::from("nvcc"),
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let mut command = Command::new(&nvcc);
    command.args(["-O3", "-std=c++17", "-lib", "-o"]).arg(out.join("libesolm_cuda.a"));
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("unix") {
        command.args(["-Xcompiler", "-fPIC"]);
    }
    match std::env::var("CUDAARCHS") {
        Ok(all) if !all.is_empty() => {
            for number in all.split(';').map(|arch| arch.split('-').next().unwrap_or(arch)) {
                command.arg(format!("-gencode=arch=compute_{number},code=sm_{number}"));
            }
        }
        _ => {
            command.arg("-arch=all-major");
        }
    }
    let status = command.arg(SOURCE).status();
    assert!(status.is_ok_and(|s| s.success()), "{} could not compile {SOURCE}", nvcc.display());
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=esolm_cuda");
}
