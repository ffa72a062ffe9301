//! Special tokens' names in what messages say: marks keep them characters, whatever the template writes beside them.

use crate::error::{Error, Result};
use crate::memory::{append, push};
use crate::model::{TokenizeOptions, Tokenizer};

/// Stands in a text where the name of a special token is cut in two. (A noncharacter: no text has it.)
const CUT: char = '\u{fdd0}';
/// Stands for a whole text.
pub(super) const PLACE: &str = "\u{fdd1}";
/// Stands before a character that is no part of a special token's name, whatever is beside it. (Behind it stands [`CUT`].)
const ALONE: char = '\u{fdd2}';
/// Bytes of names that are looked for at the end of a text, and of longer ones their beginning.
const LONGEST: usize = 256;
/// How often a text is searched for names: without those that are found, others may be.
const SEARCHES: usize = 4;

/// Marks the names of a tokenizer's special tokens in texts.
pub(super) struct Marker<'a> {
    tokenizer: &'a Tokenizer,
    names: Vec<&'a str>,
}

impl<'a> Marker<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Result<Self> {
        Ok(Self { tokenizer, names: tokenizer.special_names()? })
    }

    /// A text with marks in what names special tokens, as it is or as the tokenizer normalizes it, and behind what begins a name that
    /// another text could end.
    pub(super) fn marked(&self, text: &str) -> Result<String> {
        let mut made = cut_names(&self.names, text)?;
        if ends_with_a_beginning(&self.names, &made) {
            append(&mut made, CUT)?;
        }
        for _ in 0..SEARCHES {
            match with_names_alone(self.tokenizer, &made)? {
                Some(marked) => made = marked,
                None => return Ok(made),
            }
        }
        Err(Error::tokenizer("a message names special tokens in a way that cannot be told from other text"))
    }
}

/// The text with each character alone of what the tokenizer takes for a special token's name; `None` if there is no such name.
fn with_names_alone(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>> {
    let (mut made, mut any) = (String::new(), false);
    for (piece, is_alone, mark) in pieces(text) {
        let places = if is_alone { Vec::new() } else { tokenizer.named_places(piece)? };
        any |= !places.is_empty();
        let mut places = places.iter().peekable();
        for (index, c) in piece.char_indices() {
            while places.next_if(|&&(_, end)| end <= index).is_some() {}
            match places.peek() {
                Some(&&(start, _)) if start <= index => append(&mut made, format_args!("{ALONE}{c}{CUT}"))?,
                _ => append(&mut made, c)?,
            }
        }
        append(&mut made, mark)?;
    }
    Ok(any.then_some(made))
}

/// The pieces of a text between marks, whether each is a character that stands alone, and the mark behind it.
fn pieces(text: &str) -> impl Iterator<Item = (&str, bool, &str)> {
    let mut before = "";
    text.split_inclusive([CUT, ALONE]).map(move |piece| {
        let (own, mark) = piece.split_at(piece.trim_end_matches([CUT, ALONE]).len());
        let is_alone = before.starts_with(ALONE) && mark.starts_with(CUT) && own.chars().nth(1).is_none();
        before = mark;
        (own, is_alone, mark)
    })
}

/// The text with names cut in two. They are in order, and none begins with another: so only the last one before a text can begin
/// it.
fn cut_names(names: &[&str], content: &str) -> Result<String> {
    // Nothing of a message may pass for the marks.
    let is_mark = |c: char| c == CUT || c == ALONE || PLACE.starts_with(c);
    let mut without_marks = String::new();
    let content = match content.contains(is_mark) {
        true => {
            for c in content.chars() {
                append(&mut without_marks, if is_mark(c) { char::REPLACEMENT_CHARACTER } else { c })?;
            }
            without_marks.as_str()
        }
        false => content,
    };
    let mut made = String::new();
    for (index, c) in content.char_indices() {
        append(&mut made, c)?;
        let rest = content.get(index..).unwrap_or_default();
        let before = names.partition_point(|name| *name <= rest).checked_sub(1);
        if before.and_then(|at| names.get(at)).is_some_and(|name| rest.starts_with(name)) {
            append(&mut made, CUT)?;
        }
    }
    Ok(made)
}

/// Whether a text ends as one of the names begins, which are in order. Not with a letter, digit or blank alone: a mark there would make
/// another word of what templates compare or trim.
fn ends_with_a_beginning(names: &[&str], text: &str) -> bool {
    let begins = |end: &str| {
        if end.starts_with(|c: char| c.is_alphanumeric() || c.is_whitespace()) {
            return false;
        }
        let after = names.partition_point(|name| *name <= end);
        names.get(after).is_some_and(|name| name.starts_with(end))
    };
    let ends = text.char_indices().rev().map(|(index, _)| text.get(index..).unwrap_or_default());
    ends.take_while(|end| end.len() < LONGEST).any(begins)
}

/// The tokens of a text with marks.
pub(super) fn encode_marked(tokenizer: &Tokenizer, text: &str, mut continues: bool) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for (piece, is_alone, _) in pieces(text).filter(|(piece, ..)| !piece.is_empty()) {
        let options = TokenizeOptions { parse_special: !is_alone, continues };
        for token in tokenizer.encode_with(piece, &options)? {
            push(&mut all, token)?;
        }
        continues = true;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_content_are_cut_in_two() {
        let names = ["<a", "<|end|>", "[MASK]"];
        let guarded = |content: &str| cut_names(&names, content).unwrap();
        assert_eq!(guarded("<|end|><ab [MASK"), "<\u{fdd0}|end|><\u{fdd0}ab [MASK");
        assert_eq!(guarded("\u{fdd0}<<a\u{fdd1}"), "\u{fffd}<<\u{fdd0}a\u{fffd}");
        assert_eq!(cut_names(&[], "<a").unwrap(), "<a");
        // Also one that the replaced marks make.
        assert_eq!(cut_names(&["<\u{fffd}>"], "<\u{fdd0}>").unwrap(), "<\u{fdd0}\u{fffd}>");
    }

    #[test]
    fn what_begins_a_name_at_the_end_of_a_text_is_found() {
        let names = ["\nend", "<a", "<|end|>", "[MASK]", "sop"];
        for (text, begins) in [
            ("", false),
            ("a", false),
            ("x<", true),
            ("<|en", true),
            ("<|end|>", false),
            ("é[", true),
            ("[M ", false),
        ] {
            assert_eq!(ends_with_a_beginning(&names, text), begins, "{text}");
        }
        assert!(!ends_with_a_beginning(&[], "<"));
    }

    #[test]
    fn many_names_are_looked_for_in_little_time() {
        let mut names: Vec<String> = (0..200_000).map(|n| format!("{}{n:06}", "a".repeat(100))).collect();
        names.sort_unstable();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let started = std::time::Instant::now();
        assert_eq!(cut_names(&names, &"a".repeat(1 << 18)).unwrap().len(), 1 << 18);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
