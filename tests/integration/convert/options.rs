//! Options and configurations that do not fit the file, and how that is said.

use std::path::{Path, PathBuf};

use esolm::convert::{Options, TokenizerSource};
use esolm::{Error, Variant};
use serde_json::{Value, json};

use super::{Published, converted, refused};
use crate::golden::path;

#[test]
fn raw_weights_of_safetensors_are_refused() {
    let raw = Options { raw_weights: true, ..Options::default() };
    let error = refused(&path("tiny-B/model.safetensors"), &raw).to_string();
    assert!(error.contains("--raw-weights"), "{error}");
}

#[test]
fn options_missing_from_a_bare_config_are_named() {
    let mut bare = Published::tiny();
    bare.config = serde_json::from_slice(&std::fs::read(path("tiny-B/config.bare.json")).unwrap()).unwrap();
    let error = bare.error(&Options { context_length: Some(64), ..Options::default() });
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("--variant")), "{error}");
    let error = bare.error(&Options { variant: Some(Variant::EsoB), ..Options::default() });
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("--length")), "{error}");
    bare.tensors.remove("rotary_emb.inv_freq").unwrap();
    let options = Options { variant: Some(Variant::EsoB), context_length: Some(64), ..Options::default() };
    let error = bare.error(&options);
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("--heads")), "{error}");
    let dir = bare.write();
    let (report, _) = converted(dir.path(), &Options { head_count: Some(4), ..options });
    assert_eq!(report.config.head_count, 4);
}

#[test]
fn config_that_contradicts_the_tensors_is_named() {
    for (key, value) in [("n_blocks", 2), ("hidden_size", 128), ("cond_dim", 64), ("n_heads", 8)] {
        let mut model = Published::tiny();
        model.config["model"][key] = value.into();
        let error = model.error(&Options::default());
        assert!(matches!(error, Error::BadFile { .. }), "{key}: {error}");
        let said = error.to_string();
        let name = if key == "n_heads" { "number of heads" } else { key };
        let alternative = if key == "hidden_size" { "hidden_dim" } else { name };
        assert!(said.contains(name) || said.contains(alternative), "{key}: {said}");
        assert!(said.contains(&value.to_string()), "{key}: {said}");
    }
    let mut model = Published::tiny();
    model.config["vocab_size"] = 98.into();
    assert!(model.error(&Options::default()).to_string().contains("vocab_size"));
}

#[test]
fn options_that_contradict_the_file_are_named() {
    let model = Published::tiny();
    for (options, name) in [
        (Options { variant: Some(Variant::Mdlm), ..Options::default() }, "--variant mdlm"),
        (Options { head_count: Some(8), ..Options::default() }, "--heads 8"),
        (Options { context_length: Some(65), ..Options::default() }, "--length 65"),
    ] {
        let error = model.error(&options);
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(name)), "{error}");
    }
}

#[test]
fn time_conditioning_is_refused() {
    for value in [json!(true), json!("yes"), json!(1)] {
        let mut model = Published::tiny();
        model.config["algo"]["time_conditioning"] = value;
        let error = model.error(&Options::default());
        assert!(matches!(&error, Error::Unsupported(what) if what.contains("time_conditioning")), "{error}");
    }
}

/// A `tokenizer.json` of this many words.
fn tokenizer(dir: &Path, words: usize) -> PathBuf {
    let vocab: serde_json::Map<String, Value> = (0..words).map(|i| (format!("w{i}"), i.into())).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    let path = dir.join("given.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}

#[test]
fn given_tokenizer_must_fit_the_model() {
    let dir = tempfile::tempdir().unwrap();
    for (words, fits) in [(96, true), (97, true), (95, false), (98, false), (1, false)] {
        let tokenizer = Some(tokenizer(dir.path(), words));
        let options = Options { tokenizer, ..Options::default() };
        if fits {
            let (report, _) = converted(&path("tiny-B/checkpoint.ckpt"), &options);
            assert_eq!(report.tokenizer, TokenizerSource::Given);
            continue;
        }
        let error = refused(&path("tiny-B/checkpoint.ckpt"), &options);
        let said = error.to_string();
        assert!(matches!(&error, Error::BadFile { file, .. } if file.ends_with("given.json")), "{said}");
        assert!(said.contains(&format!("{words} tokens")) && said.contains("97"), "{said}");
    }
    let broken = dir.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    let options = Options { tokenizer: Some(broken), ..Options::default() };
    let error = refused(&path("tiny-B/checkpoint.ckpt"), &options);
    assert!(matches!(&error, Error::BadFile { file, .. } if file.ends_with("broken.json")), "{error}");
    let (said, cause) = (error.to_string(), std::error::Error::source(&error).unwrap().to_string());
    assert_eq!(said.matches(&cause).count(), 1, "{said}");
}
