//! Texts made of texts.

use super::budget::{Budget, Outcome};
use crate::memory::{append, text_with_room};

/// The longest word that is searched for Greek's sigma at its end, in bytes.
const LONGEST_WORD: usize = 4096;

/// The parts, one after the other.
pub(super) fn concatenated(parts: &[&str]) -> Outcome<String> {
    let mut made = text_with_room(parts.iter().map(|part| part.len()).sum())?;
    for part in parts {
        append(&mut made, part)?;
    }
    Ok(made)
}

/// `text`, so many times.
pub(super) fn repeated(text: &str, count: usize) -> Outcome<String> {
    let mut made = text_with_room(text.len().saturating_mul(count))?;
    // Nothing may be repeated many times.
    for _ in 0..if text.is_empty() { 0 } else { count } {
        append(&mut made, text)?;
    }
    Ok(made)
}

fn of_characters(characters: impl Iterator<Item = char>, len: usize) -> Outcome<String> {
    let mut made = text_with_room(len)?;
    for c in characters {
        append(&mut made, c)?;
    }
    Ok(made)
}

pub(super) fn reversed(text: &str) -> Outcome<String> {
    of_characters(text.chars().rev(), text.len())
}

pub(super) fn upper(text: &str) -> Outcome<String> {
    of_characters(text.chars().flat_map(char::to_uppercase), text.len())
}

pub(super) fn lower(text: &str) -> Outcome<String> {
    let mut made = text_with_room(text.len())?;
    append_lower(&mut made, text)?;
    Ok(made)
}

fn append_lower(made: &mut String, text: &str) -> Outcome<()> {
    for word in text.split_inclusive(char::is_whitespace) {
        // Where a word ends, sigma has another form.
        if word.len() <= LONGEST_WORD && word.contains('Σ') {
            append(made, word.to_lowercase())?;
            continue;
        }
        for c in word.chars().flat_map(char::to_lowercase) {
            append(made, c)?;
        }
    }
    Ok(())
}

/// The first character in upper case and the others in lower case.
pub(super) fn capitalized(text: &str) -> Outcome<String> {
    let mut made = text_with_room(text.len())?;
    append_capitalized(&mut made, text)?;
    Ok(made)
}

fn append_capitalized(made: &mut String, text: &str) -> Outcome<()> {
    let mut characters = text.chars();
    for c in characters.next().into_iter().flat_map(char::to_uppercase) {
        append(made, c)?;
    }
    append_lower(made, characters.as_str())
}

/// Each word capitalized.
pub(super) fn titled(text: &str) -> Outcome<String> {
    let mut made = text_with_room(text.len())?;
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric() && c != '\'') {
        append_capitalized(&mut made, word)?;
    }
    Ok(made)
}

pub(super) fn escaped(text: &str) -> Outcome<String> {
    let mut made = text_with_room(text.len())?;
    for part in text.split_inclusive(['&', '<', '>', '"', '\'']) {
        let mut before = part.chars();
        let name = match before.next_back() {
            Some('&') => "&amp;",
            Some('<') => "&lt;",
            Some('>') => "&gt;",
            Some('"') => "&#34;",
            Some('\'') => "&#39;",
            _ => {
                append(&mut made, part)?;
                continue;
            }
        };
        append(&mut made, before.as_str())?;
        append(&mut made, name)?;
    }
    Ok(made)
}

/// A text with `from` replaced by `to`.
pub(super) fn replaced(text: &str, from: &str, to: &str, budget: &Budget) -> Outcome<String> {
    budget.search(text.len(), from.len())?;
    budget.product(text.matches(from).count(), to.len())?;
    let (mut made, mut behind) = (text_with_room(text.len())?, 0);
    for (at, found) in text.match_indices(from) {
        append(&mut made, text.get(behind..at).unwrap_or_default())?;
        append(&mut made, to)?;
        behind = at + found.len();
    }
    append(&mut made, text.get(behind..).unwrap_or_default())?;
    Ok(made)
}

/// A text whose lines begin with so many blanks, but for empty ones, and the first unless that is asked for.
pub(super) fn indented(text: &str, blanks: usize, first: bool, budget: &Budget) -> Outcome<String> {
    budget.product(text.lines().count() + 1, blanks)?;
    let (indent, mut made) = (repeated(" ", blanks)?, text_with_room(text.len())?);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if if index == 0 { first } else { line != "\n" } {
            append(&mut made, &indent)?;
        }
        append(&mut made, line)?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_standard_library() {
        for text in ["", "abc", "ΑΣ ΑΣΑ Σ.", "İstanbul straße ﬁ", "a\u{301}Σ b"] {
            assert_eq!(upper(text).unwrap(), text.to_uppercase());
            assert_eq!(lower(text).unwrap(), text.to_lowercase());
            assert_eq!(repeated(text, 3).unwrap(), text.repeat(3));
            for (from, to) in [("", "-"), ("a", ""), ("Σ", "s"), ("bc", "bcbc")] {
                assert_eq!(replaced(text, from, to, &Budget::new(0, 0)).unwrap(), text.replace(from, to));
            }
        }
        assert_eq!(titled("one TWO's o\u{301}").unwrap(), "One Two's O\u{301}");
        assert_eq!(
            escaped("<a href='b'>&\"c\"</a>").unwrap(),
            "&lt;a href=&#39;b&#39;&gt;&amp;&#34;c&#34;&lt;/a&gt;"
        );
        assert_eq!(indented("a\n\nb\n", 2, false, &Budget::new(0, 0)).unwrap(), "a\n\n  b\n");
    }
}
