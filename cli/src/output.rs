//! What commands write: standard output, notes, files.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use esolm::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::allocation::{extend, formatted};

/// Writes `text` to standard output, as it is made. A reader that has gone away (`esolm .. | head`) is not an error. A terminal
/// gets control characters, which may come from a file, in a visible form.
pub fn print(text: impl Display) -> Result<()> {
    print_to_reader(text).map(|_| ())
}

/// As [`print`]. Returns whether there still is a reader.
pub fn print_to_reader(text: impl Display) -> Result<bool> {
    let mut out = Gathered { to: std::io::stdout().lock(), bytes: Vec::new() };
    let written = if out.to.is_terminal() { write!(out, "{}", Visible(text)) } else { write!(out, "{text}") };
    let result = written.and_then(|()| out.flush());
    let unread = matches!(&result, Err(e) if e.kind() == ErrorKind::BrokenPipe);
    printed(result).map(|()| !unread)
}

/// Whether somebody still reads standard output: false once a pipe's reader has gone away, which a command would notice at its next
/// word otherwise, and some say none for long.
pub fn has_reader() -> bool {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let out = std::io::stdout();
        let mut asked = [PollFd::new(&out, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let told = poll(&mut asked, Some(&at_once));
        // (What has hung up is more than pipes: also what closed_stdout.c puts there.)
        !(told.is_ok() && asked.iter().any(|out| out.revents().contains(PollFlags::ERR)))
    }
    #[cfg(not(unix))]
    true
}

/// Gathers bytes, so that lines up to some length are written at once, which other processes may write to as well.
struct Gathered<W> {
    to: W,
    bytes: Vec<u8>,
}

impl<W: Write> Gathered<W> {
    /// Bytes that are gathered, if there is memory for them.
    const MOST: usize = 64 << 10;

    fn pass_on(&mut self) -> std::io::Result<()> {
        let passed = self.to.write_all(&self.bytes);
        self.bytes.clear();
        passed
    }
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > Self::MOST {
            self.pass_on()?;
        }
        if bytes.len() > Self::MOST || extend(&mut self.bytes, bytes).is_err() {
            self.pass_on()?;
            self.to.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.pass_on()?;
        self.to.flush()
    }
}

/// What printing to standard output came to.
pub fn printed(result: std::io::Result<()>) -> Result<()> {
    let source = match result {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
        // See closed_stdout.c.
        Err(e) if e.kind() == ErrorKind::NotConnected => std::io::Error::new(e.kind(), "it is closed"),
        Err(e) => e,
        Ok(()) => return Ok(()),
    };
    Err(Error::Io { file: "standard output".into(), source })
}

/// The version of what --json prints (docs/cli.md). It is raised when a field goes away, or changes its name or its meaning.
pub const JSON_SCHEMA: u32 = 1;

/// An object as a line of JSON.
pub struct JsonLine(Value);

impl Display for JsonLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.0)
    }
}

/// An object as a line of JSON, with the version of its fields.
pub fn json_line(object: Value) -> JsonLine {
    let mut line = json!({ "schema": JSON_SCHEMA });
    if let (Value::Object(line), Value::Object(fields)) = (&mut line, object) {
        line.extend(fields);
    }
    JsonLine(line)
}

/// A single-precision number with as few digits as it takes.
pub fn short(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().ok())
}

/// Writes an object to standard output as a line of JSON.
pub fn print_json(object: Value) -> Result<()> {
    print(json_line(object))
}

/// An object with one field besides the version, as [`print_json`] shows it: `value` is not copied.
pub struct JsonField<'a, T>(pub &'static str, pub &'a T);

impl<T: Serialize> Display for JsonField<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{{\"schema\":{JSON_SCHEMA},\"{}\":{}}}", self.0, JsonText(self.1))
    }
}

/// A value as JSON. (Only a table whose keys are no texts cannot be shown.)
pub struct JsonText<'a, T>(pub &'a T);

