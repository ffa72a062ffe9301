//! What commands write: standard output, notes, files.

use std::io::{ErrorKind, Write};
use std::path::Path;

use esolm::{Error, Result};
use serde_json::Value;

/// Writes `text` to standard output. A reader that has gone away (`esolm .. | head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Io { file: "standard output".into(), source: e })
        }
        _ => Ok(()),
    }
}

/// Writes `value` to standard output as one line of JSON.
pub fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// Writes `value` to standard output as JSON over several lines.
pub fn print_json_pretty(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Token ids on one line.
pub fn join_ids(tokens: &[u32]) -> String {
    tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// Writes a file that a command was asked for besides its output.
pub fn write_file(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).map_err(|source| io_error(path, source))
}

/// Prints notes about what was done to standard error.
pub fn print_notes(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// The error of an operation on a file.
pub fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { file: path.display().to_string(), source }
}

/// `bytes` in KiB, MiB or GiB.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
