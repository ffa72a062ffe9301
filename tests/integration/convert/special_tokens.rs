//! Tokenizers beside the weights, and the tokens that begin and end a text.

use std::path::Path;

use esolm::convert::{Options, SpecialToken, TokenizerSource};
use esolm::{Error, LoadOptions, Model, TokenizeOptions};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Published, converted, refused, tensors};
use crate::golden::path;

/// GPT-2's bytes: printable Latin-1 characters are themselves, the others are characters from U+0100 on.
fn byte_names() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    let name = |byte: u8| match printable(byte) {
        true => char::from(byte),
        false => char::from_u32(others.next().unwrap()).unwrap(),
    };
    (0..=u8::MAX).map(name).map(String::from).collect()
}

/// The merges of a small byte-level BPE. The vocabulary is that of the golden models, 96 tokens, so it has not all bytes.
const MERGES: [(&str, &str); 6] =
    [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("in", "g"), ("Ġ", "a")];

/// 96 tokens: 89 bytes, 6 merges and the end of text.
fn vocabulary() -> Map<String, Value> {
    let wanted = |name: &String| {
        name.chars().all(|c| matches!(c, '!'..='~' | 'Ġ' | 'Ċ')) && !"{}|~`^\\".contains(name.as_str())
    };
    let bytes = byte_names().into_iter().filter(wanted);
    let merged = MERGES.map(|(left, right)| format!("{left}{right}"));
    let all = bytes.chain(merged).chain(["<|endoftext|>".to_owned()]);
    all.enumerate().map(|(id, token)| (token, id.into())).collect()
}

fn merges() -> String {
    let lines = MERGES.map(|(left, right)| format!("{left} {right}\n")).concat();
    format!("#version: 0.2\n{lines}")
}

/// A `tokenizer.json` of the same tokens, with these added.
fn tokenizer_json(added: &[(u32, &str)]) -> Value {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let token = |&(id, text): &(u32, &str)| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added.iter().map(token).collect::<Vec<_>>(),
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary(),
                  "merges": MERGES.map(|(left, right)| format!("{left} {right}"))},
    })
}

