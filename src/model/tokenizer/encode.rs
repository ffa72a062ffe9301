//! Text to tokens: whether a text may name special tokens, and whether it goes on from another.

use std::sync::OnceLock;

use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{
    AddedVocabulary, Encoding, Model as _, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
};

use super::file::Parsed;
use super::library::{failed, guarded};
use crate::error::{Error, Result};
use crate::memory::{collected, extend, push, room_for_library, with_room};

/// How the mask token is written, whatever the tokenizer calls it.
pub const MASK: &str = "[MASK]";

/// Bytes of memory that the library takes for a byte of a text that is normalized and cut into words, about.
const PER_BYTE: usize = 150;
/// Bytes of a text that are normalized at a time where it is not clear whether there is memory for all.
const SLICE: usize = 16 << 10;

/// Tokens, and where they are in their text, in bytes.
type Spans = (Vec<u32>, Vec<(usize, usize)>);

/// How a text becomes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Whether special tokens that are written out in the text, such as `<|endoftext|>`, are these tokens, and [`MASK`] is
    /// the mask token. Otherwise (the default) they are characters as all others, as text of users should be. (It is
    /// llama.cpp's `parse_special`.)
    pub parse_special: bool,
    /// Whether the text goes on from another. Tokenizers that put a space before a text (a dummy prefix) then put none.
    pub continues: bool,
}

/// The tokenizer of a file, and the parts that differ with other settings. The vocabulary is there once.
#[derive(Debug)]
pub(super) struct Encoder {
    inner: tokenizers::Tokenizer,
    /// How many bytes normalizer and pre-tokenizer make of a byte at most.
    growth: usize,
    /// Its added tokens, of which the special ones are characters. Made on first use.
    plain: OnceLock<AddedVocabulary>,
    /// What puts no space before a text, if the file's own does.
    continuing: Option<Preparation>,
    mask: u32,
    /// The token that begins a text.
    bos: Option<u32>,
    /// The tokens that end one.
    ends: Vec<u32>,
    /// The token that stands for what is unknown to the tokenizer.
    unknown: Option<u32>,
}

impl Encoder {
    pub(super) fn new(parsed: Parsed, mask: u32, bos: Option<u32>, ends: Vec<u32>) -> Self {
        let Parsed { tokenizer: inner, growth, .. } = parsed;
        let (unknown, continuing) = (unknown(&inner), Preparation::without_prefix(&inner));
        Self { inner, growth, plain: OnceLock::new(), continuing, mask, bos, ends, unknown }
    }

