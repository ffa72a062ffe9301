//! Texts and token ids that commands read: arguments, files, standard input.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use esolm::{Config, Error, Model, Result, TokenizeOptions, Tokenizer};
use serde_json::Value;

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

/// Whether standard input was read.
static STDIN_READ: AtomicBool = AtomicBool::new(false);

/// All of standard input as text.
pub fn read_stdin() -> Result<String> {
    STDIN_READ.store(true, Ordering::Relaxed);
    text("standard input", std::io::stdin())
}

/// A text file; `-` is standard input. A byte-order mark at its beginning is left out, and lines end with `\n` alone: both are
/// of the editor that wrote the file.
pub fn read_text(file: &str) -> Result<String> {
    let text = match file {
        "-" => read_stdin()?,
        file => text(file, File::open(file).map_err(|source| Error::Io { file: file.into(), source })?)?,
    };
    let content = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(if content.contains("\r\n") { content.replace("\r\n", "\n") } else { content.to_owned() })
}

/// Whether standard input is a pipe or a file, from which somebody wants something to be read, and nothing was yet.
pub fn is_piped() -> bool {
    if STDIN_READ.load(Ordering::Relaxed) {
        return false;
    }
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        use std::os::unix::fs::FileTypeExt;

        let input = std::io::stdin().as_fd().try_clone_to_owned();
        let kind = input.and_then(|input| Ok(File::from(input).metadata()?.file_type()));
        kind.is_ok_and(|kind| kind.is_fifo() || kind.is_file())
    }
    #[cfg(not(unix))]
    return !std::io::IsTerminal::is_terminal(&std::io::stdin());
}

/// Token ids separated by white space or commas; all of them may stand in the brackets of a JSON array, which may be that of
/// `esolm tokenize --json`.
pub fn parse_ids(text: &str, model: &Model) -> Result<Vec<u32>> {
    let vocabulary = model.config().vocab_size;
    let object = text.trim_start().starts_with('{').then(|| serde_json::from_str::<Value>(text));
    let array = object.and_then(|object| Some(object.ok()?.get("tokens")?.to_string()));
    let list = array.as_deref().unwrap_or(text).trim();
    let list = list.strip_prefix('[').and_then(|l| l.strip_suffix(']')).unwrap_or(list);
    let token = |id: &str| match id.parse::<u32>() {
        Ok(token) if (token as usize) < vocabulary => Ok(token),
        _ => Err(Error::InvalidArgument(format!("'{id}' is no token id; they are 0 to {}", vocabulary - 1))),
    };
    let ids = list.split(|c: char| c.is_whitespace() || c == ',').filter(|id| !id.is_empty());
    ids.map(token).collect()
}

/// The model's tokenizer; `None` if its file has none, where texts are token ids.
pub fn tokenizer(model: &Model) -> Result<Option<&Tokenizer>> {
    match model.metadata_value(Config::TOKENIZER_KEY) {
        Some(_) => model.tokenizer().map(Some),
        None => Ok(None),
    }
}

/// The tokens of a text. `ids` is how token ids are given instead.
pub fn encode(model: &Model, text: &str, options: TokenizeOptions, ids: &str) -> Result<Vec<u32>> {
    match tokenizer(model)? {
        Some(tokenizer) => tokenizer.encode_with(text, &options),
        None => Err(Error::InvalidArgument(format!("the model has no tokenizer; give token ids with {ids}"))),
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
