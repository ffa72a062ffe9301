//! Texts of files.

use super::vector::text_with_room;
use crate::error::Result;

/// A file's text without what the editor put there that wrote it: a byte-order mark at the beginning, and the `\r` of lines that
/// end with `\r\n`.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub fn plain_text(text: String) -> Result<String> {
    let content = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if content.len() == text.len() && !content.contains("\r\n") {
        return Ok(text);
    }
    let mut plain = text_with_room(content.len())?;
    for (number, line) in content.split("\r\n").enumerate() {
        if number > 0 {
            plain.push('\n');
        }
        plain.push_str(line);
    }
    Ok(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::plain_text;

    #[test]
    fn what_an_editor_adds_is_left_out() {
        for (text, plain) in [
            ("", ""),
            ("a\nb", "a\nb"),
            ("\u{feff}a\r\nb\r\n", "a\nb\n"),
            ("\r\n\r\n", "\n\n"),
            // Neither at the end of a line nor at the beginning of the text.
            ("a\rb\n\r\u{feff}", "a\rb\n\r\u{feff}"),
        ] {
            assert_eq!(plain_text(text.into()).unwrap(), plain, "{text:?}");
        }
    }
}
