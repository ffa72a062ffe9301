//! Which tokenizer is written into the model file, and whether it belongs to the model.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::Arc;

use super::options::{Options, SpecialToken, TokenizerSource};
use super::small_file::read_small;
use super::source::{FoundTokenizer, Source};
use crate::error::{Error, Result};
use crate::memory::copied;
use crate::model::{MASK_NAMES, parse_tokenizer};

/// The token that ends a text in GPT-2's vocabulary and its descendants.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// Why a tokenizer cannot be used.
type Cause = Arc<dyn StdError + Send + Sync>;

/// A tokenizer with the ids of its tokens.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// The content of `tokenizer.json`.
    pub json: String,
    /// Where it came from.
    pub source: TokenizerSource,
    /// The name of its file, for errors.
    pub file: String,
    ids: HashMap<String, u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    mask: Option<u32>,
    before_texts: Option<u32>,
}

/// Finds the tokenizer: the one given, else the one in the checkpoint or beside the weights, else none. One in a
/// checkpoint that cannot be parsed is left out, with a note.
///
/// # Errors
/// [`Error::BadFile`] if the one given or beside the weights cannot be parsed; [`Error::Io`]; [`Error::OutOfMemory`].
pub(super) fn find(source: &mut Source, options: &Options) -> Result<Option<Vocabulary>> {
    let found = &mut source.tokenizer;
    let (json, origin, file) = match (&options.tokenizer, found.json.take()) {
        (Some(path), _) => (read_small(path)?, TokenizerSource::Given, path.display().to_string()),
        (None, Some(json)) => (json, found.origin, found.file.clone()),
        (None, None) => return Ok(None),
    };
    let parsed = parse(json);
    // It would be left out as damaged.
    if let Err(error) = &parsed
        && let Some(Error::OutOfMemory(what)) = error.downcast_ref()
    {
        return Err(Error::OutOfMemory(copied(what)?));
    }
    match parsed {
        Ok((json, ids)) => Ok(Some(Vocabulary::new(json, ids, origin, file, &source.tokenizer))),
        Err(error) if origin == TokenizerSource::Embedded => {
            source.notes.push(format!("{file} is damaged and is left out: {error}"));
            Ok(None)
        }
        Err(error) => Err(Error::unreadable(file, "the tokenizer is damaged", error)),
    }
}

/// The text of a `tokenizer.json`, and the ids of its tokens.
fn parse(json: Vec<u8>) -> Result<(String, HashMap<String, u32>), Cause> {
    let json = String::from_utf8(json).map_err(|error| Arc::new(error) as Cause)?;
    // With the library that the runtime uses, so that it can read what is written.
    let tokenizer = parse_tokenizer(&json)?;
    Ok((json, tokenizer.get_vocab(true)))
}

impl Vocabulary {
    /// `declared` may name special tokens by their text.
    fn new(
        json: String,
        ids: HashMap<String, u32>,
        source: TokenizerSource,
        file: String,
        declared: &FoundTokenizer,
    ) -> Self {
        let id = |text: Option<&String>| text.and_then(|text| ids.get(text)).copied();
        let end = ids.get(END_OF_TEXT).copied();
        let (bos, eos) = (id(declared.bos.as_ref()).or(end), id(declared.eos.as_ref()).or(end));
        let mask = id(declared.mask.as_ref());
        let before_texts = id(declared.bos.as_ref()).filter(|_| declared.puts_bos);
        Self { json, source, file, ids, bos, eos, mask, before_texts }
    }

    /// The id of the token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id of the token that the tokenizer puts before each text, if it declares one.
    pub fn before_texts(&self) -> Option<u32> {
        self.before_texts
    }

    /// The id of the token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The id of the mask if the tokenizer has one: the token that it declares, else one with a mask's name.
    pub fn mask(&self) -> Option<u32> {
        self.mask.or_else(|| MASK_NAMES.iter().find_map(|name| self.ids.get(*name).copied()))
    }

    /// As [`Vocabulary::mask`] where training may have appended a mask to the vocabulary: `None` if it has, unless one is declared.
    pub fn mask_within(&self, vocab_size: usize) -> Option<u32> {
        if self.ids.len() == vocab_size { self.mask() } else { self.mask }
    }

    /// The id of a token that an option names.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such token.
    pub fn named(&self, option: &str, token: &SpecialToken) -> Result<u32> {
        match token {
            SpecialToken::Id(id) => Ok(*id),
            SpecialToken::Text(text) => {
                let id = self.ids.get(text).copied();
                id.ok_or_else(|| Error::invalid(format!("{option}: {} has no token '{text}'", self.file)))
            }
        }
    }

    /// The text of the token with this id.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.ids.iter().find(|(_, i)| **i == id).map(|(text, _)| text.as_str())
    }

    /// Checks that this can be the tokenizer of a model whose vocabulary may have rows for no token.
    ///
    /// # Errors
    /// What disagrees, with both numbers.
    pub fn check_within(&self, vocab_size: usize) -> Result<(), String> {
        match self.ids.iter().find(|(_, id)| **id as usize >= vocab_size) {
            Some((text, id)) => Err(format!(
                "the tokenizer gives '{text}' the id {id}, but the model has {vocab_size} tokens"
            )),
            None => Ok(()),
        }
    }

    /// Checks that this can be the tokenizer of a model with this vocabulary: it has every token, or every token but the
    /// mask that training appended.
    ///
    /// # Errors
    /// What disagrees, with both numbers.
    pub fn check(&self, vocab_size: usize, mask: u32) -> Result<(), String> {
        let (count, mask) = (self.ids.len(), mask as usize);
        if count != vocab_size && (count != mask || mask + 1 != vocab_size) {
            return Err(format!(
                "the tokenizer has {count} tokens, but the model has {vocab_size} with the mask at {mask}"
            ));
        }
        match self.ids.iter().find(|(_, id)| **id as usize >= count) {
            Some((text, id)) => {
                Err(format!("the tokenizer gives '{text}' the id {id}, but has {count} tokens"))
            }
            None => Ok(()),
        }
    }
}
