//! The bytes that each token adds to a text, in one table: a text is joined of them as it grows, token by token.
//!
//! What a decoder makes of a token depends on whether a token is before it (the space of a word that begins a text is left
//! out) or behind it, and on nothing else, except for those decoders that look at the whole text: they have no table.

use std::cell::Cell;

use tokenizers::{Decoder, DecoderWrapper};

use super::library::guarded;
use crate::error::{Error, Result};
use crate::memory::{no_room, reserve, with_room};

/// Largest table: bytes of all tokens. Decoders may make longer texts of tokens.
const MAX_BYTES: usize = 64 << 20;

/// Most bytes that the parts of a decoder make for it, one after the other. (Those of known decoders make some twelve million
/// of the largest vocabulary.)
const MAX_MADE: usize = 32 << 20;

/// The table.
#[derive(Debug)]
pub(crate) struct TokenPieces {
    bytes: Vec<u8>,
    /// By token.
    spans: Vec<Span>,
    /// Up to how many of which byte are left out at the beginning of a text.
    strip: Option<(u8, usize)>,
    /// The longest piece, in bytes.
    longest: usize,
}

/// Why there is no table.
enum NoTable {
    /// The decoder looks at the whole text, or makes too much of a token.
    WholeText,
    NoMemory(Error),
}

impl From<Error> for NoTable {
    fn from(error: Error) -> Self {
        Self::NoMemory(error)
    }
}

/// Where a token's bytes are in the table: inside a text, and at its beginning.
#[derive(Debug, Default, Clone, Copy)]
struct Span {
    inside: (u32, u32),
    first: (u32, u32),
    /// Whether a space follows if another token does.
    space: bool,
    /// Whether there is such a token.
    known: bool,
}

/// Where a text that is joined of pieces ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Joint {
    /// Whether a token came before.
    inside: bool,
    /// Whether a space comes before the next token.
    space: bool,
    /// How many bytes may still be left out.
    strip: usize,
}

/// A decoder, taken apart: what it does token by token, then with bytes, then with the joined text.
#[derive(Default)]
struct Chain<'a> {
    parts: Vec<&'a DecoderWrapper>,
    bytes: Bytes,
    strip: Option<(u8, usize)>,
    /// The bytes that the parts have made.
    made: Cell<usize>,
}

/// Which tokens stand for bytes.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    #[default]
    None,
    /// Those that are written `<0x0A>`.
    Fallback,
    /// All, in the characters of byte-level BPE.
    Level,
}

