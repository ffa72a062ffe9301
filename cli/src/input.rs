//! Texts that commands read: arguments, files, standard input.

use std::fs::File;
use std::io::Read;

use esolm::{Error, Result};

/// Longest text that is read, in bytes; tokenizing takes a few hundred times as much memory.
const MAX_TEXT: u64 = 64 << 20;

/// The words given as arguments, joined with spaces; standard input if there are none, or only `-`.
pub fn words_or_stdin(words: &[String]) -> Result<String> {
    match words {
        [] => read_stdin(),
        [only] if only == "-" => read_stdin(),
        words => Ok(words.join(" ")),
    }
}

/// All of standard input as text.
pub fn read_stdin() -> Result<String> {
    text("standard input", std::io::stdin())
}

/// A text file; `-` is standard input.
pub fn read_text(file: &str) -> Result<String> {
    match file {
        "-" => read_stdin(),
        file => text(file, File::open(file).map_err(|source| Error::Io { file: file.into(), source })?),
    }
}

/// Reads a text to its end, or to [`MAX_TEXT`]: a device or a pipe may have no end.
fn text(file: &str, from: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_TEXT + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { file: file.into(), source })?;
    if bytes.len() as u64 > MAX_TEXT {
        let what = format!("more than {} MiB of text, which is the limit", MAX_TEXT >> 20);
        return Err(Error::BadFile { file: file.into(), what, source: None });
    }
    String::from_utf8(bytes).map_err(|e| Error::BadFile {
        file: file.into(),
        what: format!("the text is not UTF-8: {}", e.utf8_error()),
        source: Some(std::sync::Arc::new(e)),
    })
}
