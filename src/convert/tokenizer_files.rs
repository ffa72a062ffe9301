//! The tokenizer in the files beside the weights: `tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt`, and what
//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say about special tokens.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::json::{read_json_if_any, read_vocabulary};
use super::options::TokenizerSource;
use super::small_file::read_small;
use super::source::{FoundTokenizer, is_qwen};
use super::tokenizer::END_OF_TEXT;
use crate::error::{Error, Result};
use crate::memory::{add, collected, copied, extend, insert, no_room};
use crate::model::{MAX_ADDED, MAX_MERGES, qwen2_parts};

/// The files that are read if they are beside the weights.
pub(super) const FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    CHAT_TEMPLATE,
];

/// The file of the chat template, if it is not in `tokenizer_config.json`.
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The roles of special tokens, in the order in which transformers gives them ids.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Reads the tokenizer beside the file `weights`.
///
/// # Errors
/// [`Error::BadFile`] if a file is damaged; [`Error::Io`].
pub(super) fn find(weights: &Path) -> Result<FoundTokenizer> {
    let at = |name: &str| weights.with_file_name(name);
    let declared = Declared {
        config: read_json_if_any(&at("tokenizer_config.json"))?.unwrap_or(Value::Null),
        special: read_json_if_any(&at("special_tokens_map.json"))?.unwrap_or(Value::Null),
        added: read_json_if_any(&at("added_tokens.json"))?.unwrap_or(Value::Null),
    };
    let (json, file) = match at("tokenizer.json") {
        path if path.is_file() => (Some(read_small(&path)?), "tokenizer.json"),
        _ if at("vocab.json").is_file() && at("merges.txt").is_file() => {
            let config = read_json_if_any(&at("config.json"))?.unwrap_or(Value::Null);
            let made = byte_level_bpe(&at("vocab.json"), &at("merges.txt"), &declared, is_qwen(&config))?;
            (Some(made), "the tokenizer of vocab.json and merges.txt")
        }
        _ => (None, "tokenizer.json"),
    };
    let role = |role: &str| declared.token(role).map(copied).transpose();
    Ok(FoundTokenizer {
        json,
        origin: TokenizerSource::Beside,
        file: copied(file)?,
        bos: role("bos_token")?,
        eos: role("eos_token")?,
        mask: role("mask_token")?,
        puts_bos: declared.config.get("add_bos_token") == Some(&Value::Bool(true)),
        chat_template: chat_template(&at(CHAT_TEMPLATE), &declared)?,
    })
}

/// The chat template: the file of it, or the text in the tokenizer's configuration, of several the one called `default`.
fn chat_template(path: &Path, declared: &Declared) -> Result<Option<String>> {
    if path.is_file() {
        let text = String::from_utf8(read_small(path)?);
        let text =
            text.map_err(|e| Error::unreadable(path.display().to_string(), "the text is not UTF-8", e))?;
        return Ok(Some(text));
    }
    let Some(stated) = declared.config.get("chat_template") else { return Ok(None) };
    let mut named = stated.as_array().into_iter().flatten();
    let default = named.find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
    let text = stated.as_str().or_else(|| default?.get("template")?.as_str());
    text.map(copied).transpose()
}

/// What the files say about special tokens; null if there is no such file.
struct Declared {
    config: Value,
    special: Value,
    added: Value,
}

impl Declared {
    /// The text of the token with a role.
    fn token(&self, role: &str) -> Option<&str> {
        [&self.config, &self.special].into_iter().find_map(|file| text(file.get(role)?))
    }

    /// Whether the tokenizer is Qwen's, which splits texts by another pattern than GPT-2's.
    fn is_qwen(&self) -> bool {
        let class = self.config.get("tokenizer_class").and_then(Value::as_str);
        class.is_some_and(|class| class.starts_with("Qwen2"))
    }

    /// Whether the token with this number is stated not to be a special one, such as `<think>`.
    fn is_plain(&self, id: u64) -> bool {
        let token = self.config.get("added_tokens_decoder").and_then(|all| all.get(id.to_string()));
        token.and_then(|token| token.get("special")) == Some(&Value::Bool(false))
    }

    /// The tokens that are added to the vocabulary under a number, of several with one number the last.
    fn numbered(&self) -> Result<HashMap<u64, &str>> {
        let decoder = self.config.get("added_tokens_decoder").and_then(Value::as_object);
        let by_number =
            decoder.into_iter().flatten().filter_map(|(id, token)| Some((id.parse().ok()?, text(token)?)));
        let by_text = self.added.as_object().into_iter().flatten();
        let by_text = by_text.filter_map(|(token, id)| Some((id.as_u64()?, token.as_str())));
        let mut all = HashMap::new();
        for (id, token) in by_number.chain(by_text) {
            insert(&mut all, id, token)?;
        }
        Ok(all)
    }
}

