//! Tokenizers in model files.

use std::path::Path;

use esolm::gguf::{Gguf, Value, Writer};
use esolm::{LoadOptions, Model};

use super::corpus::{Tally, given};
use super::gguf::{use_model, valid};

const KEY: &str = "tokenizer.huggingface.json";

/// The valid model with another tokenizer.
fn with_tokenizer(json: &str) -> Vec<u8> {
    with_text(KEY, json)
}

/// The valid model with another text in its metadata.
pub fn with_text(key: &str, text: &str) -> Vec<u8> {
    let bytes = valid();
    let gguf = Gguf::parse(&bytes, "valid").expect("a valid file");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        writer.set(key, value.clone());
    }
    writer.set(key, Value::Str(text.into()));
    for tensor in gguf.tensors() {
        writer.declare(&tensor.name, tensor.ty, &tensor.dims).expect("a tensor");
    }
    let mut out = Vec::new();
    let data = |name: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(&bytes[gguf.tensor(name).expect("a tensor").range.clone()]);
        Ok(())
    };
    writer.write(&mut out, data).expect("a file");
    out
}

/// The vocabulary of the valid model: the letters, and others up to 32 tokens.
fn vocabulary() -> String {
    let token = |id: u32| match id {
        0..26 => char::from(b'a' + id as u8).to_string(),
        31 => "[UNK]".into(),
        other => format!("w{other}"),
    };
    (0..32).map(|id| format!("\"{}\": {id}", token(id))).collect::<Vec<_>>().join(", ")
}

fn word_level(parts: &str) -> String {
    let vocabulary = vocabulary();
    format!(
        r#"{{"version": "1.0", {parts} "model": {{"type": "WordLevel", "vocab": {{{vocabulary}}}, "unk_token": "[UNK]"}}}}"#
    )
}