    /// The file's own.
    pub(super) fn tokenizer(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Whether the token begins texts.
    pub(super) fn begins_text(&self, token: u32) -> bool {
        self.bos == Some(token)
    }

    /// Whether the token ends a text.
    pub(super) fn ends_text(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens of `text`; none is added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot encode the text, also if it knows one of its words as a special token
    /// only.
    pub(super) fn encode(&self, text: &str, options: &TokenizeOptions) -> Result<Vec<u32>> {
        let &TokenizeOptions { parse_special, continues } = options;
        if parse_special {
            return self.encode_special(text, continues);
        }
        // Nearly all texts name no special token.
        let (tokens, _) = self.ids(text, true, continues)?;
        if !tokens.iter().any(|&token| self.is_named(token)) {
            return Ok(tokens);
        }
        let reserved = |token: u32| self.is_named(token) && Some(token) != self.unknown;
        self.without(reserved, text, false, continues)
    }

    /// The tokens of a corpus: special tokens that are written out in it, which divide its documents, are these tokens. No text
    /// has a mask: its name is characters.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub(super) fn encode_corpus(&self, text: &str) -> Result<Vec<u32>> {
        self.without(|token| token == self.mask, text, true, false)
    }

    /// The tokens of a text, without those that are `reserved`: their names are characters.
    fn without(
        &self,
        reserved: impl Fn(u32) -> bool,
        text: &str,
        special: bool,
        continues: bool,
    ) -> Result<Vec<u32>> {
        let (tokens, spans) = self.ids(text, special, continues)?;
        if !tokens.iter().any(|&token| reserved(token)) {
            return Ok(tokens);
        }
        // They are cut in two, as a tokenizer of whole words has its special tokens among them.
        let named = tokens.iter().zip(&spans).filter(|(token, _)| reserved(**token));
        let mut rest = text;
        let mut all = Vec::new();
        for (_, &(start, end)) in named {
            let done = text.len() - rest.len();
            let Some((before, after)) =
                cut(text, start, end).and_then(|at| rest.split_at_checked(at.checked_sub(done)?))
            else {
                return Err(special_only(text.get(start..end).unwrap_or_default()));
            };
            extend(&mut all, &self.ids(before, special, continues || done > 0)?.0)?;
            rest = after;
        }
        extend(&mut all, &self.ids(rest, special, true)?.0)?;
        match all.iter().find(|token| reserved(**token)).and_then(|&token| self.inner.id_to_token(token)) {
            Some(name) => Err(special_only(&name)),
            None => Ok(all),
        }
    }

    /// The tokens of a text that may name special tokens.
    fn encode_special(&self, text: &str, continues: bool) -> Result<Vec<u32>> {
        // Another token may have this name, or the mask may be an ordinary one, which the tokenizer would take for a word.
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        if added.get(&self.mask).is_some_and(|token| token.content == MASK) {
            return Ok(self.ids(text, true, continues)?.0);
        }
        let mut all = Vec::new();
        for (number, part) in text.split(MASK).enumerate() {
            if number > 0 {
                push(&mut all, self.mask)?;
            }
            if !part.is_empty() {
                extend(&mut all, &self.ids(part, true, continues || number > 0)?.0)?;
            }
        }
        Ok(all)
    }

    /// The tokens of a text, and where they are in it, in bytes.
    fn ids(&self, text: &str, special: bool, continues: bool) -> Result<Spans> {
        self.look_for_room(text)?;
        let encoding = guarded(|| self.encoding(text, special, continues));
        let encoding = encoding.map_err(|e| failed("cannot encode this text", e))?;
        let ids = collected(encoding.get_ids().iter().copied())?;
        Ok((ids, collected(encoding.get_offsets().iter().copied())?))
    }

    /// What the tokenizer's own `encode` does, with these settings.
    fn encoding(&self, text: &str, special: bool, continues: bool) -> tokenizers::Result<Encoding> {
        let inner = &self.inner;
        let added = match special {
            true => inner.get_added_vocabulary(),
            false => self.plain.get_or_init(|| {
                let mut plain = inner.get_added_vocabulary().clone();
                plain.set_encode_special_tokens(true);
                plain
            }),
        };
        let mut parts = self.words(added, text, continues)?;
        parts.tokenize(|part| inner.get_model().tokenize(part.get()))?;
        inner.post_process(parts.into_encoding(None, 0, OffsetType::Byte)?, None, false)
    }

    /// What is done with a text.
    fn preparation(&self, continues: bool) -> (Option<&NormalizerWrapper>, Option<&PreTokenizerWrapper>) {
        match self.continuing.as_ref().filter(|_| continues) {
            Some(own) => (own.normalizer.as_ref(), own.pre_tokenizer.as_ref()),
            None => (self.inner.get_normalizer(), self.inner.get_pre_tokenizer()),
        }
    }

    /// A text, normalized and cut into words.
    fn words(
        &self,
        added: &AddedVocabulary,
        text: &str,
        continues: bool,
    ) -> tokenizers::Result<PreTokenizedString> {
        let (normalizer, pre_tokenizer) = self.preparation(continues);
        let mut parts = added.extract_and_normalize(normalizer, text);
        if let Some(pre_tokenizer) = pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        Ok(parts)
    }

    /// Looks for memory for what the library makes of a text.
    fn look_for_room(&self, text: &str) -> Result<()> {
        // Hardly a text grows as much as one may.
        match Self::room_for(text.len().saturating_mul(self.growth)) {
            Ok(()) => Ok(()),
            Err(_) => Self::room_for(self.grown(text)?),
        }
    }

    fn room_for(normalized: usize) -> Result<()> {
        room_for_library(normalized.saturating_mul(PER_BYTE))
    }

    /// How many bytes a text has when it is normalized and cut into words.
    fn grown(&self, text: &str) -> Result<usize> {
        let (mut rest, mut grown) = (text, 0);
        while !rest.is_empty() {
            let (slice, behind) = rest.split_at(rest.floor_char_boundary(SLICE));
            Self::room_for(slice.len().saturating_mul(self.growth))?;
            let words = guarded(|| self.words(self.inner.get_added_vocabulary(), slice, false));
            let words = words.map_err(|e| failed("cannot encode this text", e))?;
            let all = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
            grown += all.iter().map(|(word, ..)| word.len()).sum::<usize>();
            rest = behind;
        }
        Ok(grown)
    }

    /// Where a text names such tokens as the library finds them in it, also where they have another form in the text than in
    /// their names: in order, in bytes, without the blanks that they take along.
    pub(super) fn named_places(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        let mut places = Vec::new();
        self.look_for_room(text)?;
        // As the beginning of a text, and as going on from another.
        for continues in [false, true].into_iter().take(1 + usize::from(self.continuing.is_some())) {
            let added = self.inner.get_added_vocabulary();
            let found = guarded(|| Ok(added.extract_and_normalize(self.preparation(continues).0, text)));
            let found = found.map_err(|e| failed("cannot encode this text", e))?;
            for (_, (start, end), tokens) in found.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                if !tokens.iter().flatten().any(|token| self.is_named(token.id)) {
                    continue;
                }
                let name = text.get(start..end).unwrap_or_default();
                let start = start + name.len() - name.trim_start().len();
                push(&mut places, (start, start + name.trim().len()))?;
            }
        }
        places.sort_unstable();
        Ok(places)
    }

