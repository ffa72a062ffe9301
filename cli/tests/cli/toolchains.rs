//! What CMakeLists.txt passes on to cargo of a toolchain file: a stand-in for cargo says how it is called.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::command_line::{err, library_file, out};

/// Configures the source tree with a toolchain file and options; the environment and the arguments that cargo gets.
fn cargo_is_called(folder: &Path, toolchain: &str, options: &[&str]) -> Vec<String> {
    let (cargo, file) = (folder.join("cargo"), folder.join("toolchain.cmake"));
    let build = folder.join("build");
    let said = folder.join("said");
    for old in [&build, &said] {
        let _ = std::fs::remove_dir_all(old).or_else(|_| std::fs::remove_file(old));
    }
    std::fs::write(&file, toolchain).unwrap();
    // The library is not there behind it, so that the build ends with an error.
    let script = format!("#!/bin/sh\n(env; printf '%s\\n' \"$@\") >'{}'\nexit 1\n", said.display());
    std::fs::write(&cargo, script).unwrap();
    std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
    let mut configure = Command::new("cmake");
    for variable in ["CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "RUSTFLAGS"] {
        configure.env_remove(variable);
    }
    configure.args(["-S", &library_file("."), "-B"]).arg(&build).args(options);
    configure.arg(format!("-DCMAKE_TOOLCHAIN_FILE={}", file.display()));
    configure.arg(format!("-DESOLM_CARGO={}", cargo.display()));
    let done = configure.output().unwrap();
    assert!(done.status.success(), "{}{}", out(&done), err(&done));
    let mut make = Command::new("cmake");
    // The caller's own flags would take the place of the target's.
    make.env("RUSTFLAGS", "-Cdebuginfo=0").arg("--build").arg(&build).args(["--target", "esolm_cargo"]);
    let done = make.output().unwrap();
    let called = std::fs::read_to_string(&said).unwrap_or_else(|_| panic!("{}{}", out(&done), err(&done)));
    called.lines().map(str::to_owned).collect()
}

/// A toolchain file of this machine's compilers, with a sysroot and flags of each language and of the linker.
fn toolchain(c: &str, cxx: &str, target: &str) -> String {
    let target = ["C", "CXX"].map(|language| format!("set(CMAKE_{language}_COMPILER_TARGET {target})\n"));
    format!(
        "set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSTEM_PROCESSOR {})\nset(CMAKE_SYSROOT /)\n\
         set(CMAKE_C_COMPILER {c})\nset(CMAKE_CXX_COMPILER {cxx})\n{}\
         set(CMAKE_C_FLAGS_INIT \"-DFOR_C -O1\")\nset(CMAKE_CXX_FLAGS_INIT -DFOR_CXX)\n\
         set(CMAKE_SHARED_LINKER_FLAGS_INIT -Wl,--as-needed)\n",
        std::env::consts::ARCH,
        target.concat()
    )
}

#[test]
fn cmake_passes_on_the_flags_of_a_toolchain_file() {
    let folder = tempfile::tempdir().unwrap();
    let rust = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let name = rust.replace('-', "_");
    let upper = name.to_uppercase();
    let mut compilers = vec![("cc", "c++", String::new())];
    // clang alone is told for which platform it compiles.
    match Command::new("clang").arg("-dumpmachine").output() {
        Ok(done) if done.status.success() => {
            compilers.push(("clang", "clang++", out(&done).trim().to_owned()))
        }
        // `make setup-test` installs it.
        _ => (),
    }
    for (c, cxx, target) in compilers {
        let file = toolchain(c, cxx, &target);
        let option = if target.is_empty() { target } else { format!(" --target={target}") };
        let called = cargo_is_called(folder.path(), &file, &[]);
        let link = format!("-DFOR_C -O1 --sysroot=/{option} -Wl,--as-needed");
        let link: Vec<_> = link.split(' ').map(|flag| format!("-Clink-arg={flag}")).collect();
        for line in [
            format!("CFLAGS_{name}=-DFOR_C -O1 --sysroot=/{option}"),
            format!("CXXFLAGS_{name}=-DFOR_CXX --sysroot=/{option}"),
            format!("BINDGEN_EXTRA_CLANG_ARGS_{name}=--sysroot=/"),
            format!("CARGO_TARGET_{upper}_RUSTFLAGS={}", link.join(" ")),
            rust.clone(),
        ] {
            assert!(called.contains(&line), "no {line} in {called:#?}");
        }
        // RUSTFLAGS would take the place of the baseline in .cargo/config.toml, as it is meant to for a processor.
        assert!(!called.iter().any(|line| line.starts_with("RUSTFLAGS=")), "{called:#?}");
        let called = cargo_is_called(folder.path(), &file, &["-DESOLM_CPU=native"]);
        let line = format!("RUSTFLAGS=-Ctarget-cpu=native {}", link.join(" "));
        assert!(called.contains(&line), "no {line} in {called:#?}");
    }
}
