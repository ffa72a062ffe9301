//! Which tokenizer goes into the file, and whether it is the model's.

use std::collections::HashMap;

use super::options::{Options, TokenizerSource, Weights};
use super::small_file::read_small;
use super::source::Source;
use crate::error::{Error, Result};

/// The token that ends a text in GPT-2's vocabulary and those modelled after it.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer with the ids of its tokens.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// The content of `tokenizer.json`.
    pub json: String,
    /// Where it came from.
    pub source: TokenizerSource,
    ids: HashMap<String, u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    mask: Option<u32>,
}

/// Finds the tokenizer: the one given, else the one in the checkpoint or beside the weights, else none.
///
/// # Errors
/// [`Error::Tokenizer`] if the one given or beside the weights cannot be loaded; [`Error::Io`].
pub(super) fn find(source: &mut Source, options: &Options) -> Result<Option<Vocabulary>> {
    let (json, origin, file) = match (&options.tokenizer, source.tokenizer.json.take()) {
        (Some(path), _) => (read_small(path)?, TokenizerSource::Given, path.display().to_string()),
        (None, Some(json)) if source.weights == Weights::AsStored => {
            (json, TokenizerSource::Beside, "tokenizer.json".into())
        }
        (None, Some(json)) => (json, TokenizerSource::Embedded, "the checkpoint's tokenizer".into()),
        (None, None) => return Ok(None),
    };
    match load(json, origin, source) {
        Ok(vocabulary) => Ok(Some(vocabulary)),
        Err(what) if origin == TokenizerSource::Embedded => {
            source.notes.push(format!("{file} cannot be loaded and is left out: {what}"));
            Ok(None)
        }
        Err(what) => Err(Error::Tokenizer(format!("{file}: {what}"))),
    }
}

fn load(json: Vec<u8>, origin: TokenizerSource, source: &Source) -> Result<Vocabulary, String> {
    let json = String::from_utf8(json).map_err(|_| "not UTF-8")?;
    // Loaded with the library that the runtime uses, so that what is written is what can be read.
    let tokenizer = tokenizers::Tokenizer::from_bytes(&json).map_err(|e| e.to_string())?;
    let ids = tokenizer.get_vocab(true);
    let declared = &source.tokenizer;
    let id = |text: Option<&String>| text.and_then(|text| ids.get(text)).copied();
    let end = ids.get(END_OF_TEXT).copied();
    let (bos, eos) = (id(declared.bos.as_ref()).or(end), id(declared.eos.as_ref()).or(end));
    let mask = id(declared.mask.as_ref());
    Ok(Vocabulary { json, source: origin, ids, bos, eos, mask })
}

impl Vocabulary {
    /// The id of the token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id of the token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The id of the mask in a vocabulary that already had one, as BERT's; `None` where training appended it.
    pub fn mask(&self, vocab_size: usize) -> Option<u32> {
        let named = || ["[MASK]", "<mask>"].iter().find_map(|name| self.ids.get(*name).copied());
        self.mask.or_else(|| if self.ids.len() == vocab_size { named() } else { None })
    }

    /// The text of the token with this id.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.ids.iter().find(|(_, i)| **i == id).map(|(text, _)| text.as_str())
    }

    /// Whether this can be the tokenizer of a model with this vocabulary: it has every token, or every token
    /// but the mask that training appended.
    ///
    /// # Errors
    /// A sentence with both numbers.
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
