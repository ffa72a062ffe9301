//! Text to tokens and back.
//!
//! A tokenizer comes from an untrusted file: [`file`] reads it as data, with the limits of [`vocabulary`], [`parts`] and
//! [`pattern`], before the tokenizer library sees any of it.

mod file;
mod parts;
mod pattern;
mod vocabulary;

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokenizers::DecoderWrapper;

use super::config::Config;
use crate::error::{Error, Result};
use crate::gguf::Value;
use crate::log::{LogLevel, log};

/// Shown in place of a token that is not known yet: a light shade block.
pub const HOLE: char = '\u{2591}';

/// The tokenizer of a model. Its time and memory are linear in the text. A panic of the tokenizer library becomes an
/// error; none is known for the tokenizers that are accepted.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    mask: u32,
    eos: Option<u32>,
}

/// Why a file's tokenizer cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    what: String,
    source: Option<Cause>,
}

type Cause = Arc<dyn StdError + Send + Sync>;

impl Unusable {
    /// The [`Error::BadFile`] for `file`.
    pub(super) fn error(&self, file: &str) -> Error {
        Error::BadFile { file: file.to_owned(), what: self.what.clone(), source: self.source.clone() }
    }
}

impl Tokenizer {
    /// Reads the metadata value that holds a `tokenizer.json`.
    pub(super) fn from_json(value: &Value, config: &Config) -> Result<Self, Unusable> {
        let Some(json) = value.as_str() else {
            let what = format!("key '{}' is not text", Config::TOKENIZER_KEY);
            return Err(Unusable { what, source: None });
        };
        let inner = parse_tokenizer(json)
            .map_err(|e| Unusable { what: format!("the tokenizer is damaged: {e}"), source: Some(e) })?;
        let tokens = inner.get_vocab_size(true);
        // The mask token comes after the tokenizer's own, or is one of them.
        if tokens != config.mask_token_id as usize && tokens != config.vocab_size {
            let (vocab_size, mask) = (config.vocab_size, config.mask_token_id);
            let what = format!(
                "the tokenizer has {tokens} tokens, but the model has {vocab_size} with the mask at {mask}"
            );
            return Err(Unusable { what, source: None });
        }
        Ok(Self { inner, mask: config.mask_token_id, eos: config.eos_token_id })
    }

    /// The tokens of `text`. Special tokens written out in the text are recognised; none are added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot encode it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            guarded(|| self.inner.encode(text, false)).map_err(|e| failed("cannot encode this text", e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`: special tokens as they are written, [`HOLE`] for each mask token. Bytes that are not
    /// valid UTF-8 become U+FFFD.
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
            if let Some(&id) = run.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
                return Err(no_token(id));
            }
            let decoded = guarded(|| self.inner.decode(run, false));
            text.push_str(&decoded.map_err(|e| failed("cannot decode these tokens", e))?);
        }
        Ok(text)
    }

    /// The bytes of one token, which may be a part of a UTF-8 character. A special token's are those of its name.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for the mask and for a token outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> Result<Vec<u8>> {
        let piece = self.inner.id_to_token(token).filter(|_| token != self.mask);
        let piece = piece.ok_or_else(|| no_token(token))?;
        let added = self.inner.get_added_vocabulary().is_special_token(&piece);
        if let (Some(DecoderWrapper::ByteLevel(_)), false) = (self.inner.get_decoder(), added)
            && let Some(bytes) = byte_level(&piece)
        {
            return Ok(bytes);
        }
        Ok(self.decode(&[token])?.into_bytes())
    }

    /// Whether the token stands for no text: special ones, such as those that begin and end a text, the mask, and numbers
    /// outside the vocabulary.
    #[cfg(feature = "grammar")]
    pub(crate) fn is_special(&self, token: u32) -> bool {
        let piece = self.inner.id_to_token(token).filter(|_| token != self.mask && Some(token) != self.eos);
        piece.is_none_or(|piece| self.inner.get_added_vocabulary().is_special_token(&piece))
    }

    /// The text of the known beginning of `tokens`: up to the first mask or end-of-text token, and without an incomplete
    /// last character. As more tokens become known, text is only ever appended to it.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_prefix(&self, tokens: &[u32]) -> Result<String> {
        let end = tokens.iter().position(|&t| t == self.mask || Some(t) == self.eos);
        let cut_short = end.is_some_and(|end| tokens.get(end) == Some(&self.mask));
        let mut text = self.decode(tokens.split_at(end.unwrap_or(tokens.len())).0)?;
        if cut_short {
            text.truncate(text.trim_end_matches('\u{FFFD}').len());
        }
        Ok(text)
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

/// Parses a `tokenizer.json`. What would cut, pad or change texts at random is left out, with a message in the log.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_tokenizer(json: &str) -> Result<tokenizers::Tokenizer, Cause> {
    guarded(|| {
        let file::Parsed { tokenizer, notes } = file::parse(json)?;
        notes.iter().for_each(|note| log(LogLevel::Warn, note));
        Ok(tokenizer)
    })
}

/// Calls the tokenizer library; a panic becomes an error.
fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(Cause::from),
        Err(_) => Err(Cause::from(Box::<dyn StdError + Send + Sync>::from("the tokenizer library panicked"))),
    }
}

fn no_token(id: u32) -> Error {
    Error::tokenizer(format!("the tokenizer has no token {id}"))
}

fn failed(what: &str, source: Cause) -> Error {
    Error::Tokenizer { what: format!("the tokenizer {what}: {source}"), source: Some(source) }
}