    /// Whether a token is written by its name only: those that the file calls special, and the mask and the tokens that
    /// begin and end texts if they are no ordinary tokens of the vocabulary.
    pub(super) fn is_named(&self, token: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        let role = (self.begins_text(token) || self.ends_text(token))
            && added.get_added_tokens_decoder().contains_key(&token);
        token == self.mask
            || role
            || added.simple_id_to_token(token).is_some_and(|name| added.is_special_token(&name))
    }

    /// The names of those, and [`MASK`].
    pub(super) fn special_names(&self) -> Result<Vec<&str>> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut names = with_room(added.len() + 1)?;
        let named = added.iter().filter(|&(&token, _)| self.is_named(token));
        names.extend(named.map(|(_, token)| token.content.as_str()).filter(|name| !name.is_empty()));
        names.push(MASK);
        names.sort_unstable();
        names.dedup_by(|name, before| name.starts_with(*before));
        Ok(names)
    }
}

fn unknown(tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    use tokenizers::ModelWrapper::{BPE, Unigram, WordLevel, WordPiece};
    let name = match tokenizer.get_model() {
        BPE(model) => model.unk_token.as_ref()?,
        WordPiece(model) => &model.unk_token,
        WordLevel(model) => &model.unk_token,
        Unigram(_) => return None,
    };
    tokenizer.token_to_id(name)
}

/// Where to cut the name at `start..end`, which may have blanks around it: behind its first character.
fn cut(text: &str, start: usize, end: usize) -> Option<usize> {
    let name = text.get(start..end)?;
    let blanks = name.len() - name.trim_start().len();
    let mut characters = name.trim().chars();
    let first = characters.next()?;
    characters.next()?;
    Some(start + blanks + first.len_utf8())
}

fn special_only(name: &str) -> Error {
    Error::tokenizer(format!("the tokenizer knows '{}' as a special token only", name.trim()))
}

/// What a text goes through before its parts become tokens.
#[derive(Debug)]
struct Preparation {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
}

impl Preparation {
    /// The tokenizer's, but without the space that it puts before a text; nothing if it puts none.
    fn without_prefix(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let mut normalizer = tokenizer.get_normalizer().cloned();
        let mut pre_tokenizer = tokenizer.get_pre_tokenizer().cloned();
        let normalized = normalizer.as_mut().is_some_and(clear_normalizer);
        let separated = pre_tokenizer.as_mut().is_some_and(clear_pre_tokenizer);
        (normalized || separated).then_some(Self { normalizer, pre_tokenizer })
    }
}

/// Has a normalizer put no space before a text. Returns whether it did.
fn clear_normalizer(part: &mut NormalizerWrapper) -> bool {
    match part {
        NormalizerWrapper::Sequence(parts) => {
            parts.as_mut().iter_mut().fold(false, |any, part| clear_normalizer(part) | any)
        }
        NormalizerWrapper::Prepend(part) => !std::mem::take(&mut part.prepend).is_empty(),
        _ => false,
    }
}

/// The same for what cuts a text into words.
fn clear_pre_tokenizer(part: &mut PreTokenizerWrapper) -> bool {
    match part {
        PreTokenizerWrapper::Sequence(parts) => {
            parts.as_mut().iter_mut().fold(false, |any, part| clear_pre_tokenizer(part) | any)
        }
        PreTokenizerWrapper::ByteLevel(part) => std::mem::take(&mut part.add_prefix_space),
        PreTokenizerWrapper::Metaspace(part) => {
            let scheme = part.prepend_scheme;
            part.set_prepend_scheme(PrependScheme::Never);
            scheme != PrependScheme::Never
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_there_is_no_memory_for_is_an_error() {
        let encoder = |growth| {
            let json = r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
            let parsed = super::super::file::parse(json).unwrap();
            Encoder::new(Parsed { growth, ..parsed }, 1, None, Vec::new())
        };
        let encode = |growth, text: &str| encoder(growth).encode(text, &TokenizeOptions::default());
        assert_eq!(encode(48, "aa").unwrap(), [0, 0]);
        assert!(matches!(encode(1 << 50, "aa"), Err(Error::OutOfMemory(_))));
        // What counts is how long it gets, slice by slice.
        let long = "a\u{e9}".repeat(SLICE);
        assert_eq!(encoder(48).grown(&long).unwrap(), long.len());
    }
}
