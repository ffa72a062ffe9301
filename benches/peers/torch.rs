//! `eso_torch.py` in a process of its own, which waits while others are measured.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use esolm::{Error, Result};

/// The running program.
pub struct Torch {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Torch {
    /// Starts it with `python`, a Python that has PyTorch.
    pub fn start(python: &str, precision: &str, threads: usize) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/eso_torch.py");
        let mut process = Command::new(python)
            .args([script, precision, &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io)?;
        match (process.stdin.take(), process.stdout.take()) {
            (Some(questions), Some(answers)) => {
                Ok(Self { process, questions, answers: BufReader::new(answers) })
            }
            _ => Err(Error::Device("PyTorch's program has no pipes".into())),
        }
    }

    /// Writes a text in `steps` steps; the seconds that it took.
    pub fn generate(&mut self, steps: usize, seed: usize) -> Result<f64> {
        writeln!(self.questions, "{steps} {seed}").map_err(io)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(io)?;
        answer
            .split_whitespace()
            .nth(1)
            .and_then(|seconds| seconds.parse().ok())
            .ok_or_else(|| Error::Device(format!("PyTorch's program answered '{answer}'")))
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn io(source: std::io::Error) -> Error {
    Error::Io { file: "eso_torch.py".into(), source }
}
