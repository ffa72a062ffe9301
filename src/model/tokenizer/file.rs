//! Reads a `tokenizer.json` as data and makes a tokenizer of it. The tokenizer library gets only what has been checked, so
//! that what it does takes time and memory linear in the file, and then in the text.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

use super::parts::{Kind, Limits};
use super::vocabulary::{AddedTokens, MAX_ADDED_BYTES, Merges, TokenIds};
use crate::json::{SmallJson, is_no_memory, longest_text};
use crate::memory::{no_room, push};

/// Longest name of the unknown token, prefix and suffix, in bytes: each occurs once per character or word of a text.
const MAX_AFFIX: usize = 64;
/// Most characters of a word that WordPiece divides: its time grows with their square.
const MAX_WORD: usize = 200;

/// Longest text in the file, in bytes. Some normalizers, which are refused by name, have tables of 300,000.
const MAX_TEXT: usize = 1 << 20;

/// A tokenizer, and what in its file was left out.
pub(super) struct Parsed {
    pub tokenizer: Tokenizer,
    /// How many bytes normalizer and pre-tokenizer make of a byte of text at most.
    pub growth: usize,
    pub notes: Vec<&'static str>,
}

/// The parts of the file that are used. The post-processor is not: it adds special tokens, which are never asked for.
#[derive(Deserialize)]
struct File {
    version: Option<String>,
    truncation: Option<IgnoredAny>,
    padding: Option<IgnoredAny>,
    added_tokens: Option<AddedTokens>,
    normalizer: Option<SmallJson>,
    pre_tokenizer: Option<SmallJson>,
    decoder: Option<SmallJson>,
    model: Model,
}

/// The parts of all models.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    ty: Option<String>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    max_input_chars_per_word: Option<u64>,
    #[serde(default)]
    vocab: TokenIds,
    merges: Option<Merges>,
}

/// Reads a `tokenizer.json`.
///
/// # Errors
/// What is wrong with it; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub(super) fn parse(json: &str) -> tokenizers::Result<Parsed> {
    let longest = longest_text(json.as_bytes());
    if longest > MAX_TEXT {
        return Err(format!("a text of {longest} bytes, more than {MAX_TEXT}").into());
    }
    let file: File = serde_json::from_str(json).map_err(|error| -> tokenizers::Error {
        if is_no_memory(&error) { no_room(json.len()).into() } else { error.to_string().into() }
    })?;
    if let Some(version) = file.version.filter(|version| version != "1.0") {
        return Err(format!("version '{version:.20}' is not 1.0").into());
    }
    let mut notes = Vec::new();
    for (setting, note) in [
        (file.truncation.is_some(), "the tokenizer's 'truncation' is not applied: texts are never cut"),
        (file.padding.is_some(), "the tokenizer's 'padding' is not applied: texts are never padded"),
        (
            file.model.dropout.is_some_and(|dropout| dropout != 0.0),
            "the tokenizer's 'dropout' is not applied: a text always has the same tokens",
        ),
    ] {
        notes.extend(setting.then_some(note));
    }
    let mut tokenizer = Tokenizer::new(file.model.build()?);
    // Normalizer and pre-tokenizer work on the same text, one after the other.
    let mut limits = Limits::new();
    if let Some(SmallJson(part)) = file.normalizer {
        let part: NormalizerWrapper = library(limits.check(Kind::Normalizer, part)?)?;
        tokenizer.with_normalizer(Some(part));
    }
    if let Some(SmallJson(part)) = file.pre_tokenizer {
        let part: tokenizers::PreTokenizerWrapper = library(limits.check(Kind::PreTokenizer, part)?)?;
        tokenizer.with_pre_tokenizer(Some(part));
    }
    if let Some(SmallJson(part)) = file.decoder {
        let part: tokenizers::DecoderWrapper = library(Limits::new().check(Kind::Decoder, part)?)?;
        tokenizer.with_decoder(Some(part));
    }
    let AddedTokens(added) = file.added_tokens.unwrap_or_default();
    add(&mut tokenizer, &added)?;
    Ok(Parsed { tokenizer, growth: limits.growth(), notes })
}

