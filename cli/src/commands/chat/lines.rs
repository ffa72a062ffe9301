//! Messages from standard input.

use std::io::{BufRead, StdinLock, stdin};

use esolm::{Error, Result};

use crate::output::print;

/// Longest message in bytes.
const MOST: usize = 1 << 20;

/// Messages of one or several lines.
pub struct Lines {
    from: StdinLock<'static>,
    /// Whether somebody types them, who is shown where.
    by_hand: bool,
}

impl Lines {
    pub fn new(by_hand: bool) -> Self {
        Self { from: stdin().lock(), by_hand }
    }

    /// The next message; nothing at the end. After an error that is not the system's the next call has the line behind it.
    pub fn next(&mut self) -> Result<Option<String>> {
        let mut message = String::new();
        loop {
            if self.by_hand {
                print(if message.is_empty() { "> " } else { ". " })?;
            }
            let Some(line) = self.line(MOST - message.len().min(MOST))? else {
                return Ok((!message.is_empty()).then_some(message));
            };
            match line.strip_suffix('\\') {
                Some(line) => {
                    message.push_str(line);
                    message.push('\n');
                }
                None => {
                    message.push_str(&line);
                    return Ok(Some(message));
                }
            }
        }
    }

    /// The next line of at most `most` bytes, without its end.
    fn line(&mut self, most: usize) -> Result<Option<String>> {
        let failed = |source| Error::Io { file: "standard input".into(), source };
        let mut bytes = Vec::new();
        loop {
            let there = self.from.fill_buf().map_err(failed)?;
            if there.is_empty() {
                if bytes.is_empty() {
                    return Ok(None);
                }
                break;
            }
            let end = there.iter().position(|&byte| byte == b'\n');
            // Of a line that is too long the rest is read, and not kept.
            if bytes.len() <= most {
                bytes.extend(&there[..end.unwrap_or(there.len())]);
            }
            let taken = end.map_or(there.len(), |end| end + 1);
            self.from.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if bytes.len() > most {
            return Err(Error::InvalidArgument(format!("a message has more than {MOST} bytes")));
        }
        let line = String::from_utf8(bytes).map_err(|error| Error::BadFile {
            file: "standard input".into(),
            what: format!("a message is not UTF-8: {}", error.utf8_error()),
            source: None,
        })?;
        Ok(Some(line.strip_suffix('\r').map(str::to_owned).unwrap_or(line)))
    }
}
