//! Messages from standard input.

use std::io::{BufRead, StdinLock, stdin};

use esolm::{Error, Result, plain_text};

use crate::allocation::extend;
use crate::output::print;

/// Longest message in bytes.
const MOST: usize = 1 << 20;

/// Messages of one or several lines.
pub struct Lines {
    from: StdinLock<'static>,
    /// Whether somebody types them, who is shown where.
    by_hand: bool,
    /// Whether nothing was read yet: a file may begin with a byte-order mark.
    is_first: bool,
}

impl Lines {
    /// Those of standard input, which the caller has taken ([`take_stdin`](crate::input::take_stdin)).
    pub fn new(by_hand: bool) -> Self {
        Self { from: stdin().lock(), by_hand, is_first: true }
    }

    /// The next message; nothing at the end. After an error that is not the system's the next call has the message behind it.
    pub fn next(&mut self) -> Result<Option<String>> {
        let mut message = Vec::new();
        let (mut is_begun, mut is_long) = (false, false);
        loop {
            if self.by_hand {
                print(if is_begun { ". " } else { "> " })?;
            }
            let Some((mut line, is_cut)) = self.line()? else {
                if is_begun {
                    break;
                }
                return Ok(None);
            };
            is_begun = true;
            let goes_on = line.last() == Some(&b'\\');
            if goes_on {
                line.pop();
                line.push(b'\n');
            }
            // What is wrong with a message is said at its end, so that the rest of it is not taken for another one.
            is_long |= is_cut || message.len() + line.len() > MOST;
            if !is_long {
                extend(&mut message, &line)?;
            }
            if !goes_on {
                break;
            }
        }
        let is_first = std::mem::take(&mut self.is_first);
        if is_long {
            return Err(Error::InvalidArgument(format!("a message has more than {MOST} bytes")));
        }
        let message = String::from_utf8(message).map_err(|error| Error::BadFile {
            file: "standard input".into(),
            what: format!("a message is not UTF-8: {}", error.utf8_error()),
            source: None,
        })?;
        if is_first { plain_text(message).map(Some) } else { Ok(Some(message)) }
    }

    /// The next line without its end, and whether it is too long: then of the line its last bytes alone.
    fn line(&mut self) -> Result<Option<(Vec<u8>, bool)>> {
        let failed = |source| Error::Io { file: "standard input".into(), source };
        let (mut line, mut is_cut) = (Vec::new(), false);
        loop {
            let there = self.from.fill_buf().map_err(failed)?;
            if there.is_empty() {
                if line.is_empty() {
                    return Ok(None);
                }
                break;
            }
            let end = there.iter().position(|&byte| byte == b'\n');
            extend(&mut line, &there[..end.unwrap_or(there.len())])?;
            // Whether the message goes on is seen in the last two.
            if line.len() > MOST + 2 {
                line.drain(..line.len() - 2);
                is_cut = true;
            }
            let taken = end.map_or(there.len(), |end| end + 1);
            self.from.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some((line, is_cut)))
    }
}