impl TokenPieces {
    /// The table of the tokens below `count`; `None` if the decoder looks at the whole text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer, count: usize) -> Result<Option<Self>> {
        match Self::of(tokenizer, count) {
            Ok(pieces) => Ok(Some(pieces)),
            Err(NoTable::WholeText) => Ok(None),
            Err(NoTable::NoMemory(error)) => Err(error),
        }
    }

    fn of(tokenizer: &tokenizers::Tokenizer, count: usize) -> Result<Self, NoTable> {
        let chain = match tokenizer.get_decoder() {
            Some(decoder) => Some(Chain::of(decoder).ok_or(NoTable::WholeText)?),
            None => None,
        };
        let strip = chain.as_ref().and_then(|chain| chain.strip);
        let mut pieces = Self { bytes: Vec::new(), spans: Vec::new(), strip, longest: 0 };
        reserve(&mut pieces.spans, count)?;
        let special = tokenizer.get_added_vocabulary();
        for id in 0..count as u32 {
            let span = match tokenizer.id_to_token(id) {
                None => Span::default(),
                Some(token) => match &chain {
                    Some(chain) => pieces.add(chain, &token, special.is_special_token(&token))?,
                    // Without a decoder, tokens are words.
                    None => Span {
                        inside: pieces.store(format!(" {token}").as_bytes())?,
                        first: pieces.store(token.as_bytes())?,
                        space: false,
                        known: true,
                    },
                },
            };
            pieces.spans.push(span);
        }
        Ok(pieces)
    }

    /// Adds what `chain` makes of a token.
    fn add(&mut self, chain: &Chain<'_>, token: &str, special: bool) -> Result<Span, NoTable> {
        if chain.parts.is_empty() {
            let bytes = chain.bytes_of(token.to_owned(), special);
            let inside = self.store(&bytes)?;
            return Ok(Span { inside, first: inside, space: false, known: true });
        }
        let made = |before, behind| {
            let piece = chain.run(before, token, behind).ok_or(NoTable::WholeText)?;
            Ok::<_, NoTable>(chain.bytes_of(piece, special))
        };
        let (inside, first) = (made(true, true)?, made(false, true)?);
        let (last, only) = (made(true, false)?, made(false, false)?);
        let followed = |piece: &[u8], end: &[u8]| piece.strip_suffix(b" ") == Some(end);
        let space = match (inside == last, first == only) {
            (true, true) => false,
            _ if followed(&inside, &last) && followed(&first, &only) => true,
            _ => return Err(NoTable::WholeText),
        };
        let inside = self.store(&last)?;
        let first = if last == only { inside } else { self.store(&only)? };
        Ok(Span { inside, first, space, known: true })
    }

    /// Appends bytes to the table, which must not get too large.
    fn store(&mut self, bytes: &[u8]) -> Result<(u32, u32), NoTable> {
        let (start, end) = (self.bytes.len(), self.bytes.len() + bytes.len());
        if end > MAX_BYTES {
            return Err(NoTable::WholeText);
        }
        // Not exactly: it grows token by token.
        self.bytes.try_reserve(bytes.len()).map_err(|_| NoTable::NoMemory(no_room(end)))?;
        self.bytes.extend_from_slice(bytes);
        // With a space behind it.
        self.longest = self.longest.max(bytes.len() + 1);
        Ok((start as u32, end as u32))
    }

    fn get(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Whether the tokenizer has this token.
    pub(super) fn knows(&self, token: u32) -> bool {
        self.spans.get(token as usize).is_some_and(|span| span.known)
    }

    /// The beginning of a text.
    pub(crate) fn begin(&self) -> Joint {
        Joint { strip: self.strip.map_or(0, |(_, count)| count), ..Joint::default() }
    }

    /// Most bytes that a token adds to a text.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `push` with the bytes that `token` adds at `joint`. (A token that the tokenizer does not have adds none.)
    pub(crate) fn append(&self, joint: &mut Joint, token: u32, mut push: impl FnMut(&[u8])) {
        let Some(span) = self.spans.get(token as usize).filter(|span| span.known) else { return };
        let mut bytes = self.get(if joint.inside { span.inside } else { span.first });
        if joint.space {
            push(b" ");
        }
        if let Some((left_out, _)) = self.strip {
            while let (1.., Some((&byte, rest))) = (joint.strip, bytes.split_first()) {
                joint.strip = if byte == left_out { joint.strip - 1 } else { 0 };
                bytes = if byte == left_out { rest } else { bytes };
            }
        }
        push(bytes);
        (joint.inside, joint.space) = (true, span.space);
    }

    /// Calls `push` with a text of other origin, which is added at `joint`.
    pub(super) fn append_text(&self, joint: &mut Joint, text: &str, mut push: impl FnMut(&[u8])) {
        if joint.space {
            push(b" ");
        }
        push(text.as_bytes());
        *joint = Joint { inside: true, ..Joint::default() };
    }

    /// The bytes of a token inside a text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn token_bytes(&self, token: u32) -> Result<Vec<u8>> {
        let span = self.spans.get(token as usize).copied().unwrap_or_default();
        let inside = self.get(span.inside);
        let mut bytes = with_room(inside.len() + 1)?;
        bytes.extend_from_slice(inside);
        bytes.extend(span.space.then_some(b' '));
        Ok(bytes)
    }
}

impl<'a> Chain<'a> {
    /// Takes a decoder apart; `None` if it looks at the whole text.
    fn of(decoder: &'a DecoderWrapper) -> Option<Self> {
        let mut all = Vec::new();
        flatten(decoder, &mut all);
        let mut chain = Self::default();
        let mut fused = false;
        for part in all {
            match part {
                DecoderWrapper::Fuse(_) => fused = true,
                DecoderWrapper::Strip(strip) if fused => {
                    let byte = u8::try_from(strip.content).ok().filter(u8::is_ascii)?;
                    if strip.stop != 0 || chain.strip.replace((byte, strip.start)).is_some() {
                        return None;
                    }
                }
                _ if fused || chain.bytes == Bytes::Fallback => return None,
                DecoderWrapper::ByteFallback(_) => chain.bytes = Bytes::Fallback,
                DecoderWrapper::ByteLevel(_) => (chain.bytes, fused) = (Bytes::Level, true),
                DecoderWrapper::BPE(_)
                | DecoderWrapper::Metaspace(_)
                | DecoderWrapper::Replace(_)
                | DecoderWrapper::Strip(_)
                | DecoderWrapper::WordPiece(_) => chain.parts.push(part),
                _ => return None,
            }
        }
        Some(chain)
    }

