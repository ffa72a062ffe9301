//! Text in, text out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::DecoderWrapper;

use crate::error::{Error, Result};
use crate::model::Config;

/// What stands for a token that is not known yet, where a text with holes is shown.
pub const HOLE: char = '\u{2591}';

/// The tokenizer that a model file carries. Files are untrusted, so a panic inside the tokenizer library
/// becomes an error.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    mask: u32,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it cannot be read or has another number of tokens than the model.
    pub(crate) fn from_json(json: &str, config: &Config) -> Result<Self> {
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(json.as_bytes()))?;
        let tokens = inner.get_vocab_size(true);
        // The mask token comes after the tokenizer's own, or is one of them.
        if tokens != config.mask_token_id as usize && tokens != config.vocab_size {
            return Err(Error::Tokenizer(format!(
                "it has {tokens} tokens, but the model has {} of which {} is the mask",
                config.vocab_size, config.mask_token_id
            )));
        }
        Ok(Self { inner, mask: config.mask_token_id, eos: config.eos_token_id })
    }

    /// The tokens of `text`. Special tokens written out in the text are recognised; none are added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`: special tokens as they are written, [`HOLE`] for each mask token. Bytes that do
    /// not make up UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for a token outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let mut text = String::new();
        for run in tokens.chunk_by(|a, b| (*a == self.mask) == (*b == self.mask)) {
            if run.first() == Some(&self.mask) {
                text.extend(std::iter::repeat_n(HOLE, run.len()));
                continue;
            }
            if let Some(id) = run.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
                return Err(Error::Tokenizer(format!("there is no token {id}")));
            }
            text.push_str(&guarded(|| self.inner.decode(run, false))?);
        }
        Ok(text)
    }

    /// The bytes that one token stands for, which may be a part of a character. A special token's are those of its
    /// name.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for the mask and for a token outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> Result<Vec<u8>> {
        let piece = self.inner.id_to_token(token).filter(|_| token != self.mask);
        let piece = piece.ok_or_else(|| Error::Tokenizer(format!("there is no token {token}")))?;
        let added = self.inner.get_added_vocabulary().is_special_token(&piece);
        if let (Some(DecoderWrapper::ByteLevel(_)), false) = (self.inner.get_decoder(), added)
            && let Some(bytes) = byte_level(&piece)
        {
            return Ok(bytes);
        }
        Ok(self.decode(&[token])?.into_bytes())
    }

    /// The text of the finished beginning of `tokens`: up to the first mask or end-of-text token, and without
    /// a last character whose bytes are not all there. It only ever grows as tokens become known.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_prefix(&self, tokens: &[u32]) -> Result<String> {
        let end = tokens.iter().position(|&t| t == self.mask || Some(t) == self.eos);
        let cut_short = end.is_some_and(|end| tokens.get(end) == Some(&self.mask));
        let mut text = self.decode(tokens.get(..end.unwrap_or(tokens.len())).unwrap_or(tokens))?;
        if cut_short {
            text.truncate(text.trim_end_matches('\u{FFFD}').len());
        }
        Ok(text)
    }
}

/// The bytes that a byte-level token is written for: printable Latin-1 characters stand for themselves, the other
/// bytes, in order, for the characters from U+0100 on. Nothing for what is not written so.
///
/// Source: GPT-2's `bytes_to_unicode`.
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

/// Runs `f` of the tokenizer library; its errors and panics become [`Error::Tokenizer`].
fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(Error::Tokenizer(e.to_string())),
        Err(_) => Err(Error::Tokenizer("the tokenizer library failed on this input".into())),
    }
}
