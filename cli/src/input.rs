//! Texts and token ids that commands read: arguments, files, standard input.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use esolm::{Error, Model, Result, TokenizeOptions, Tokenizer, plain_text};

use crate::allocation;
use crate::output::tell;

/// How long to wait without a word for what was not asked for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest text that is read, in bytes; tokenizing takes a few hundred times as much memory.
const MAX_TEXT: u64 = 64 << 20;

/// Longest prompt that is read where that is more than the model's tokens can be.
const MAX_SHORT_PROMPT: u64 = 1 << 20;

/// Longest token that a tokenizer may have, in bytes.
const MAX_TOKEN: u64 = 512;

/// Longest prompt that is read for a model, in bytes: longer ones have more tokens than it can take, and to find that out would
/// take a few hundred times their size in memory.
pub fn longest_prompt(model: &Model) -> u64 {
    let tokens = model.config().context_length as u64;
    tokens.saturating_mul(MAX_TOKEN).clamp(MAX_SHORT_PROMPT, MAX_TEXT)
}

/// The words given as arguments, joined with spaces; standard input if there are none, or only `-`.
pub fn words_or_stdin(words: &[String]) -> Result<String> {
    match words {
        [] => read_stdin(),
        [only] if only == "-" => read_stdin(),
        words => allocation::joined(words.iter().map(String::as_str), " "),
    }
}

/// What reads standard input, which can be read once.
static STDIN_READER: OnceLock<&str> = OnceLock::new();

/// Takes standard input for `reader`, as a message calls it.
///
/// # Errors
/// [`Error::InvalidArgument`] if it is taken: what is read twice is empty the second time.
pub fn take_stdin(reader: &'static str) -> Result<()> {
    STDIN_READER.set(reader).map_err(|_| {
        let other = STDIN_READER.get().copied().unwrap_or_default();
        Error::InvalidArgument(format!(
            "standard input can be read once, and {other} reads it; give a file in place of '-'"
        ))
    })
}

/// All of standard input as text.
pub fn read_stdin() -> Result<String> {
    read_stdin_up_to(MAX_TEXT)
}

fn read_stdin_up_to(limit: u64) -> Result<String> {
    take_stdin("another '-'")?;
    text("standard input", std::io::stdin(), limit)
}

/// As `read`, but if it takes longer than a second a line on standard error says what is read: nobody has asked for it.
pub fn saying_so(what: &str, read: impl FnOnce() -> Result<String>) -> Result<String> {
    std::thread::scope(|scope| {
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        let wait = move || {
            if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                tell(&format!("reading {what} from standard input; with </dev/null there is none"));
            }
        };
        // Where the system gives no thread, nothing is said.
        let _ = std::thread::Builder::new().spawn_scoped(scope, wait);
        let text = read();
        drop(done);
        text
    })
}

/// A text file; `-` is standard input. A byte-order mark at its beginning is left out, and lines end with `\n` alone: both are
/// of the editor that wrote the file.
pub fn read_text(file: &str) -> Result<String> {
    read_text_up_to(file, MAX_TEXT)
}

/// As [`read_text`], for a text of at most so many bytes.
pub fn read_text_up_to(file: &str, limit: u64) -> Result<String> {
    let text = match file {
        "-" => read_stdin_up_to(limit)?,
        "" => return Err(Error::InvalidArgument("the name of a file to read is empty".into())),
        file => {
            text(file, File::open(file).map_err(|source| Error::Io { file: file.into(), source })?, limit)?
        }
    };
    plain_text(text)
}

/// Whether something is given by standard input, of which nothing was read yet: it is a pipe, or a file at its beginning. (Of
/// one that a loop of the shell reads line by line the rest is not for this command.)
pub fn is_piped() -> bool {
    if STDIN_READER.get().is_some() {
        return false;
    }
    #[cfg(unix)]
    {
        use std::io::Seek;
        use std::os::fd::AsFd;
        use std::os::unix::fs::FileTypeExt;

        let Ok(input) = std::io::stdin().as_fd().try_clone_to_owned() else { return false };
        let mut input = File::from(input);
        let kind = input.metadata().map(|metadata| metadata.file_type());
        kind.is_ok_and(|kind| {
            kind.is_fifo() || kind.is_file() && input.stream_position().is_ok_and(|position| position == 0)
        })
    }
    #[cfg(not(unix))]
    return !std::io::IsTerminal::is_terminal(&std::io::stdin());
}

/// Token ids separated by white space or commas; all of them may stand in the brackets of a JSON array, which may be that of
/// `esolm tokenize --json`.
pub fn parse_ids(text: &str, model: &Model) -> Result<Vec<u32>> {
    let vocabulary = model.config().vocab_size;
    // What `esolm tokenize --json` prints: an object with one list.
    let object =
        text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')?.split_once("\"tokens\""));
    let list = object.map_or(text, |(_, list)| list.trim_start().trim_start_matches(':')).trim();
    let list = list.strip_prefix('[').and_then(|l| l.strip_suffix(']')).unwrap_or(list);
    let token = |id: &str| match id.parse::<u32>() {
        Ok(token) if (token as usize) < vocabulary => Ok(token),
        // What is given may be of any length.
        _ => Err(Error::InvalidArgument(format!(
            "'{id:.40}' is no token id; they are 0 to {}",
            vocabulary - 1
        ))),
    };
    let mut tokens = Vec::new();
    for id in list.split(|c: char| c.is_whitespace() || c == ',').filter(|id| !id.is_empty()) {
        allocation::reserve(&mut tokens, 1)?;
        tokens.push(token(id)?);
    }
    Ok(tokens)
}

/// The model's tokenizer; `None` if its file has none, where texts are token ids. (One that is damaged, or that there is no
/// memory for now, is an error: what is written would lack its texts.)
pub fn tokenizer(model: &Model) -> Result<Option<&Tokenizer>> {
    match model.tokenizer() {
        Err(Error::Tokenizer { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// The tokens of a text. `ids` is how token ids are given instead.
pub fn encode(model: &Model, text: &str, options: TokenizeOptions, ids: &str) -> Result<Vec<u32>> {
    match tokenizer(model)? {
        Some(tokenizer) => tokenizer.encode_with(text, &options),
        None => Err(no_tokenizer(ids)),
    }
}

/// A model that has texts for token ids alone, given with `ids`.
pub fn no_tokenizer(ids: &str) -> Error {
    Error::InvalidArgument(format!("the model has no tokenizer; give token ids with {ids}"))
}

/// Reads a text to its end, or to the limit: a device or a pipe may have no end.
fn text(file: &str, from: impl Read, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|source| match source.kind() {
        ErrorKind::OutOfMemory => allocation::none_for(bytes.len()),
        _ => Error::Io { file: file.into(), source },
    })?;
    if bytes.len() as u64 > limit {
        let of = if limit < MAX_TEXT { " for a prompt of this model" } else { "" };
        let what = format!("more than {} MiB of text, which is the limit{of}", limit >> 20);
        return Err(Error::BadFile { file: file.into(), what, source: None });
    }
    if bytes.starts_with(b"GGUF") {
        return Err(Error::BadFile {
            file: file.into(),
            what: "this is a model, not a text".into(),
            source: None,
        });
    }
    let is_utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    String::from_utf8(bytes).map_err(|e| Error::BadFile {
        file: file.into(),
        what: match is_utf16 {
            true => "the text is UTF-16, not UTF-8".into(),
            false => format!("the text is not UTF-8: {}", e.utf8_error()),
        },
        source: Some(std::sync::Arc::new(e)),
    })
}
