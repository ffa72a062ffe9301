//! The tokenizer of llama.cpp's files, which have its vocabulary and merges as arrays: made into a `tokenizer.json`, which is
//! then read as any other, with the same limits.

use serde_json::{Value as Json, json};

use super::pattern::QWEN2;
use super::unusable::Unusable;
use super::vocabulary::{MAX_MERGES, MAX_TOKENS};
use crate::gguf::{Array, Quoted, Value};
use crate::memory::append;

/// The keys of a file, by `gguf-py/gguf/constants.py`.
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// All that make the tokenizer.
#[cfg(feature = "convert")]
pub(super) const KEYS: [&str; 5] = [MODEL, PRE, TOKENS, TYPES, MERGES];

/// Types of tokens (`llama_token_type`).
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

/// Looks a file's metadata up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'a Value>;

/// Whether the file has a vocabulary.
pub(super) fn has_vocabulary(get: Lookup<'_>) -> bool {
    get(TOKENS).is_some()
}

/// The normalizer and the pre-tokenizer of Qwen2, Qwen2.5, Qwen3 and WeDLM, as `tokenizer.json` has them.
pub(crate) fn qwen2_parts() -> (Json, Json) {
    let split =
        json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
    (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]}))
}

fn byte_level(regex: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex})
}

/// The `tokenizer.json` of the vocabulary.
///
/// # Errors
/// What is wrong with it, or which kind of tokenizer it is, if not a byte-level BPE that is known; that there is no memory.
pub(super) fn to_json(get: Lookup<'_>) -> Result<String, Unusable> {
    let text = |key: &str| get(key).and_then(Value::as_str);
    let array = |key: &str| match get(key) {
        Some(Value::Array(array)) => Ok(array),
        Some(_) => Err(Unusable::from(format!("key '{key}' is not an array"))),
        None => Err(format!("key '{key}' is missing").into()),
    };
    if text(MODEL) != Some("gpt2") {
        let other = text(MODEL).unwrap_or("none");
        let what =
            format!("key '{MODEL}' is '{other:.40}'; esolm reads vocabularies of 'gpt2' (byte-level BPE)");
        return Err(what.into());
    }
    let (normalizer, pre_tokenizer) = match text(PRE) {
        Some("qwen2" | "deepseek-r1-qwen") => qwen2_parts(),
        Some("gpt-2") => (Json::Null, byte_level(true)),
        other => {
            let other = other.unwrap_or("none");
            let what =
                format!("key '{PRE}' is '{other:.40}'; esolm knows 'qwen2', 'deepseek-r1-qwen' and 'gpt-2'");
            return Err(what.into());
        }
    };
    let (tokens, types, merges) = (array(TOKENS)?, array(TYPES)?, array(MERGES)?);
    if tokens.len() > MAX_TOKENS || merges.len() > MAX_MERGES {
        let (tokens, merges) = (tokens.len(), merges.len());
        let what = format!("{tokens} tokens, {merges} merges; at most {MAX_TOKENS} and {MAX_MERGES}");
        return Err(what.into());
    }
    let parts = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": null, "decoder": byte_level(true),
    });
    // Text behind text: as values of JSON the lists would take many times the file.
    let mut out = parts.to_string();
    out.pop();
    append(&mut out, ",\"added_tokens\":[")?;
    add_special(tokens, types, &mut out)?;
    append(
        &mut out,
        concat!(
            "],\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":\"\",",
            "\"end_of_word_suffix\":\"\",\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{"
        ),
    )?;
    // Also those that are added, so that they keep their numbers; not the names of rows that stand for no text.
    let mut comma = "";
    for ((id, token), ty) in tokens.texts().enumerate().zip(types.iter()) {
        if ty?.as_u64() == Some(UNUSED) {
            continue;
        }
        append(&mut out, comma)?;
        push_text(token, &mut out)?;
        append(&mut out, format_args!(":{id}"))?;
        comma = ",";
    }
    append(&mut out, "},\"merges\":[")?;
    for (number, merge) in merges.texts().enumerate() {
        append(&mut out, if number == 0 { "" } else { "," })?;
        push_text(merge, &mut out)?;
    }
    append(&mut out, "]}}")?;
    Ok(out)
}