/// A special token is text, or an object with the text in `content`.
fn text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The `tokenizer.json` of GPT-2's byte-level BPE, or Qwen's, made of its older files as transformers makes it.
fn byte_level_bpe(
    vocab_path: &Path,
    merges_path: &Path,
    declared: &Declared,
    is_qwen: bool,
) -> Result<Vec<u8>> {
    let bad = |path: &Path, what: String| Error::bad_file(path.display().to_string(), what);
    let Value::Object(vocab) = read_vocabulary(vocab_path)? else {
        return Err(bad(vocab_path, "not a table of tokens and their ids".into()));
    };
    if let Some((token, id)) = vocab.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id >= 1 << 32)) {
        return Err(bad(vocab_path, format!("the id of '{token}' is {id}")));
    }
    let merges = String::from_utf8(read_small(merges_path)?)
        .map_err(|e| Error::unreadable(merges_path.display().to_string(), "the text is not UTF-8", e))?;
    let pairs = Pairs(&merges);
    for (count, (number, line)) in pairs.lines().enumerate() {
        match line.split_once(' ') {
            _ if count == MAX_MERGES => {
                return Err(bad(merges_path, format!("more than {MAX_MERGES} pairs")));
            }
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => (),
            _ => return Err(bad(merges_path, format!("line {} is not a pair of tokens", number + 1))),
        }
    }
    let added = added_tokens(&vocab, declared, |what| bad(vocab_path, what))?;
    let prefix = declared.config.get("add_prefix_space") == Some(&Value::Bool(true));
    let byte_level =
        |trim_offsets| ByteLevel { add_prefix_space: prefix, trim_offsets, ty: "ByteLevel", use_regex: true };
    let model = Bpe {
        byte_fallback: false,
        continuing_subword_prefix: "",
        dropout: (),
        end_of_word_suffix: "",
        fuse_unk: false,
        merges: pairs,
        ty: "BPE",
        unk_token: (),
        vocab: &vocab,
    };
    let (normalizer, pre_tokenizer) = match is_qwen || declared.is_qwen() {
        true => qwen2_parts(),
        false => (Value::Null, serde_json::to_value(byte_level(true)).unwrap_or_default()),
    };
    let file = TokenizerJson {
        added_tokens: &added,
        decoder: byte_level(true),
        model,
        normalizer,
        padding: (),
        post_processor: byte_level(false),
        pre_tokenizer,
        truncation: (),
        version: "1.0",
    };
    let mut text = Growing(Vec::new());
    serde_json::to_writer(&mut text, &file).map_err(|_| no_room(text.0.len()))?;
    Ok(text.0)
}

/// A `tokenizer.json`. As values of JSON its lists would take many times its size.
#[derive(Serialize)]
struct TokenizerJson<'a> {
    added_tokens: &'a [AddedToken<'a>],
    decoder: ByteLevel,
    model: Bpe<'a>,
    normalizer: Value,
    padding: (),
    post_processor: ByteLevel,
    pre_tokenizer: Value,
    truncation: (),
    version: &'static str,
}

#[derive(Serialize)]
struct ByteLevel {
    add_prefix_space: bool,
    trim_offsets: bool,
    #[serde(rename = "type")]
    ty: &'static str,
    use_regex: bool,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    content: &'a str,
    id: u64,
    lstrip: bool,
    normalized: bool,
    rstrip: bool,
    single_word: bool,
    special: bool,
}

#[derive(Serialize)]
struct Bpe<'a> {
    byte_fallback: bool,
    continuing_subword_prefix: &'static str,
    dropout: (),
    end_of_word_suffix: &'static str,
    fuse_unk: bool,
    merges: Pairs<'a>,
    #[serde(rename = "type")]
    ty: &'static str,
    unk_token: (),
    vocab: &'a Map<String, Value>,
}

/// The pairs of tokens in the text of a `merges.txt`, one a line.
struct Pairs<'a>(&'a str);

impl<'a> Pairs<'a> {
    /// The lines with pairs, and their numbers from 0.
    fn lines(&self) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        // The first line may tell the version.
        let is_pair = |&(number, line): &(usize, &str)| {
            !line.is_empty() && (number > 0 || !line.starts_with("#version"))
        };
        self.0.lines().enumerate().filter(is_pair)
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.lines().filter_map(|(_, line)| line.split_once(' ')))
    }
}

/// Bytes that grow as long as there is memory.
struct Growing(Vec<u8>);

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        extend(&mut self.0, bytes).map_err(|_| ErrorKind::OutOfMemory)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The special tokens: those of the vocabulary, those added under a number, and those with a role, which follow.
fn added_tokens<'a>(
    vocab: &Map<String, Value>,
    declared: &'a Declared,
    bad: impl Fn(String) -> Error,
) -> Result<Vec<AddedToken<'a>>> {
    let mut all = declared.numbered()?;
    if let Some((id, token)) = all.iter().filter(|(id, _)| **id >= 1 << 32).min() {
        return Err(bad(format!("the id of the added token '{token}' is {id}")));
    }
    let mut known = HashSet::new();
    for token in all.values() {
        add(&mut known, *token)?;
    }
    let mut next =
        vocab.values().filter_map(Value::as_u64).chain(all.keys().copied()).max().map_or(0, |id| id + 1);
    let others = declared.special.get("additional_special_tokens").and_then(Value::as_array);
    let roles = ROLES.iter().filter_map(|role| declared.token(role));
    // Always special in GPT-2's vocabulary.
    let end = Some(END_OF_TEXT).filter(|end| vocab.contains_key(*end));
    for token in roles.chain(others.into_iter().flatten().filter_map(text)).chain(end) {
        if !add(&mut known, token)? {
            continue;
        }
        if known.len() > MAX_ADDED {
            break;
        }
        let id = vocab.get(token).and_then(Value::as_u64).unwrap_or(next);
        next += u64::from(id == next);
        insert(&mut all, id, token)?;
    }
    if known.len() > MAX_ADDED {
        return Err(bad(format!("more than {MAX_ADDED} added tokens")));
    }
    let mut tokens = collected(all.into_iter().map(|(id, content)| AddedToken {
        content,
        id,
        lstrip: false,
        normalized: false,
        rstrip: false,
        single_word: false,
        special: ROLES.iter().any(|role| declared.token(role) == Some(content)) || !declared.is_plain(id),
    }))?;
    tokens.sort_unstable_by_key(|token| token.id);
    Ok(tokens)
}

/// The paths of the files beside `weights` that may be read.
pub(super) fn paths(weights: &Path) -> impl Iterator<Item = PathBuf> {
    FILES.into_iter().map(|name| weights.with_file_name(name))
}
