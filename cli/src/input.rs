//! Texts that commands read: arguments, files, standard input.

use std::io::Read;

use esolm::{Error, Result};

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
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes);
    text("standard input", read.map(|_| bytes))
}

/// A text file; `-` is standard input.
pub fn read_text(file: &str) -> Result<String> {
    match file {
        "-" => read_stdin(),
        file => text(file, std::fs::read(file)),
    }
}

fn text(file: &str, bytes: std::io::Result<Vec<u8>>) -> Result<String> {
    let bytes = bytes.map_err(|source| Error::Io { file: file.into(), source })?;
    String::from_utf8(bytes).map_err(|e| Error::BadFile {
        file: file.into(),
        what: format!("the text is not UTF-8: {}", e.utf8_error()),
        source: Some(std::sync::Arc::new(e)),
    })
}