/// Adds the tokens that are found in a text before anything else.
fn add(tokenizer: &mut Tokenizer, added: &[AddedToken]) -> tokenizers::Result<()> {
    let (mut bytes, mut blank) = (0, Vec::new());
    for AddedToken { content, normalized, .. } in added.iter().filter(|token| !token.content.is_empty()) {
        let mut searched = NormalizedString::from(content.as_str());
        if let Some(normalizer) = tokenizer.get_normalizer().filter(|_| *normalized) {
            normalizer.normalize(&mut searched)?;
        }
        // It would be found everywhere.
        if searched.is_empty() {
            return Err(format!("the normalizer leaves nothing of the added token {content:?}").into());
        }
        bytes += searched.len();
        if bytes > 2 * MAX_ADDED_BYTES {
            return Err("the normalizer makes the added tokens too long".into());
        }
        if searched.get().starts_with(char::is_whitespace) {
            push(&mut blank, content)?;
        }
    }
    tokenizer.add_tokens(added);
    // The library finds each of many blanks in sequence, though the one before took them all: the square of their number. (It
    // goes by what the token of this number says.)
    let takes_blanks = |content: &&String| {
        let number = tokenizer.token_to_id(content);
        let token =
            number.and_then(|id| tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(&id));
        token.is_some_and(|token| token.lstrip || token.rstrip)
    };
    blank.into_iter().find(takes_blanks).map_or(Ok(()), |content| {
        let what = "begins with a blank and takes the blanks beside it along ('lstrip' or 'rstrip')";
        Err(format!("the added token {content:?} {what}: this is not supported").into())
    })
}

/// A checked part as the tokenizer library has it.
fn library<T: serde::de::DeserializeOwned>(part: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(part).map_err(|e| e.to_string())
}

impl Model {
    fn build(self) -> Result<ModelWrapper, String> {
        let affixes = [&self.unk_token, &self.continuing_subword_prefix, &self.end_of_word_suffix];
        if let Some(long) = affixes.into_iter().flatten().find(|affix| affix.len() > MAX_AFFIX) {
            return Err(format!(
                "an unknown token, prefix or suffix of {} bytes, more than {MAX_AFFIX}",
                long.len()
            ));
        }
        let TokenIds(vocabulary) = self.vocab;
        let (unknown, prefix) = (self.unk_token, self.continuing_subword_prefix);
        let built = match self.ty.as_deref() {
            // Old files leave the type of BPE out.
            Some("BPE") | None if self.merges.is_some() => {
                let Merges(merges) = self.merges.unwrap_or_default();
                check_merges(&merges, prefix.as_deref().unwrap_or_default())?;
                let mut builder = BPE::builder()
                    .vocab_and_merges(vocabulary, merges)
                    .fuse_unk(self.fuse_unk.unwrap_or(false))
                    .byte_fallback(self.byte_fallback.unwrap_or(false))
                    .ignore_merges(self.ignore_merges.unwrap_or(false));
                if let Some(unknown) = unknown {
                    builder = builder.unk_token(unknown);
                }
                if let Some(prefix) = prefix {
                    builder = builder.continuing_subword_prefix(prefix);
                }
                if let Some(suffix) = self.end_of_word_suffix {
                    builder = builder.end_of_word_suffix(suffix);
                }
                builder.build().map(ModelWrapper::from)
            }
            Some("WordPiece") => {
                let longest = self.max_input_chars_per_word.unwrap_or(100);
                if longest > MAX_WORD as u64 {
                    return Err(format!("max_input_chars_per_word is {longest}, more than {MAX_WORD}"));
                }
                WordPiece::builder()
                    .vocab(vocabulary)
                    .unk_token(unknown.ok_or("WordPiece without an unknown token")?)
                    .continuing_subword_prefix(prefix.unwrap_or_else(|| "##".into()))
                    .max_input_chars_per_word(longest as usize)
                    .build()
                    .map(ModelWrapper::from)
            }
            Some("WordLevel") => WordLevel::builder()
                .vocab(vocabulary)
                .unk_token(unknown.ok_or("WordLevel without an unknown token")?)
                .build()
                .map(ModelWrapper::from),
            Some(other) => {
                return Err(format!(
                    "a model of type '{other:.20}'; BPE, WordPiece and WordLevel are supported"
                ));
            }
            None => return Err("a model without a type".into()),
        };
        built.map_err(|e| e.to_string())
    }
}

