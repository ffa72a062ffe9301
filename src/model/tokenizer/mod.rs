//! Text to tokens and back.
//!
//! A tokenizer comes from an untrusted file: [`file`] reads it as data, with the limits of [`vocabulary`], [`parts`] and
//! [`pattern`], before the tokenizer library sees any of it.

mod encode;
mod file;
mod library;
mod llama;
mod parts;
mod pattern;
mod pieces;
mod unusable;
mod vocabulary;

use std::sync::OnceLock;

use tokenizers::Model as _;

use super::config::Config;
use crate::error::{Error, Result};
use crate::gguf::Value;
use crate::log::{LogLevel, log};
use crate::memory::{append, collected, no_room, room_for_library, text_with_room, with_room};

use encode::Encoder;
pub use encode::{MASK, TokenizeOptions};
use library::{Cause, failed, guarded};
#[cfg(feature = "convert")]
pub(crate) use llama::qwen2_parts;
pub(crate) use pieces::{Joint, TokenPieces, push_characters};
pub(super) use unusable::Unusable;
#[cfg(feature = "convert")]
pub(crate) use vocabulary::{MAX_ADDED, MAX_MERGES};

/// Bytes of a text, as far as there is memory for them.
#[derive(Default)]
struct TextBytes {
    all: Vec<u8>,
    /// How many there is no room for, with those before them.
    refused: Option<usize>,
}

impl TextBytes {
    fn push(&mut self, bytes: &[u8]) {
        if self.refused.is_some() || self.all.try_reserve(bytes.len()).is_err() {
            self.refused.get_or_insert(self.all.len() + bytes.len());
            return;
        }
        self.all.extend_from_slice(bytes);
    }

    /// All of them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there was no room for some.
    fn complete(self) -> Result<Vec<u8>> {
        self.refused.map_or(Ok(self.all), |bytes| Err(no_room(bytes)))
    }
}

/// The characters of a text, as [`push_characters`] makes them.
///
/// # Errors
/// [`Error::OutOfMemory`].
fn characters(bytes: &[u8], complete: bool) -> Result<String> {
    // U+FFFD takes three bytes for one.
    let room = if std::str::from_utf8(bytes).is_ok() { bytes.len() } else { 3 * bytes.len() };
    let mut text = text_with_room(room)?;
    push_characters(bytes, complete, &mut text);
    Ok(text)
}

/// The tokenizer of a model. Its time and memory are linear in the text. A panic of the tokenizer library becomes an
/// error; none is known for the tokenizers that are accepted.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    mask: u32,
    /// The token that stands before each text, if there is one.
    before: Option<u32>,
    vocab_size: usize,
    /// `None` if texts are not joined of pieces. Empty if there was no memory for it.
    pieces: OnceLock<Option<TokenPieces>>,
}