    /// What the parts make of a token with one before it or not, and one behind it or not; `None` if that is more or less than a
    /// text, or too much in all.
    fn run(&self, before: bool, token: &str, behind: bool) -> Option<String> {
        let other = || Some("x".to_owned());
        let mut tokens: Vec<String> = before.then(other).flatten().into_iter().collect();
        tokens.push(token.to_owned());
        tokens.extend(behind.then(other).flatten());
        let count = tokens.len();
        for part in &self.parts {
            tokens = guarded(|| part.decode_chain(tokens)).ok().filter(|made| made.len() == count)?;
            self.made.set(self.made.get() + tokens.iter().map(String::len).sum::<usize>());
            if self.made.get() > MAX_MADE {
                return None;
            }
        }
        tokens.into_iter().nth(usize::from(before))
    }

    /// The bytes that a token stands for, whose text is `piece` by now.
    fn bytes_of(&self, piece: String, special: bool) -> Vec<u8> {
        let bytes = match self.bytes {
            Bytes::Level if !special => byte_level(&piece),
            Bytes::Fallback => {
                let hex = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                let hex = hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                hex.map(|byte| vec![byte])
            }
            _ => None,
        };
        bytes.unwrap_or_else(|| piece.into_bytes())
    }
}

/// The bytes of a byte-level BPE token; `None` if it is not one. In its text a byte that is a printable Latin-1 character
/// is that character, and the other bytes, in order, are the characters from U+0100 on: GPT-2's `bytes_to_unicode`.
fn byte_level(piece: &str) -> Option<Vec<u8>> {
    let as_is = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    piece
        .chars()
        .map(|c| match u8::try_from(c) {
            Ok(byte) => Some(byte).filter(as_is),
            Err(_) => (0..=u8::MAX).filter(|b| !as_is(b)).nth((c as usize).checked_sub(0x100)?),
        })
        .collect()
}

/// The parts of a decoder, one after the other.
fn flatten<'a>(decoder: &'a DecoderWrapper, all: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().for_each(|part| flatten(part, all)),
        part => all.push(part),
    }
}

/// Appends `bytes` to `text` as characters, U+FFFD where they are not UTF-8, and returns how many were taken: all of them,
/// unless the last ones may be the beginning of a character and the text is not `complete`.
pub(crate) fn push_characters(bytes: &[u8], complete: bool, text: &mut String) -> usize {
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        let (valid, invalid) = (chunk.valid(), chunk.invalid());
        text.push_str(valid);
        taken += valid.len();
        let cut_short = |bytes| std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none());
        if invalid.is_empty() || (!complete && cut_short(invalid)) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        taken += invalid.len();
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoder_that_makes_too_much_of_all_tokens_has_no_table() {
        let replace =
            |to: &str| format!(r#"{{"type": "Replace", "pattern": {{"String": "a"}}, "content": "{to}"}}"#);
        let table = |to: &str, count: usize| {
            let token = |n: usize| format!(r#""{}{n:08}": {n}"#, "a".repeat(504));
            let vocab: Vec<String> = (0..count).map(token).collect();
            let json = format!(
                r#"{{"decoder": {{"type": "Sequence", "decoders": [{}, {}]}},
                    "model": {{"type": "BPE", "vocab": {{{}}}, "merges": []}}}}"#,
                replace(to),
                replace("a"),
                vocab.join(", ")
            );
            let tokenizer = super::super::parse_tokenizer(&json).unwrap();
            TokenPieces::new(&tokenizer, count).unwrap()
        };
        assert!(table("a", 2000).is_some());
        assert!(table("aaaaaaaaaaaaaaaa", 100).is_some());
        assert!(table("aaaaaaaaaaaaaaaa", 2000).is_none());
    }
}