/// The published tiny model with these files beside it.
fn folder(files: &[(&str, String)]) -> TempDir {
    let dir = Published::tiny().write();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn gpt2_files() -> Vec<(&'static str, String)> {
    vec![("vocab.json", Value::Object(vocabulary()).to_string()), ("merges.txt", merges())]
}

fn model(input: &Path, options: &Options) -> Model {
    Model::from_bytes(&converted(input, options).1, &LoadOptions::default()).unwrap()
}

const SPECIAL: TokenizeOptions = TokenizeOptions { parse_special: true, continues: false };

const TEXTS: [&str; 5] = [
    "the thing",
    " a king in the end;<|endoftext|>the other",
    "nothing  of  the (two)\nlines: 12,345",
    "The'll isn't there",
    "",
];

#[test]
fn vocabulary_and_merges_are_the_tokenizer_json_of_the_same_tokens() {
    assert_eq!(vocabulary().len(), 96);
    let dir = folder(&gpt2_files());
    let (report, bytes) = converted(dir.path(), &Options::default());
    assert_eq!(report.tokenizer, TokenizerSource::Beside);
    assert_eq!((report.config.bos_token_id, report.config.eos_token_id), (Some(95), Some(95)));
    assert!(tensors(&bytes) == tensors(&Published::tiny().plain()), "tensors differ");
    let json = folder(&[("tokenizer.json", tokenizer_json(&[(95, "<|endoftext|>")]).to_string())]);
    let (made, given) = (model(dir.path(), &Options::default()), model(json.path(), &Options::default()));
    for text in TEXTS {
        let ids = made.tokenizer().unwrap().encode_with(text, &SPECIAL).unwrap();
        assert_eq!(ids, given.tokenizer().unwrap().encode_with(text, &SPECIAL).unwrap(), "{text}");
        assert_eq!(made.tokenizer().unwrap().decode(&ids).unwrap(), text);
    }
    assert_eq!(made.tokenizer().unwrap().encode_with(" the<|endoftext|>", &SPECIAL).unwrap(), [91, 95]);
    // `tokenizer.json` goes first, and one of them alone is none.
    let both = folder(&[gpt2_files(), vec![("tokenizer.json", "{".into())]].concat());
    assert!(matches!(refused(both.path(), &Options::default()), Error::BadFile { .. }));
    let alone = folder(&gpt2_files()[..1]);
    assert_eq!(converted(alone.path(), &Options::default()).0.tokenizer, TokenizerSource::None);
}

/// A tokenizer of Python alone (not `tokenizers.Tokenizer`) is in the checkpoint as a class that cannot be read.
#[test]
fn files_beside_a_checkpoint_are_read_where_its_own_tokenizer_is_slow() {
    let mut checkpoint = std::fs::read(path("tiny-B/checkpoint.ckpt")).unwrap();
    let class = b"ctokenizers\nTokenizer\n";
    let at = checkpoint.windows(class.len()).position(|bytes| bytes == class).unwrap();
    checkpoint[at + 1] = b'T';
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("checkpoint.ckpt");
    std::fs::write(&input, checkpoint).unwrap();
    let (report, _) = converted(&input, &Options::default());
    assert_eq!(report.tokenizer, TokenizerSource::None);
    for (name, content) in gpt2_files() {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let (report, bytes) = converted(&input, &Options::default());
    assert_eq!((report.tokenizer, report.config.eos_token_id), (TokenizerSource::Beside, Some(95)));
    let model = Model::from_bytes(&bytes, &LoadOptions::default()).unwrap();
    assert_eq!(model.tokenizer().unwrap().encode(" the").unwrap(), [91]);
}

#[test]
fn texts_for_qwen_are_split_by_its_own_pattern() {
    let config = json!({
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {"95": {"content": "<|endoftext|>", "special": false}}
    });
    let config = ("tokenizer_config.json", config.to_string());
    let dir = folder(&[gpt2_files(), vec![config]].concat());
    let bytes = converted(dir.path(), &Options::default()).1;
    assert!(bytes.windows(15).any(|part| part == br#""special":false"#));
    let mut json = tokenizer_json(&[(95, "<|endoftext|>")]);
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split =
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes_of_it =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json["normalizer"] = json!({"type": "NFC"});
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split, bytes_of_it]});
    let json = folder(&[("tokenizer.json", json.to_string())]);
    let gpt2 = folder(&gpt2_files());
    let [made, given, gpt2] = [&dir, &json, &gpt2].map(|dir| model(dir.path(), &Options::default()));
    let encode = |model: &Model, text| model.tokenizer().unwrap().encode_with(text, &SPECIAL).ok();
    // Only one of the two composes the accent.
    const ACCENT: &str = "the e\u{301}nd";
    for text in TEXTS.into_iter().chain([ACCENT]) {
        assert_eq!(encode(&made, text), encode(&given, text), "{text}");
    }
    assert_ne!(encode(&made, ACCENT), encode(&gpt2, ACCENT));
}

#[test]
fn damaged_vocabulary_and_merges_are_named() {
    for (name, content, said) in [
        ("vocab.json", "[]", "vocab.json"),
        ("vocab.json", r#"{"a": -1}"#, "the id of 'a' is -1"),
        ("vocab.json", r#"{"a": "b"}"#, "vocab.json"),
        ("merges.txt", "t h\nthe\n", "line 2"),
        ("merges.txt", "t h e\n", "line 1"),
        ("merges.txt", "q q\n", "damaged"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
        ("added_tokens.json", r#"{"[X]": 18446744073709551615}"#, "'[X]' is 18446744073709551615"),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"4294967296": "[X]"}}"#,
            "'[X]' is 4294967296",
        ),
    ] {
        let dir = folder(&[gpt2_files(), vec![(name, content.to_owned())]].concat());
        let error = refused(dir.path(), &Options::default());
        let told = error.to_string();
        assert!(matches!(error, Error::BadFile { .. }) && told.contains(said), "{told}");
    }
}

#[test]
fn many_special_tokens_are_refused_at_once() {
    let all: Vec<String> = (0..60_000).map(|number| format!("<{number}>")).collect();
    let map = json!({ "additional_special_tokens": all }).to_string();
    let dir = folder(&[gpt2_files(), vec![("special_tokens_map.json", map)]].concat());
    let started = std::time::Instant::now();
    let told = refused(dir.path(), &Options::default()).to_string();
    assert!(told.contains("more than 4096 added tokens"), "{told}");
    // Comparing each with all took 4 s.
    assert!(started.elapsed().as_secs_f64() < 2.0, "{:?}", started.elapsed());
}

#[test]
fn declared_tokens_begin_and_end_texts() {
    let text = json!({"bos_token": "a", "eos_token": "b"}).to_string();
    let objects =
        json!({"bos_token": {"content": "a", "lstrip": false}, "eos_token": {"content": "b"}}).to_string();
    for declared in [text, objects] {
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            for tokenizer in [gpt2_files(), vec![("tokenizer.json", tokenizer_json(&[]).to_string())]] {
                let dir = folder(&[tokenizer, vec![(file, declared.clone())]].concat());
                let (report, _) = converted(dir.path(), &Options::default());
                let id = |token: &str| vocabulary()[token].as_u64().map(|id| id as u32);
                assert_eq!((report.config.bos_token_id, report.config.eos_token_id), (id("a"), id("b")));
            }
        }
    }
}

#[test]
fn options_name_the_tokens_by_text_or_id() {
    let dir = folder(&gpt2_files());
    let named = |text: &str| Some(SpecialToken::Text(text.into()));
    let options = Options {
        bos: named(" a".replace(' ', "Ġ").as_str()),
        eos: Some(SpecialToken::Id(3)),
        ..Options::default()
    };
    let (report, _) = converted(dir.path(), &options);
    assert_eq!((report.config.bos_token_id, report.config.eos_token_id), (Some(94), Some(3)));
    let error = refused(dir.path(), &Options { eos: named("nowhere"), ..Options::default() });
    assert!(
        matches!(&error, Error::InvalidArgument(what) if what.contains("--eos") && what.contains("nowhere")),
        "{error}"
    );
    let error = refused(dir.path(), &Options { bos: Some(SpecialToken::Id(97)), ..Options::default() });
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("--bos 97")), "{error}");
    // Without a tokenizer there is no text.
    let bare = path("tiny-B/model.safetensors");
    let error = refused(&bare, &Options { bos: named("a"), ..Options::default() });
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("--bos")), "{error}");
    let (report, _) = converted(&bare, &Options { bos: Some(SpecialToken::Id(5)), ..Options::default() });
    assert_eq!((report.config.bos_token_id, report.config.eos_token_id), (Some(5), None));
}