impl Tokenizer {
    /// Makes the tokenizer of a file's metadata: a `tokenizer.json`, or llama.cpp's arrays. `None` if there is neither.
    pub(super) fn of_file<'m>(
        get: &'m dyn Fn(&str) -> Option<&'m Value>,
        config: &Config,
    ) -> Option<Result<Self, Unusable>> {
        if let Some(value) = get(Config::TOKENIZER_KEY) {
            let what = || format!("key '{}' is not text", Config::TOKENIZER_KEY);
            let json = value.as_str().ok_or_else(|| Unusable::from(what()));
            return Some(json.and_then(|json| Self::from_json(json, config)));
        }
        if !llama::has_vocabulary(get) {
            return None;
        }
        Some(llama::to_json(get).and_then(|json| Self::from_json(&json, config)))
    }

    /// Whether the metadata of two files have one tokenizer, or none.
    #[cfg(feature = "convert")]
    pub(super) fn is_same<'m>(
        one: &'m dyn Fn(&str) -> Option<&'m Value>,
        other: &'m dyn Fn(&str) -> Option<&'m Value>,
    ) -> bool {
        let equal = |key: &str| one(key) == other(key);
        // Where a file has both, its `tokenizer.json` counts.
        equal(Config::TOKENIZER_KEY)
            && (one(Config::TOKENIZER_KEY).is_some() || llama::KEYS.into_iter().all(equal))
    }

    /// Reads a `tokenizer.json`.
    fn from_json(json: &str, config: &Config) -> Result<Self, Unusable> {
        let parsed = parsed(json).map_err(Unusable::damaged)?;
        let tokens = count(&parsed.tokenizer);
        // The mask token comes after the tokenizer's own, or is one of them.
        let fits = match config.llama_architecture() {
            // Their vocabularies have rows for no token.
            Some(_) => tokens <= config.vocab_size,
            None => tokens == config.mask_token_id as usize || tokens == config.vocab_size,
        };
        if !fits {
            let (vocab_size, mask) = (config.vocab_size, config.mask_token_id);
            let what = format!(
                "the tokenizer has {tokens} tokens, but the model has {vocab_size} with the mask at {mask}"
            );
            return Err(what.into());
        }
        let Config { mask_token_id: mask, bos_token_id: bos, vocab_size, .. } = *config;
        let mut ends = with_room(1 + config.other_eos_token_ids.len())?;
        ends.extend(config.ends());
        let encoder = Encoder::new(parsed, mask, bos, ends);
        let before = config.token_before_texts();
        let made = Self { encoder, mask, before, vocab_size, pieces: OnceLock::new() };
        // Before any work, so that making text allocates the text alone. If there is no memory, each use tries again.
        let _ = made.pieces();
        Ok(made)
    }

    /// Leaves out the first token if it is the special one that stands before each text anyway.
    pub(crate) fn without_token_before(&self, tokens: &mut Vec<u32>) {
        if tokens.first().is_some_and(|&first| self.before == Some(first) && self.encoder.is_named(first)) {
            tokens.remove(0);
        }
    }

    /// The tokens of `text`. Special tokens that are written out in it are characters as all others, and none is added.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, &TokenizeOptions::default())
    }

    /// The tokens of `text`; none is added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot encode the text, also if it knows one of its words as a special token
    /// only.
    pub fn encode_with(&self, text: &str, options: &TokenizeOptions) -> Result<Vec<u32>> {
        self.encoder.encode(text, options)
    }

    /// Whether the token is the mask, which stands for what is not known.
    pub fn is_mask(&self, token: u32) -> bool {
        token == self.mask
    }

    /// The tokens of a corpus: special tokens that are written out in it, which divide its documents, are these tokens. No text has
    /// a mask: its name is characters. None is added.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`].
    pub fn encode_corpus(&self, text: &str) -> Result<Vec<u32>> {
        self.encoder.encode_corpus(text)
    }

    /// The text of `tokens`: special tokens as they are written, [`MASK`] for each mask token. Bytes that are not valid UTF-8
    /// become U+FFFD. Some models can write more tokens than their tokenizer has; these add nothing.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for a token outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let is_mask = |&token: &u32| token == self.mask;
        if let Some(&outside) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            return Err(no_token(outside));
        }
        if let Some(pieces) = self.pieces()? {
            let (mut joint, mut all) = (pieces.begin(), TextBytes::default());
            for token in tokens {
                match token {
                    // The text behind a mask goes on: its first token is no beginning.
                    token if is_mask(token) => pieces.append_text(&mut joint, MASK, |bytes| all.push(bytes)),
                    &token => pieces.append(&mut joint, token, |bytes| all.push(bytes)),
                }
            }
            return characters(&all.complete()?, true);
        }
        let tokenizer = self.encoder.tokenizer();
        let mut text = String::new();
        for run in tokens.chunk_by(|a, b| is_mask(a) == is_mask(b)) {
            if run.first().is_some_and(is_mask) {
                run.iter().try_for_each(|_| append(&mut text, MASK))?;
                continue;
            }
            // Not every decoder takes no tokens.
            if !run.iter().any(|&token| self.has(token)) {
                continue;
            }
            let decoded = guarded(|| tokenizer.decode(run, false));
            append(&mut text, decoded.map_err(|e| failed("cannot decode these tokens", e))?)?;
        }
        Ok(text)
    }

    /// The bytes of one token inside a text, which may be a part of a UTF-8 character: with the space before it, if it
    /// begins a word. A special token's are those of its name, the mask's those of [`MASK`].
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for a token that the tokenizer does not have.
    pub fn token_bytes(&self, token: u32) -> Result<Vec<u8>> {
        match self.pieces()? {
            _ if token == self.mask => collected(MASK.bytes()),
            Some(pieces) if pieces.knows(token) => pieces.token_bytes(token),
            None if self.has(token) => Ok(self.decode(&[token])?.into_bytes()),
            _ => Err(no_token(token)),
        }
    }

    /// As [`Tokenizer::token_bytes`]; `None` for a token that the tokenizer does not have or cannot decode. Some models can write
    /// more tokens than it has, which add nothing to a text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn token_piece(&self, token: u32) -> Result<Option<Vec<u8>>> {
        match self.token_bytes(token) {
            Err(no_memory @ Error::OutOfMemory(_)) => Err(no_memory),
            bytes => Ok(bytes.ok()),
        }
    }

    /// Whether the token stands for no text: special ones, such as those that begin and end a text, the mask, and numbers
    /// outside the vocabulary. (`llama_vocab_is_control` of llama.cpp.)
    pub fn is_special(&self, token: u32) -> bool {
        let piece = self
            .encoder
            .tokenizer()
            .id_to_token(token)
            .filter(|_| token != self.mask && !self.encoder.ends_text(token));
        piece.is_none_or(|piece| self.encoder.tokenizer().get_added_vocabulary().is_special_token(&piece))
    }

    /// The text of the known beginning of `tokens`: up to the first mask or end-of-text token, and without an incomplete
    /// last character. As more tokens become known, text is only ever appended to it. A token at position 0 does not end
    /// the text: some models have the same one at the beginning and at the end. (A context knows its prompts, too:
    /// [`Context::text`](crate::Context::text).)
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_prefix(&self, tokens: &[u32]) -> Result<String> {
        let ends =
            |(position, &t): (usize, &u32)| t == self.mask || (position > 0 && self.encoder.ends_text(t));
        let end = tokens.iter().enumerate().position(ends);
        let cut_short = end.is_some_and(|end| tokens.get(end) == Some(&self.mask));
        self.text(tokens.split_at(end.unwrap_or(tokens.len())).0, None, !cut_short)
    }

    /// The text of `tokens`, which are all known, without those that begin and end a text; of its bytes only the first
    /// `bytes`, if that is given. An incomplete last character is left out, unless the text is `complete`.
    pub(crate) fn text(&self, tokens: &[u32], bytes: Option<usize>, complete: bool) -> Result<String> {
        let shown = tokens.iter().copied().filter(|&token| self.shows(token));
        let Some(pieces) = self.pieces()? else {
            let mut all = with_room(tokens.len())?;
            all.extend(shown);
            let mut text = self.decode(&all)?;
            if !complete {
                text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
            }
            return Ok(text);
        };
        let (mut joint, mut all) = (pieces.begin(), TextBytes::default());
        shown.for_each(|token| pieces.append(&mut joint, token, |bytes| all.push(bytes)));
        let mut all = all.complete()?;
        all.truncate(bytes.unwrap_or(usize::MAX));
        characters(&all, complete)
    }

    /// The names of the tokens that texts of users must not name: [`TokenizeOptions::parse_special`] makes these tokens of them.
    /// In order, without those that begin with another.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn special_names(&self) -> Result<Vec<&str>> {
        self.encoder.special_names()
    }

    /// Where a text names such tokens as the tokenizer finds them, which may normalize it: in order, in bytes.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn named_places(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        self.encoder.named_places(text)
    }

    /// Whether the tokenizer has this token. (Of a text that cannot be made of pieces, which know it themselves.)
    fn has(&self, token: u32) -> bool {
        self.encoder.tokenizer().id_to_token(token).is_some()
    }

    /// Whether a token is shown in texts.
    pub(crate) fn shows(&self, token: u32) -> bool {
        !self.encoder.begins_text(token) && !self.encoder.ends_text(token)
    }

    /// Whether texts can be made as they grow, token by token: for stop strings and
    /// [`GenerateParams::step_text`](crate::GenerateParams). Not with a few decoders that look at the whole text.
    pub fn can_stream(&self) -> bool {
        matches!(self.pieces(), Ok(Some(_)))
    }

    /// The bytes of all tokens; `None` if texts are not joined of them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn pieces(&self) -> Result<Option<&TokenPieces>> {
        if let Some(known) = self.pieces.get() {
            return Ok(known.as_ref());
        }
        let made = TokenPieces::new(self.encoder.tokenizer(), self.vocab_size)?;
        Ok(self.pieces.get_or_init(|| made).as_ref())
    }
}

