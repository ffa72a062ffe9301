//! A Python program of this folder in a process of its own, which waits while others are measured.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use esolm::{Error, Result};

/// The running program. It says what it is in its first line; then each line that it reads is work, and its answer the
/// seconds that the work took.
pub struct Program {
    script: &'static str,
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its first line: package, version, instructions.
    pub about: String,
}

impl Program {
    /// Starts `script` with `python` and waits until it is ready.
    pub fn start(
        python: &str,
        script: &'static str,
        args: impl IntoIterator<Item: AsRef<OsStr>>,
    ) -> Result<Self> {
        let mut process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(script))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Io { file: python.into(), source })?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::Device(format!("{script} has no pipes")));
        };
        let answers = BufReader::new(answers);
        let mut program = Self { script, process, requests, answers, about: String::new() };
        program.about = program.line()?;
        Ok(program)
    }

    /// Has it do what `request` says; the seconds that it took.
    pub fn seconds(&mut self, request: &str) -> Result<f64> {
        writeln!(self.requests, "{request}")
            .map_err(|source| Error::Io { file: self.script.into(), source })?;
        let answer = self.line()?;
        answer.parse().map_err(|_| Error::Device(format!("{} answered '{answer}'", self.script)))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(Error::Device(format!("{} ended", self.script))),
            Ok(_) => Ok(line.trim_end().into()),
            Err(source) => Err(Error::Io { file: self.script.into(), source }),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