/// The authors add a `[PAD]` to GPT-2's tokens. Its number is that of the mask, which training appended.
#[test]
fn added_token_may_have_the_masks_number() {
    let added =
        json!({"added_tokens_decoder": {"95": {"content": "<|endoftext|>"}, "96": {"content": "[PAD]"}}});
    let by_role = json!({"pad_token": "[PAD]", "eos_token": "<|endoftext|>"});
    for beside in [
        [gpt2_files(), vec![("tokenizer_config.json", added.to_string())]].concat(),
        [gpt2_files(), vec![("added_tokens.json", r#"{"[PAD]": 96}"#.into())]].concat(),
        [gpt2_files(), vec![("special_tokens_map.json", by_role.to_string())]].concat(),
        vec![("tokenizer.json", tokenizer_json(&[(95, "<|endoftext|>"), (96, "[PAD]")]).to_string())],
    ] {
        let dir = folder(&beside);
        let (report, _) = converted(dir.path(), &Options::default());
        assert_eq!(report.config.mask_token_id, 96);
        assert!(report.notes.iter().any(|note| note.contains("'[PAD]'")), "{:?}", report.notes);
        let model = model(dir.path(), &Options::default());
        assert_eq!(model.tokenizer().unwrap().encode_with("a<|endoftext|>", &SPECIAL).unwrap()[1], 95);
    }
    // One more is a token that the model does not have.
    let two =
        folder(&[gpt2_files(), vec![("added_tokens.json", r#"{"[PAD]": 96, "[X]": 97}"#.into())]].concat());
    assert!(refused(two.path(), &Options::default()).to_string().contains("98 tokens"));
}