/// How many tokens there are. (`get_vocab_size(true)` copies them all, which of a large vocabulary is a quarter of the memory
/// that opening it takes.)
fn count(tokenizer: &tokenizers::Tokenizer) -> usize {
    let own = |token: &String| tokenizer.get_model().token_to_id(token).is_some();
    let added = tokenizer.get_added_vocabulary().get_vocab().keys();
    tokenizer.get_vocab_size(false) + added.filter(|token| !own(token)).count()
}

/// Most memory that a tokenizer takes: so many times the bytes of a small file, and less of a large one (`tests/hostile`).
fn memory(json: &str) -> usize {
    let len = json.len();
    len.saturating_mul(24).min(len.saturating_mul(4).saturating_add(64 << 20)).max(1 << 20)
}

/// Parses a `tokenizer.json`. What would cut, pad or change texts at random is left out, with a message in the log.
///
/// # Errors
/// What is wrong with it; [`Error::OutOfMemory`].
#[cfg(any(test, feature = "convert"))]
pub(crate) fn parse_tokenizer(json: &str) -> Result<tokenizers::Tokenizer, Cause> {
    parsed(json).map(|parsed| parsed.tokenizer)
}

/// The same, with what else is known of it.
fn parsed(json: &str) -> Result<file::Parsed, Cause> {
    guarded(|| {
        room_for_library(memory(json))?;
        let parsed = file::parse(json)?;
        parsed.notes.iter().for_each(|note| log(LogLevel::Warn, note));
        Ok(parsed)
    })
}

fn no_token(id: u32) -> Error {
    Error::tokenizer(format!("the tokenizer has no token {id}"))
}
