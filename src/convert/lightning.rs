//! The hyperparameters and the tokenizer in a Lightning checkpoint's pickle.

use serde_json::{Map, Number, Value};

use super::options::TokenizerSource;
use super::pickle::{Node, NodeId, Pickle};
use super::source::FoundTokenizer;
use crate::error::{Error, Result};
use crate::memory::{copied, push};

/// Most values (entries that are looked at, bytes of text) and deepest nesting of a configuration. What a pickle shares is
/// copied wherever it occurs, so without a limit a small pickle could produce an endless configuration.
const MAX_VALUES: usize = 1 << 18;
const MAX_DEPTH: usize = 32;
/// What a value counts besides its text.
const VALUE: usize = 8;

/// The configuration in `hyper_parameters`, an omegaconf object or plain dictionaries, with the checkpoint's
/// `vocab_size` added; `None` if there is none. Values that JSON cannot represent become null.
///
/// # Errors
/// [`Error::BadFile`] if it is larger or deeper than the limits; [`Error::OutOfMemory`].
pub(super) fn config(pickle: &Pickle<'_>, file: &str) -> Result<Option<Value>> {
    let Some(hyper) = pickle.get(pickle.root(), "hyper_parameters") else {
        return Ok(None);
    };
    let root = pickle.get(hyper, "config").unwrap_or(hyper);
    let mut config = Values { pickle, file, left: MAX_VALUES }.plain(root, MAX_DEPTH)?;
    if let (Value::Object(map), Some(id)) = (&mut config, pickle.get(hyper, "vocab_size"))
        && let Some(vocab_size) = pickle.unsigned(id)
    {
        map.entry("vocab_size").or_insert(vocab_size.into());
    }
    Ok(Some(config))
}

/// Makes JSON of a pickle's values.
struct Values<'a> {
    pickle: &'a Pickle<'a>,
    file: &'a str,
    /// What remains of [`MAX_VALUES`].
    left: usize,
}

impl Values<'_> {
    fn too_much(&self) -> Error {
        Error::bad_file(self.file, "the configuration in 'hyper_parameters' is too large or deep")
    }

    fn take(&mut self, count: usize) -> Result<()> {
        self.left = self.left.checked_sub(count).ok_or_else(|| self.too_much())?;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<String> {
        self.take(text.len())?;
        copied(text)
    }

    /// A value, which may nest so deep.
    fn plain(&mut self, id: NodeId, depth: usize) -> Result<Value> {
        self.take(VALUE)?;
        let depth = depth.checked_sub(1).ok_or_else(|| self.too_much())?;
        let pickle = self.pickle;
        Ok(match pickle.node(id) {
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => (*value).into(),
            Node::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Node::Str(value) => Value::String(self.text(value)?),
            Node::List(elements) | Node::Tuple(elements) => {
                // One by one: room for all would be there at each level of a list that contains itself.
                let mut list = Vec::new();
                for &element in elements {
                    push(&mut list, self.plain(element, depth)?)?;
                }
                Value::Array(list)
            }
            Node::Object(_) => {
                // omegaconf keeps a container's children in `_content` and a leaf's value in `_val`.
                let state = state(pickle, id).filter(|_| pickle.entries(id).is_empty());
                self.take(state.map_or(0, |s| pickle.entries(s).len()))?;
                match state.and_then(|s| pickle.get(s, "_content").or_else(|| pickle.get(s, "_val"))) {
                    Some(inner) => self.plain(inner, depth)?,
                    None => self.dictionary(id, depth)?,
                }
            }
            Node::Dict(_) => self.dictionary(id, depth)?,
            _ => Value::Null,
        })
    }

    /// A dictionary as a JSON object. Keys that are not text are left out.
    fn dictionary(&mut self, id: NodeId, depth: usize) -> Result<Value> {
        let mut map = Map::new();
        for &(key, value) in self.pickle.entries(id) {
            self.take(1)?;
            if let Some(key) = self.pickle.text(key) {
                map.insert(self.text(key)?, self.plain(value, depth)?);
            }
        }
        Ok(Value::Object(map))
    }
}

/// The tokenizer in `hyper_parameters`: a transformers fast tokenizer around a pickled `tokenizers.Tokenizer`,
/// whose state is the text of a `tokenizer.json`. What it lacks is `None`.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn tokenizer(pickle: &Pickle<'_>) -> Result<Option<FoundTokenizer>> {
    let hyper = pickle.get(pickle.root(), "hyper_parameters");
    let state = hyper.and_then(|h| pickle.get(h, "tokenizer")).and_then(|t| state(pickle, t));
    let Some(state) = state else { return Ok(None) };
    let inner = pickle.get(state, "_tokenizer");
    let json = inner
        .filter(|&id| matches!(pickle.class(id), Some((module, "Tokenizer", _)) if module.starts_with("tokenizers")))
        .and_then(|id| self::state(pickle, id));
    let special = |name: &str, old_name: &str| {
        let map = pickle.get(state, "_special_tokens_map").and_then(|map| pickle.get(map, name));
        // Older versions of transformers keep each special token in an attribute of its own.
        let token = map.or_else(|| pickle.get(state, old_name));
        token.and_then(|token| token_text(pickle, token)).map(copied).transpose()
    };
    Ok(Some(FoundTokenizer {
        json: match json {
            Some(id) => pickle.bytes(id)?,
            None => None,
        },
        origin: TokenizerSource::Embedded,
        file: copied("the checkpoint's tokenizer")?,
        bos: special("bos_token", "_bos_token")?,
        eos: special("eos_token", "_eos_token")?,
        mask: special("mask_token", "_mask_token")?,
        puts_bos: false,
        chat_template: None,
    }))
}

/// The text of a special token, which is a string or an `AddedToken`.
fn token_text<'a>(pickle: &Pickle<'a>, id: NodeId) -> Option<&'a str> {
    pickle.text(id).or_else(|| pickle.text(pickle.get(state(pickle, id)?, "content")?))
}

/// The state of an object, as `__setstate__` would get it.
fn state(pickle: &Pickle<'_>, id: NodeId) -> Option<NodeId> {
    pickle.object(id)?.state
}
