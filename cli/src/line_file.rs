//! Results as lines of JSON, one behind the other in a file that a later run continues, or on standard output.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use esolm::{Error, Result};
use serde_json::Value;

use crate::output::{io_error, print_to_reader};

/// Where the lines go, in the order of the pieces of work that they are of.
pub struct LineFile {
    /// `None` is standard output.
    file: Option<(PathBuf, File)>,
    /// How many lines were there.
    found: usize,
    /// The last of them, which is to be written once more.
    last: Option<String>,
}

impl LineFile {
    /// Opens a file, which may have lines of some of the first of these pieces, given by index and seed. A line that was cut
    /// off, and what is behind it, is removed.
    pub fn open(path: Option<&Path>, pieces: impl Iterator<Item = (u64, u64)>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, found: 0, last: None }) };
        let failed = |source| io_error(path, source);
        // A pipe would have the command wait for its other end.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(bad(path, "is no regular file; without -o the lines go to standard output".into()));
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(bad(path, "is being written by another process".into()));
            }
            // Not every file system has locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let (found, last, end) = read(path, &file, pieces)?;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(failed)?;
        Ok(Self { file: Some((path.to_owned(), file)), found, last })
    }

    /// How many of `all` pieces need not be done. The last that is there is done once more, unless it is the very last: if it
    /// comes out another, so would all that follow.
    pub fn done(&self, all: usize) -> usize {
        if self.found == all { all } else { self.found.saturating_sub(1) }
    }

    /// Writes the line of the next piece. Returns whether there still is a reader.
    pub fn write(&mut self, line: &str) -> Result<bool> {
        let Some((path, file)) = &mut self.file else { return print_to_reader(line) };
        if let Some(last) = self.last.take() {
            if last == line {
                return Ok(true);
            }
            let what = "was written with other options, another model or another version: its last line comes out another now";
            return Err(bad(path, what.into()));
        }
        file.write_all(line.as_bytes()).map(|()| true).map_err(|source| io_error(path, source))
    }

    /// Has all lines on the disk.
    pub fn finish(&self) -> Result<()> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.sync_all().map_err(|source| io_error(path, source))
    }
}

/// Reads the complete lines: their number, the last of them, and where it ends.
fn read(
    path: &Path,
    file: &File,
    mut pieces: impl Iterator<Item = (u64, u64)>,
) -> Result<(usize, Option<String>, u64)> {
    let mut reader = BufReader::new(file);
    let (mut found, mut last, mut end) = (0, None, 0);
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).map_err(|source| io_error(path, source))?;
        if line.last() != Some(&b'\n') {
            return Ok((found, last, end));
        }
        let value: Value = serde_json::from_slice(&line).unwrap_or_default();
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        let expected = pieces.next();
        if expected.is_none() || number("index").zip(number("seed")) != expected {
            let expected = match expected {
                Some((index, seed)) => format!("that of index {index} and seed {seed}"),
                None => "the file's end: it has more lines than are asked for".into(),
            };
            return Err(bad(path, format!("line {} is not {expected}", found + 1)));
        }
        found += 1;
        end += line.len() as u64;
        last = String::from_utf8(line).ok();
    }
}

fn bad(path: &Path, what: String) -> Error {
    Error::BadFile { file: path.display().to_string(), what, source: None }
}
