//! Names the shared library, so that programs ask for its binary interface's version; links C++'s library; compiles what is written in CUDA.
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    // The name by which programs look for the library, with ESOLM_ABI_VERSION. Without one they would look for the path where it
    // was built. Android takes no numbers behind `.so`.
    let name = match os.as_str() {
        "linux" => Some("-soname,libesolm.so.0"),
        "android" => Some("-soname,libesolm.so"),
        "macos" | "ios" => Some("-install_name,@rpath/libesolm.0.dylib"),
        _ => None,
    };
    if let Some(name) = name {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{name}");
    }
    // Nothing of other packages: llguidance has functions for C, which Rust would export, too. (zig does not know the
    // option; packaging/pack-library does it for zig.)
    if matches!(os.as_str(), "linux" | "android")
        && !std::env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc"))
    {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
    // ggml's C++; its crate says so on other systems.
    if os == "windows" && std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
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