impl<T: Serialize> Display for JsonText<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// JSON is UTF-8, and comes in whole characters.
        struct Text<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Text<'_, '_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
                self.0.write_str(text).map_err(std::io::Error::other)?;
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        serde_json::to_writer(Text(f), self.0).map_err(|_| fmt::Error)
    }
}

/// Token ids on one line.
pub struct Ids<'a>(pub &'a [u32]);

impl Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter();
        if let Some(first) = ids.next() {
            write!(f, "{first}")?;
        }
        ids.try_for_each(|id| write!(f, " {id}"))
    }
}

/// Writes a file that a command was asked for besides its output.
pub fn write_file(path: &Path, content: impl Display) -> Result<()> {
    esolm::write_file(path, formatted(content)?.as_bytes())
}

/// Fails before any work if one of these outputs cannot be written, or if it would replace an input or another output.
pub fn check_outputs(outputs: &[Option<&Path>], inputs: &[&Path]) -> Result<()> {
    let mut taken: Vec<_> = inputs.iter().filter_map(|input| place(input)).collect();
    for output in outputs.iter().flatten() {
        if output.as_os_str() == "-" {
            let what = "'-' is no file to write to (./- would be)";
            return Err(Error::InvalidArgument(what.into()));
        }
        esolm::check_writable(output)?;
        let Some(place) = place(output) else { continue };
        if taken.contains(&place) {
            let what =
                format!("{} is given twice: what is written needs a file of its own", output.display());
            return Err(Error::InvalidArgument(what));
        }
        taken.push(place);
    }
    Ok(())
}

/// Where a file is or will be, through links; `None` for devices and pipes, which several things may be written to.
fn place(path: &Path) -> Option<PathBuf> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return None;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.canonicalize().ok().or_else(|| Some(folder.canonicalize().ok()?.join(path.file_name()?)))
}

/// Prints a line for people to standard error. Work is not lost because nobody can be told of it: a failure is ignored.
pub fn tell(line: &str) {
    let mut to = std::io::stderr().lock();
    // At once, if there is memory for it: other processes may write there, too.
    let _ = match formatted(format_args!("{}\n", Visible(line))) {
        Ok(line) => to.write_all(line.as_bytes()),
        Err(_) => writeln!(to, "{}", Visible(line)),
    };
}

/// Prints notes about what was done to standard error.
pub fn print_notes(notes: &[String]) {
    notes.iter().for_each(|note| tell(&format!("note: {note}")));
}

/// What a text shows, with control characters, and those that change the direction of writing, as escapes such as `\u{1b}`:
/// names and texts come from files, and a terminal obeys them.
pub struct Visible<T>(pub T);

impl<T: Display> Display for Visible<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, mut text: &str) -> fmt::Result {
                let hidden = |c: char| is_obeyed(c) && !matches!(c, '\n' | '\t');
                while let Some((at, c)) = text.char_indices().find(|&(_, c)| hidden(c)) {
                    write!(self.0, "{}{}", &text[..at], c.escape_unicode())?;
                    text = &text[at + c.len_utf8()..];
                }
                self.0.write_str(text)
            }
        }
        fmt::Write::write_fmt(&mut Escaping(f), format_args!("{}", self.0))
    }
}

/// Longest message of an error, in bytes: more than the longest path.
const LONGEST: usize = 8000;

/// A message without its middle if it is too long: what it quotes may come from a file, and be of any length.
pub fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return text.into();
    }
    let boundary = |at: usize| (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (start, end) = (boundary(LONGEST / 2), boundary(text.len() - LONGEST / 2));
    format!("{} .. {}", text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default()).into()
}

/// Whether a terminal does something for this character other than to show it.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The error of an operation on a file.
pub fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { file: path.display().to_string(), source }
}

/// `bytes` in KiB, MiB or GiB.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::Visible;

    fn visible(text: &str) -> String {
        Visible(text).to_string()
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(visible("a\tb\n"), "a\tb\n");
        assert_eq!(visible("\x1b[2J\u{9b}\r\u{202e}x"), "\\u{1b}[2J\\u{9b}\\u{d}\\u{202e}x");
    }
}