fn model(parts: &str) -> String {
    let vocabulary = vocabulary();
    format!(r#"{{"version": "1.0", "model": {{"vocab": {{{vocabulary}}}, "unk_token": "[UNK]", {parts}}}}}"#)
}

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    for name in ["tokenizer-lookahead.gguf", "tokenizer-precompiled.gguf", "tokenizer-replace-bomb.gguf"] {
        assert!(tally.case(name, &given(name), 0, use_model).is_none(), "{name}: accepted");
    }
    let replace = |from: &str, to: &str| {
        format!(r#"{{"type": "Replace", "pattern": {{"String": "{from}"}}, "content": "{to}"}}"#)
    };
    let sequence = |list: &str, part: &str, count: usize| {
        format!(r#"{{"type": "Sequence", "{list}": [{}]}}"#, vec![part; count].join(", "))
    };
    let split = |regex: &str| {
        format!(
            r#""pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "{regex}"}}, "behavior": "Isolated", "invert": false}},"#
        )
    };
    let long = "x".repeat(1 << 20);
    let added = |count: usize, len: usize| {
        let token = |n: usize| {
            format!(
                r#"{{"id": {}, "content": "{}{n}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}"#,
                32 + n,
                "y".repeat(len)
            )
        };
        format!(r#""added_tokens": [{}],"#, (0..count).map(token).collect::<Vec<_>>().join(", "))
    };
    let refused = [
        (
            "ten replacements",
            word_level(&format!(
                r#""normalizer": {},"#,
                sequence("normalizers", &replace("a", "aaaaaaaaaa"), 10)
            )),
        ),
        (
            "growing decoders",
            word_level(&format!(r#""decoder": {},"#, sequence("decoders", &replace("a", "aaaaaaaaaa"), 10))),
        ),
        ("parts that make a long text again and again", {
            let again = vec![replace("a", "a"); 14].join(", ");
            let all = format!("{}, {}, {again}", replace("a", &"a".repeat(16)), replace("a", "aaa"));
            word_level(&format!(r#""normalizer": {},"#, sequence("normalizers", &all, 1)))
        }),
        ("decoders that make long tokens again and again", {
            let again = vec![replace("a", "a"); 14].join(", ");
            let all = format!("{}, {again}", replace("a", &"a".repeat(16)));
            word_level(&format!(r#""decoder": {},"#, sequence("decoders", &all, 1)))
        }),
        (
            "blanks that take blanks along",
            word_level(
                r#""added_tokens": [{"id": 32, "content": " ", "single_word": false, "lstrip": false, "rstrip": true, "normalized": false, "special": false}],"#,
            ),
        ),
        ("a text for a vocabulary", format!(r#"{{"model": {{"vocab": "{long}{long}"}}}}"#)),
        ("a long type", format!(r#"{{"model": {{"type": "{long}{long}", "vocab": {{}}}}}}"#)),
        ("a long token", word_level(&added(1, 2 << 20))),
        ("a text without an end", format!(r#"{{"model": {{"type": "{long}{long}"#)),
        ("a long replacement", word_level(&format!(r#""normalizer": {},"#, replace("a", &long)))),
        (
            "deep sequences",
            word_level(
                &format!(
                    r#""normalizer": {}{}{},"#,
                    r#"{"type": "Sequence", "normalizers": ["#.repeat(100),
                    r#"{"type": "NFC"}"#,
                    "]}".repeat(100)
                )
                .replace("\"NFC\"", "\"NFX\""),
            ),
        ),
        ("a backtracking pattern", word_level(&split("(?=(a*)*b)x"))),
        ("a quadratic pattern", word_level(&split("a*b|a"))),
        ("a large pattern", word_level(&split(r"(?:\\w{1000}){1000}"))),
        (
            "a long prefix",
            word_level(&format!(r#""normalizer": {{"type": "Prepend", "prepend": "{long}"}},"#)),
        ),
        ("a fixed length of 0", word_level(r#""pre_tokenizer": {"type": "FixedLength", "length": 0},"#)),
        (
            "a stripped end",
            word_level(r#""decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 1000},"#),
        ),
        (
            "long words",
            model(
                r#""type": "WordPiece", "continuing_subword_prefix": "", "max_input_chars_per_word": 1099511627776"#,
            ),
        ),
        (
            "a long unknown token",
            model(r#""type": "BPE", "merges": []"#)
                .replace("\"unk_token\": \"[UNK]\"", &format!("\"unk_token\": \"{long}\"")),
        ),
        ("a long suffix", model(&format!(r#""type": "BPE", "merges": [], "end_of_word_suffix": "{long}""#))),
        (
            "a merge without its prefix",
            model(r#""type": "BPE", "merges": ["a b"], "continuing_subword_prefix": "++++""#),
        ),
        (
            "a merge within a character",
            model("\"type\": \"BPE\", \"merges\": [\"a \u{e9}\"], \"continuing_subword_prefix\": \"#\""),
        ),
        ("a Unigram model", model(r#""type": "Unigram", "unk_id": 4294967295"#)),
        ("two tokens of an id", word_level("").replace("\"b\": 1", "\"b\": 0")),
        ("a token twice", word_level("").replace("\"b\": 1", "\"a\": 1")),
        ("a large id", word_level("").replace("\"b\": 1", "\"b\": 4294967295")),
        ("many added tokens", word_level(&added(5000, 1))),
        ("long added tokens", word_level(&added(100, 10_000))),
        (
            "added tokens of which nothing is left",
            word_level(
                r#""normalizer": {"type": "Strip", "strip_left": true, "strip_right": true}, "added_tokens": [{"id": 32, "content": " ", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false}],"#,
            ),
        ),
        (
            "a list of zeros",
            model(&format!(r#""type": "BPE", "x": 0, "merges": [{}]"#, vec!["0"; 1 << 20].join(","))),
        ),
        (
            "many merges",
            model(&format!(r#""type": "BPE", "merges": [{}]"#, vec!["\"a b\""; 1 << 20].join(","))),
        ),
        (
            "many tokens",
            word_level("").replace(
                "\"a\": 0",
                &(100..700_000).map(|n| format!("\"{n:x}\":{n}")).collect::<Vec<_>>().join(","),
            ),
        ),
        ("the largest vocabulary", {
            let tokens =
                (0..220_000 - 3).map(|n| format!("\"{n:x}\":{}", n + 3)).collect::<Vec<_>>().join(",");
            let merges = vec!["\"q r\""; 300_000].join(",");
            format!(
                r#"{{"model": {{"vocab": {{"q": 0, "r": 1, "qr": 2, {tokens}}}, "merges": [{merges}]}}}}"#
            )
        }),
        ("lists in lists", format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20))),
    ];
    for (name, json) in refused {
        let path = folder.join("tokenizer.gguf");
        std::fs::write(&path, with_tokenizer(&json)).expect("room");
        assert!(tally.case(name, &path, 0, use_model).is_none(), "{name}: accepted");
    }
    // Accepted, without what would cut, pad or change a text; and unknown parts of any size are skipped.
    let bpe = |more: &str| model(&format!(r#""type": "BPE", "merges": []{more}"#));
    for (name, json) in [
        ("truncation", word_level(r#""truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},"#)),
        ("padding", word_level(r#""padding": {"strategy": {"Fixed": 1000000000}, "direction": "Right", "pad_to_multiple_of": 1099511627776, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},"#)),
        ("dropout", bpe(r#", "dropout": 0.9"#)),
        ("a post-processor", word_level(r#""post_processor": {"type": "BertProcessing"},"#)),
        ("unknown parts", word_level(&format!(r#""x": [{}],"#, vec!["{}"; 1 << 20].join(",")))),
        ("a linear pattern", word_level(&split(r"\\s+|a+|[b-z]{1,9}"))),
        ("GPT-2's pattern", bpe("").replace("\"model\"", "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true}, \"model\"")),
        ("words of WordPiece", model(r#""type": "WordPiece", "continuing_subword_prefix": "", "max_input_chars_per_word": 200"#)),
    ] {
        let path = folder.join("tokenizer.gguf");
        std::fs::write(&path, with_tokenizer(&json)).expect("room");
        let used = tally.case(name, &path, 0, |path| {
            let model = Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
            let tokenizer = model.tokenizer()?;
            Ok((tokenizer.encode("a")?, model))
        });
        let (tokens, model) = used.unwrap_or_else(|| panic!("{name}: {}", tally.said));
        assert_eq!(tokens.first(), Some(&0), "{name}: {tokens:?}");
        for pattern in ["a", "ab ", " ", "\n", "   x", "\u{fdfa}", "a\u{301}"] {
            let text = pattern.repeat((100_000 / pattern.len()).max(1));
            let encoded = tally.case(&format!("{name}: {pattern:?}"), &path, 1000 * text.len() as u64, |_| {
                let tokenizer = model.tokenizer()?;
                let tokens = tokenizer.encode(&text)?;
                tokenizer.decode(&tokens)?;
                Ok(tokens)
            });
            assert!(encoded.is_some(), "{name}: {pattern:?}");
        }
    }
    tally
}
