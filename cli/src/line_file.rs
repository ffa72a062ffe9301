//! Results as lines of JSON, one behind the other in a file that a later run continues, or on standard output.

use std::fmt::Display;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use esolm::{Error, Result};
use serde::Deserialize;

use crate::allocation;
use crate::output::{io_error, print_to_reader};

/// Longest line that is read, in bytes: a file of something else may have no end of a line.
const MAX_LINE: usize = 64 << 20;

/// Where the lines go, in the order of the pieces of work that they are of.
pub struct LineFile {
    /// `None` is standard output.
    file: Option<(PathBuf, File)>,
    found: Found,
}

/// What was in the file.
#[derive(Default)]
struct Found {
    /// How many complete lines.
    lines: usize,
    /// The last of them, which are to be written once more.
    last: Vec<Vec<u8>>,
    /// Where it ends.
    end: u64,
    /// What is behind it: the beginning of a line that was cut off.
    rest: Option<Vec<u8>>,
}

/// What of a line says which piece it is of. The other fields take no memory.
#[derive(Deserialize)]
struct Piece {
    index: u64,
    seed: u64,
}

impl LineFile {
    /// Opens a file, which may have lines of some of the first of these pieces, given by index and seed. Only zeros
    /// at its end are removed. The last `again` lines that are there are done once more: if one comes out another, so would what
    /// follows.
    pub fn open(path: Option<&Path>, pieces: impl Iterator<Item = (u64, u64)>, again: usize) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, found: Found::default() }) };
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
        let found = read(path, &file, pieces, again)?;
        if found.rest.is_none() {
            file.set_len(found.end).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(found.end)).map_err(failed)?;
        Ok(Self { file: Some((path.to_owned(), file)), found })
    }

    /// How many pieces are there.
    pub fn found(&self) -> usize {
        self.found.lines
    }

    /// How many pieces need not be done.
    pub fn done(&self) -> usize {
        self.found.lines - self.found.last.len()
    }

    /// Writes the line of the next piece. Returns whether there still is a reader.
    pub fn write(&mut self, line: impl Display) -> Result<bool> {
        let Some((path, file)) = &mut self.file else { return print_to_reader(line) };
        let line = allocation::formatted(line)?;
        let other = |which| {
            let what = format!(
                "was written with other options, another model or another version, or is another file: {which}"
            );
            Err(bad(path, what))
        };
        if !self.found.last.is_empty() {
            let expected = self.found.last.remove(0);
            return if expected == line.as_bytes() {
                Ok(true)
            } else {
                other("one of its last lines comes out another now")
            };
        }
        // Only what was cut off of this very line is removed: the file may be one that nobody wants to lose.
        if let Some(rest) = self.found.rest.take() {
            if !line.as_bytes().starts_with(&rest) {
                return other("what is behind its last line is no beginning of the next one");
            }
            file.set_len(self.found.end).map_err(|source| io_error(path, source))?;
        }
        file.write_all(line.as_bytes()).map(|()| true).map_err(|source| io_error(path, source))
    }

    /// Has all lines on the disk.
    pub fn finish(&self) -> Result<()> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.sync_all().map_err(|source| io_error(path, source))
    }
}

/// Reads the lines, each of which has to be that of the next piece.
fn read(
    path: &Path,
    file: &File,
    mut pieces: impl Iterator<Item = (u64, u64)>,
    again: usize,
) -> Result<Found> {
    let mut reader = BufReader::new(file);
    let mut found = Found::default();
    loop {
        let mut line = read_line(&mut reader, path)?;
        if line.len() == MAX_LINE {
            let what = format!("line {} is longer than {} MiB", found.lines + 1, MAX_LINE >> 20);
            return Err(bad(path, what));
        }
        let expected = pieces.next();
        let is_last = line.last() != Some(&b'\n');
        if is_last {
            // A machine that stopped may have made the file longer without writing to it.
            let end = line.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            line.truncate(end);
            if line.is_empty() {
                return Ok(found);
            }
        }
        let piece = serde_json::from_slice::<Piece>(&line).ok().map(|piece| (piece.index, piece.seed));
        match expected {
            // `write` compares it with the line that it is to be.
            Some(_) if is_last => return Ok(Found { rest: Some(line), ..found }),
            Some(_) if piece == expected => {}
            Some((index, seed)) => {
                let what = format!("line {} is not that of index {index} and seed {seed}", found.lines + 1);
                return Err(bad(path, what));
            }
            None => {
                let what = "has more lines than are asked for";
                return Err(bad(path, format!("line {}: the file {what}", found.lines + 1)));
            }
        }
        found.lines += 1;
        found.end += line.len() as u64;
        if found.last.len() == again {
            found.last.remove(0);
        }
        allocation::push(&mut found.last, line)?;
    }
}

/// The next line with its end, or as much of it as may be read.
fn read_line(reader: &mut impl BufRead, path: &Path) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let some = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            some => some.map_err(|source| io_error(path, source))?,
        };
        let end = some.iter().position(|&byte| byte == b'\n');
        let len = end.map_or(some.len(), |end| end + 1).min(MAX_LINE - line.len());
        let some = some.get(..len).unwrap_or_default();
        allocation::reserve(&mut line, len)?;
        line.extend_from_slice(some);
        reader.consume(len);
        if end.is_some() || len == 0 {
            return Ok(line);
        }
    }
}

fn bad(path: &Path, what: String) -> Error {
    Error::BadFile { file: path.display().to_string(), what, source: None }
}
