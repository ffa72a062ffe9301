//! JSON as Python writes it: beyond the standard, a number may be `NaN`, `Infinity` or `-Infinity`.

use std::path::Path;

use serde_json::Value;

use super::small_file::read_config;
use crate::error::Result;
use crate::json::{self, Unread};
use crate::memory::{extend, with_room};

/// Most values of a file, all of which become values in memory, which take up to a hundred times as many bytes.
pub(super) const MAX_VALUES: usize = 1 << 16;
/// The same for a vocabulary.
const MAX_VOCABULARY: usize = 1 << 18;

/// Reads a JSON file. A number that is not finite becomes text, which is no valid value for anything that is needed.
///
/// # Errors
/// [`Error::BadFile`](crate::Error::BadFile) if it is not JSON, too large, or has too many values; [`Error::Io`](crate::Error::Io).
pub(super) fn read_json(path: &Path) -> Result<Value> {
    read(path, MAX_VALUES)
}

/// As [`read_json`], for a table of tokens.
pub(super) fn read_vocabulary(path: &Path) -> Result<Value> {
    read(path, MAX_VOCABULARY)
}

fn read(path: &Path, most: usize) -> Result<Value> {
    parse(&read_config(path)?, most, &path.display().to_string())
}

/// As [`read_json`]; `None` if there is no such file.
pub(super) fn read_json_if_any(path: &Path) -> Result<Option<Value>> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}

/// The value of a text of at most so many values. `file` names it in errors.
///
/// # Errors
/// [`Error::BadFile`](crate::Error::BadFile); [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub(super) fn parse(json: &[u8], most: usize, file: &str) -> Result<Value> {
    let parsed = match json::parse(json, most) {
        Err(Unread::Damaged(_)) => json::parse(&quoted(json)?, most),
        parsed => parsed,
    };
    parsed.map_err(|unread| unread.of_file(file))
}

/// The text with quotes around each `NaN`, `Infinity` and `-Infinity` that is not in a string.
fn quoted(json: &[u8]) -> Result<Vec<u8>> {
    let mut out = with_room(json.len() + 16)?;
    let mut rest = json;
    let mut in_string = false;
    while let Some((&byte, after)) = rest.split_first() {
        let words: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
        let word = words.into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (word, byte) {
            (Some(word), _) => {
                for part in [b"\"", word, b"\""] {
                    extend(&mut out, part)?;
                }
                rest = rest.get(word.len()..).unwrap_or_default();
                continue;
            }
            // An escape in a string has at least one more byte, which may be a quote.
            (None, b'\\') if in_string && !after.is_empty() => 2,
            (None, _) => 1,
        };
        in_string ^= byte == b'"';
        let (copied, left) = rest.split_at(taken);
        extend(&mut out, copied)?;
        rest = left;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_become_text() {
        let text = r#"{"a": NaN, "b": [Infinity, -Infinity,1e9], "NaN": "an Infinity of \"NaN\" \\", "c":-Infinity}"#;
        let value = parse(text.as_bytes(), MAX_VALUES, "a.json").unwrap();
        let expected = serde_json::json!({
            "a": "NaN", "b": ["Infinity", "-Infinity", 1e9], "NaN": "an Infinity of \"NaN\" \\", "c": "-Infinity",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn json_without_such_numbers_is_left_as_it_is() {
        let text = r#"{"Infinity": "-Infinity", "x": ["NaN", "\\", "\"NaN\""], "y": null}"#;
        assert_eq!(quoted(text.as_bytes()).unwrap(), text.as_bytes());
        for bad in ["{\"a\": nan}", "[1Infinity]", "[NaNNaN]", "[--Infinity]", "\"NaN", "\\", "[NaN"] {
            assert!(parse(bad.as_bytes(), MAX_VALUES, "a.json").is_err(), "{bad}");
        }
    }
}