/// Appends a text as JSON.
fn push_text(text: &str, out: &mut String) -> Result<(), Unusable> {
    // Byte-level vocabularies have none, and each would take six bytes.
    if text.chars().any(char::is_control) {
        return Err("a token with a control character".to_owned().into());
    }
    append(out, Quoted(text))?;
    Ok(())
}

/// Appends the tokens that are found in a text before anything else.
fn add_special(tokens: &Array, types: &Array, out: &mut String) -> Result<(), Unusable> {
    if types.len() != tokens.len() {
        return Err(format!("{} tokens with {} types", tokens.len(), types.len()).into());
    }
    let (mut texts, mut added) = (0, 0);
    for (id, (token, ty)) in tokens.texts().zip(types.iter()).enumerate() {
        texts += 1;
        let special = match ty?.as_u64() {
            Some(CONTROL) => true,
            Some(USER_DEFINED) => false,
            _ => continue,
        };
        let comma = if added == 0 { "" } else { "," };
        append(out, format_args!("{comma}{{\"id\":{id},\"special\":{special},\"content\":"))?;
        push_text(token, out)?;
        append(out, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false}")?;
        added += 1;
    }
    if texts != tokens.len() {
        return Err(format!("key '{TOKENS}' is not an array of text").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Value {
        let all: Vec<Value> = all.iter().map(|&text| Value::Str(text.into())).collect();
        Value::Array(Array::new(&all).unwrap())
    }

    fn types(all: &[i32]) -> Value {
        let all: Vec<Value> = all.iter().map(|&ty| Value::I32(ty)).collect();
        Value::Array(Array::new(&all).unwrap())
    }

    /// A vocabulary with an end token and a row that no token has.
    fn file(changes: &[(&str, Value)]) -> Vec<(String, Value)> {
        let mut all = vec![
            (MODEL.to_owned(), Value::Str("gpt2".into())),
            (PRE.to_owned(), Value::Str("qwen2".into())),
            (TOKENS.to_owned(), texts(&["a", "b", "ab", "Ġ", "<|im_end|>", "[PAD5]", "<think>", "\"", "\\"])),
            (TYPES.to_owned(), types(&[1, 1, 1, 1, 3, 5, 4, 1, 1])),
            (MERGES.to_owned(), texts(&["a b"])),
        ];
        for (key, value) in changes {
            all.retain(|(known, _)| known != key);
            all.push(((*key).to_owned(), value.clone()));
        }
        all
    }

    fn made(file: &[(String, Value)]) -> Result<String, String> {
        let made = to_json(&|key| file.iter().find(|(known, _)| known == key).map(|(_, value)| value));
        made.map_err(|unusable| unusable.error("a").to_string())
    }

    #[test]
    fn arrays_become_a_tokenizer() {
        for pre in ["qwen2", "gpt-2"] {
            let json = made(&file(&[(PRE, Value::Str(pre.into()))])).unwrap();
            let tokenizer = super::super::parse_tokenizer(&json).unwrap();
            let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            assert_eq!(ids("ab a<|im_end|><think>b"), [2, 3, 0, 4, 6, 1], "{pre}");
            assert_eq!(ids("a[PAD5]").first(), Some(&0), "{pre}: a row that no text has");
            assert_eq!(tokenizer.id_to_token(5), None, "{pre}: nor has it a text");
            assert_eq!(tokenizer.decode(&[0, 5, 6], false).unwrap(), "a<think>", "{pre}");
            assert_eq!(ids("\"\\\""), [7, 8, 7], "{pre}: quotes and backslashes");
        }
    }

    #[test]
    fn a_token_twice_is_refused() {
        let json = made(&file(&[(TOKENS, texts(&["a", "a", "c", "d", "e", "f", "g", "h", "i"]))])).unwrap();
        assert!(super::super::parse_tokenizer(&json).is_err());
    }

    #[test]
    fn what_is_not_known_or_damaged_is_told() {
        let text = |text: &str| Value::Str(text.into());
        for (change, what) in [
            ((MODEL, text("llama")), "'llama'"),
            ((PRE, text("llama-bpe")), "'llama-bpe'"),
            ((TYPES, types(&[1])), "9 tokens with 1 types"),
            ((TOKENS, types(&[1; 9])), "not an array of text"),
            ((TOKENS, text("a")), "not an array"),
            ((TOKENS, texts(&["a\u{1}", "b", "c", "d", "e", "f", "g", "h", "i"])), "control character"),
        ] {
            let error = made(&file(&[change])).unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
