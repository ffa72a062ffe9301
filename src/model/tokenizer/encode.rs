//! Text to tokens: whether a text may name special tokens, and whether it goes on from another.

use std::sync::OnceLock;

use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::library::{failed, guarded};
use crate::error::{Error, Result};
use crate::memory::collected;

/// How the mask token is written, whatever the tokenizer calls it.
pub const MASK: &str = "[MASK]";

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

impl TokenizeOptions {
    /// For a corpus: special tokens that are written out in it, which divide its documents, are these tokens.
    pub const CORPUS: Self = Self { parse_special: true, continues: false };
}

/// The tokenizer of a file, and the same with other settings, each made on first use.
#[derive(Debug)]
pub(super) struct Encoder {
    inner: tokenizers::Tokenizer,
    /// Special tokens are characters.
    plain: OnceLock<tokenizers::Tokenizer>,
    /// Puts no space before a text.
    continuing: OnceLock<tokenizers::Tokenizer>,
    /// Both.
    plain_continuing: OnceLock<tokenizers::Tokenizer>,
    mask: u32,
    /// The tokens that begin and end a text.
    ends: [Option<u32>; 2],
    /// The token that stands for what is unknown to the tokenizer.
    unknown: Option<u32>,
}

impl Encoder {
    pub(super) fn new(inner: tokenizers::Tokenizer, mask: u32, ends: [Option<u32>; 2]) -> Self {
        let unknown = unknown(&inner);
        let (plain, continuing, plain_continuing) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { inner, plain, continuing, plain_continuing, mask, ends, unknown }
    }

    /// The file's own.
    pub(super) fn tokenizer(&self) -> &tokenizers::Tokenizer {
        &self.inner
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
        // Nearly all texts name no special token, and the second tokenizer is never made.
        let (tokens, _) = self.ids(text, true, continues)?;
        if !tokens.iter().any(|&token| self.is_named(token)) {
            return Ok(tokens);
        }
        let (tokens, spans) = self.ids(text, false, continues)?;
        let reserved = |&token: &u32| self.is_named(token) && Some(token) != self.unknown;
        if !tokens.iter().any(reserved) {
            return Ok(tokens);
        }
        // A tokenizer of whole words has its special tokens among them: they are cut in two.
        let named = tokens.iter().zip(&spans).filter(|(token, _)| reserved(token));
        let mut rest = text;
        let mut all = Vec::new();
        for (_, &(start, end)) in named {
            let done = text.len() - rest.len();
            let Some((before, after)) =
                cut(text, start, end).and_then(|at| rest.split_at_checked(at.checked_sub(done)?))
            else {
                return Err(special_only(text.get(start..end).unwrap_or_default()));
            };
            all.extend(self.ids(before, false, continues || done > 0)?.0);
            rest = after;
        }
        all.extend(self.ids(rest, false, true)?.0);
        match all.iter().find(|token| reserved(token)).and_then(|&token| self.inner.id_to_token(token)) {
            Some(name) => Err(special_only(&name)),
            None => Ok(all),
        }
    }

    /// The tokens of a text that may name special tokens.
    fn encode_special(&self, text: &str, continues: bool) -> Result<Vec<u32>> {
        if self.inner.token_to_id(MASK).is_some() {
            return Ok(self.ids(text, true, continues)?.0);
        }
        let mut all = Vec::new();
        for (number, part) in text.split(MASK).enumerate() {
            all.extend((number > 0).then_some(self.mask));
            if !part.is_empty() {
                all.extend(self.ids(part, true, continues || number > 0)?.0);
            }
        }
        Ok(all)
    }

    /// The tokens of a text, and where they are in it, in bytes.
    fn ids(&self, text: &str, special: bool, continues: bool) -> Result<Spans> {
        let encoder = self.encoder(special, continues);
        let encoding =
            guarded(|| encoder.encode(text, false)).map_err(|e| failed("cannot encode this text", e))?;
        let ids = collected(encoding.get_ids().iter().copied())?;
        Ok((ids, collected(encoding.get_offsets().iter().copied())?))
    }

    fn encoder(&self, special: bool, continues: bool) -> &tokenizers::Tokenizer {
        let place = match (special, continues && adds_prefix(&self.inner)) {
            (true, false) => return &self.inner,
            (true, true) => &self.continuing,
            (false, false) => &self.plain,
            (false, true) => &self.plain_continuing,
        };
        place.get_or_init(|| {
            let mut made = self.inner.clone();
            made.set_encode_special_tokens(!special);
            if continues {
                without_prefix(&mut made);
            }
            made
        })
    }

    /// Whether a token is written by its name only: those that the file calls special, and the mask and the tokens that
    /// begin and end texts if they are no ordinary tokens of the vocabulary.
    fn is_named(&self, token: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        let role = self.ends.contains(&Some(token)) && added.get_added_tokens_decoder().contains_key(&token);
        token == self.mask
            || role
            || added.simple_id_to_token(token).is_some_and(|name| added.is_special_token(&name))
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

/// Whether a tokenizer puts a space before a text that has none.
fn adds_prefix(tokenizer: &tokenizers::Tokenizer) -> bool {
    fn normalizer(part: &NormalizerWrapper) -> bool {
        match part {
            NormalizerWrapper::Sequence(parts) => parts.as_ref().iter().any(normalizer),
            NormalizerWrapper::Prepend(_) => true,
            _ => false,
        }
    }
    fn pre_tokenizer(part: &PreTokenizerWrapper) -> bool {
        match part {
            PreTokenizerWrapper::Sequence(parts) => parts.as_ref().iter().any(pre_tokenizer),
            PreTokenizerWrapper::ByteLevel(part) => part.add_prefix_space,
            PreTokenizerWrapper::Metaspace(part) => part.prepend_scheme != PrependScheme::Never,
            _ => false,
        }
    }
    tokenizer.get_normalizer().is_some_and(normalizer)
        || tokenizer.get_pre_tokenizer().is_some_and(pre_tokenizer)
}

/// Has a tokenizer put no space before a text.
fn without_prefix(tokenizer: &mut tokenizers::Tokenizer) {
    fn normalizer(part: &mut NormalizerWrapper) {
        match part {
            NormalizerWrapper::Sequence(parts) => parts.as_mut().iter_mut().for_each(normalizer),
            NormalizerWrapper::Prepend(part) => part.prepend.clear(),
            _ => {}
        }
    }
    fn pre_tokenizer(part: &mut PreTokenizerWrapper) {
        match part {
            PreTokenizerWrapper::Sequence(parts) => parts.as_mut().iter_mut().for_each(pre_tokenizer),
            PreTokenizerWrapper::ByteLevel(part) => part.add_prefix_space = false,
            PreTokenizerWrapper::Metaspace(part) => part.set_prepend_scheme(PrependScheme::Never),
            _ => {}
        }
    }
    if let Some(mut part) = tokenizer.get_normalizer().cloned() {
        normalizer(&mut part);
        tokenizer.with_normalizer(Some(part));
    }
    if let Some(mut part) = tokenizer.get_pre_tokenizer().cloned() {
        pre_tokenizer(&mut part);
        tokenizer.with_pre_tokenizer(Some(part));
    }
}