/// Checks that the second token of each merge begins with the prefix, which the library cuts off unseen.
fn check_merges(merges: &[(String, String)], prefix: &str) -> Result<(), String> {
    match merges.iter().find(|(_, second)| second.get(prefix.len()..).is_none()) {
        Some((first, second)) => {
            Err(format!("the merge of '{first}' and '{second}' lacks the prefix '{prefix}'"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(json: &str, text: &str) -> Vec<u32> {
        let parsed = parse(json).map_err(|what| format!("{json}: {what}")).unwrap();
        parsed.tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn what_would_change_texts_is_left_out_with_a_note() {
        let json = r#"{"version": "1.0",
            "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": 1099511627776,
                        "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
            "model": {"type": "BPE", "dropout": 0.9, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
        let notes = parse(json).unwrap().notes;
        assert_eq!(notes.len(), 3);
        for (note, setting) in notes.iter().zip(["truncation", "padding", "dropout"]) {
            assert!(note.contains(setting), "{note}");
        }
        for _ in 0..20 {
            assert_eq!(ids(json, "ababab"), [2, 2, 2]);
        }
        assert_eq!(parse(&json.replace("0.9", "0.0")).unwrap().notes.len(), 2);
    }

    #[test]
    fn models_of_old_and_new_files_are_read() {
        let vocab = r#""vocab": {"a": 0, "b": 1, "ab": 2, "abb": 3, "?": 4}"#;
        // BPE without a type, merges as lines and as pairs, in either order.
        for merges in [r#"["\#version: 0.2", "a b", "ab b"]"#, r#"[["a", "b"], ["ab", "b"]]"#] {
            let merges = merges.replace("\\#", "#");
            assert_eq!(ids(&format!(r#"{{"model": {{{vocab}, "merges": {merges}}}}}"#), "abbab"), [3, 2]);
            assert_eq!(
                ids(&format!(r#"{{"model": {{"type": "BPE", "merges": {merges}, {vocab}}}}}"#), "abb"),
                [3]
            );
        }
        let word = format!(
            r####"{{"model": {{"type": "WordPiece", {vocab}, "unk_token": "?", "continuing_subword_prefix": ""}}}}"####
        );
        assert_eq!(ids(&word, "abba"), [3, 0]);
        assert_eq!(ids(&word, &"a".repeat(101)), [4], "a word beyond 100 characters is unknown");
        let level = format!(r#"{{"model": {{"type": "WordLevel", {vocab}, "unk_token": "?"}}}}"#);
        assert_eq!(ids(&level, "abb"), [3]);
        assert_eq!(ids(&level, "abba"), [4]);
        // Added tokens come first, and the post-processor changes nothing.
        let added = level.replace(
            r#"{"model""#,
            r#"{"post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
                "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}], "model""#,
        );
        assert_eq!(ids(&added, "ab<s>ab"), [2, 5, 2]);
    }

    /// Many blanks would take the square of their number.
    #[test]
    fn added_tokens_that_are_blanks_and_take_blanks_along_are_refused() {
        let file = |vocab: &str, normalizer: &str, added: &[(&str, &str)]| {
            let token = |(id, (content, set)): (usize, &(&str, &str))| {
                let json = format!(
                    r#"{{"id": {}, "content": "{content}", "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": true}}"#,
                    id + 2
                );
                json.replace(&format!("\"{set}\": false"), &format!("\"{set}\": true"))
            };
            let added: Vec<String> = added.iter().enumerate().map(token).collect();
            let added = added.join(", ");
            let json = format!(
                r#"{{"normalizer": {normalizer}, "added_tokens": [{added}],
                    "model": {{"type": "BPE", "vocab": {{"a": 0, "b": {vocab}}}, "merges": []}}}}"#
            );
            parse(&json).map(|parsed| parsed.tokenizer).map_err(|e| e.to_string())
        };
        let blanks = r#"{"type": "Replace", "pattern": {"String": "_"}, "content": " "}"#;
        for (vocab, normalizer, added) in [
            ("1", "null", &[(" ", "rstrip")][..]),
            ("1", "null", &[("\u{2003}x", "lstrip")]),
            // Two tokens of one number: the second one's settings hold for both.
            ("2", "null", &[(" ", "single_word"), ("b", "rstrip")]),
        ] {
            let refused = file(vocab, normalizer, added);
            assert!(refused.as_ref().is_err_and(|e| e.contains("blank")), "{added:?}: {refused:?}");
        }
        for (normalizer, added) in [
            ("null", [("<|end|>", "rstrip"), ("<mask>", "lstrip"), ("  ", "single_word")]),
            (blanks, [("_", "rstrip"), ("a ", "lstrip"), (" a", "single_word")]),
        ] {
            assert!(file("1", normalizer, &added).is_ok(), "{added:?}");
        }
        let normalized = r#"{"id": 2, "content": "_", "single_word": false, "lstrip": false, "rstrip": true,
            "normalized": true, "special": true}"#;
        let json = format!(
            r#"{{"normalizer": {blanks}, "added_tokens": [{normalized}],
                "model": {{"type": "BPE", "vocab": {{"a": 0, "b": 1}}, "merges": []}}}}"#
        );
        assert!(parse(&json).err().unwrap().to_string().contains("blank"));
    }
}
