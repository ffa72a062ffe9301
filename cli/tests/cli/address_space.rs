//! The command with less and less address space: it ends, with the text or a reason.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::command_line::err;

/// Runs a generation with three threads in so many KiB. A backtrace is asked for, as telling one takes memory, too.
fn generate(kib: usize) -> Output {
    let mut shell = Command::new("sh");
    let limited = "ulimit -c 0; ulimit -v $1; shift; exec timeout 60 \"$@\"";
    shell.args(["-c", limited, "sh", &kib.to_string(), env!("CARGO_BIN_EXE_esolm")]);
    shell.args(["generate", "-n", "4", "--seed", "1", "--threads", "3", "--quiet"]);
    shell.env("RUST_BACKTRACE", "1").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn little_address_space_is_an_error_or_the_text() {
    let text = generate(1 << 20).stdout;
    assert!(text.len() > 4);
    let (mut low, mut high) = (0, 1 << 20);
    while high - low > 128 {
        let middle = (low + high) / 2;
        if generate(middle).status.success() { high = middle } else { low = middle }
    }
    let (mut written, mut refused, mut ended) = (0, 0, 0);
    for kib in (high.saturating_sub(6 << 10)..high + (12 << 10)).step_by(96) {
        let started = Instant::now();
        let output = generate(kib);
        assert!(started.elapsed() < Duration::from_secs(50), "{kib} KiB: it hangs");
        let said = err(&output);
        match output.status.code() {
            Some(0) => {
                assert_eq!(output.stdout, text, "{kib} KiB");
                written += 1;
            }
            Some(4) => {
                assert!(said.contains("out of memory"), "{kib} KiB: {said}");
                refused += 1;
            }
            // What is small and cannot be refused memory, but no thread that starts.
            _ => {
                assert!(said.contains("memory allocation of"), "{kib} KiB: {:?}: {said}", output.status);
                ended += 1;
            }
        }
    }
    assert!(written > 10 && refused > 10 && 20 * ended < refused, "{written}, {refused}, {ended}");
}
