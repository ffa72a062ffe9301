//! The command on processors that lack instructions which it was compiled for, under qemu.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::command_line::{err, out};

#[test]
fn processor_without_the_instructions_is_named_and_not_a_crash() {
    let qemu = "qemu-x86_64";
    if Command::new(qemu).arg("--version").stdout(Stdio::null()).status().is_err() {
        // Not by println, which is not shown where a test passes.
        let _ = writeln!(std::io::stderr(), "skipped: no {qemu} (Debian: qemu-user)");
        return;
    }
    let mut refused = 0;
    for processor in ["qemu64", "core2duo", "Nehalem", "SandyBridge", "Haswell", "max"] {
        let output = Command::new(qemu)
            .args(["-cpu", processor, env!("CARGO_BIN_EXE_esolm"), "--version"])
            .output()
            .unwrap();
        match output.status.code() {
            Some(0) => assert!(out(&output).starts_with("esolm "), "{processor}: {}", out(&output)),
            Some(4) => {
                assert!(
                    err(&output).contains("instructions that the processor lacks, such as "),
                    "{}",
                    err(&output)
                );
                refused += 1;
            }
            _ => panic!("{processor}: {}: {}", output.status, err(&output)),
        }
    }
    println!("refused on {refused} of 6 processors");
    // A portable build may run on all of them.
    assert!(refused > 0 || !cfg!(target_feature = "avx512f"));
}
