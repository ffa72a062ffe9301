//! Folders of WeDLM and Qwen: what the mask is, and what is refused by name.

use esolm::Error;
use esolm::convert::{Options, SpecialToken};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Published, converted, refused};

/// A tokenizer of 95 words, and of a token with this name.
fn tokenizer(last: &str) -> String {
    let words = (0..95).map(|id| format!("w{id}")).chain([last.to_owned()]);
    let vocab: Map<String, Value> = words.enumerate().map(|(id, word)| (word, id.into())).collect();
    json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}})
    .to_string()
}

/// The golden WeDLM with these values in its configuration.
fn wedlm(values: Value) -> Published {
    let mut model = Published::of("wedlm-qwen25");
    model.config.as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
    model
}

/// One whose configuration does not say the mask, with this tokenizer beside it.
fn without_mask(tokenizer: &str, config: Value) -> TempDir {
    let dir = wedlm(json!({"mask_token_id": null})).write();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn mask_is_what_configuration_tokenizer_or_option_say() {
    let mask = |dir: &TempDir, options: &Options| converted(dir.path(), options).0.config.mask_token_id;
    let plain = Options::default();
    assert_eq!(mask(&wedlm(json!({})).write(), &plain), 511);
    for name in ["<|mask|>", "<|MASK|>", "[MASK]", "<mask>"] {
        assert_eq!(mask(&without_mask(&tokenizer(name), json!({})), &plain), 95, "{name}");
    }
    // What is declared counts more than a name.
    assert_eq!(mask(&without_mask(&tokenizer("<mask>"), json!({"mask_token": "w7"})), &plain), 7);
    let nowhere = without_mask(&tokenizer("last"), json!({}));
    let error = refused(nowhere.path(), &plain);
    assert!(
        matches!(&error, Error::InvalidArgument(what) if what.contains("give it with --mask-token")),
        "{error}"
    );
    let given = |token| Options { mask_token: Some(token), ..Options::default() };
    assert_eq!(mask(&nowhere, &given(SpecialToken::Id(500))), 500);
    assert_eq!(mask(&nowhere, &given(SpecialToken::Text("w9".into()))), 9);
}

#[test]
fn token_that_the_tokenizer_puts_before_texts_stands_there() {
    let converted = |kind: &str, config: Value, options: &Options| {
        let model = wedlm(json!({"model_type": kind, "mask_token_id": 95, "bos_token_id": 7}));
        let dir = model.write();
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer("last")).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let report = converted(dir.path(), options).0;
        (report.config.prepend_token_id, report.config.bos_token_id, report.config.needs_first_token)
    };
    let plain = Options::default();
    let puts = json!({"add_bos_token": true, "bos_token": "w9"});
    assert_eq!(converted("qwen2", puts.clone(), &plain), (Some(9), Some(9), false));
    let given = Options { bos: Some(SpecialToken::Id(12)), ..Options::default() };
    assert_eq!(converted("qwen2", puts.clone(), &given), (Some(12), Some(12), false));
    // A WeDLM's tokens have rows of their own.
    assert_eq!(converted("wedlm", puts, &plain), (None, Some(7), true));
    for config in [
        json!({"bos_token": "w9"}),
        json!({"add_bos_token": false, "bos_token": "w9"}),
        json!({"add_bos_token": true, "bos_token": null}),
        json!({"add_bos_token": true, "bos_token": "nowhere"}),
    ] {
        assert_eq!(converted("qwen2", config.clone(), &plain), (None, Some(7), true), "{config}");
    }
}

#[test]
fn mask_that_the_model_does_not_have_is_refused() {
    let refused = |model: Published, mask: u32| {
        let error = model.error(&Options { mask_token: Some(SpecialToken::Id(mask)), ..Options::default() });
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        error.to_string()
    };
    let other = refused(wedlm(json!({})), 3);
    assert!(other.contains("--mask-token 3") && other.contains("511"), "{other}");
    let outside = refused(wedlm(json!({"mask_token_id": null})), 512);
    assert!(outside.contains("512 tokens"), "{outside}");
    let none = refused(wedlm(json!({"model_type": "qwen2", "mask_token_id": null})), 3);
    assert!(none.contains("autoregressive"), "{none}");
    let eso = refused(Published::tiny(), 3);
    assert!(eso.contains("--mask-token 3") && eso.contains("96"), "{eso}");
}

#[test]
fn scaled_positions_and_sliding_windows_are_refused_by_name() {
    for (values, says) in [
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "yarn"),
        (json!({"rope_scaling": {"type": "linear", "factor": 4.0}}), "linear"),
        (json!({"rope_scaling": {"factor": 4}}), "'factor' 4"),
        (json!({"rope_scaling": {"mrope_section": [16, 24]}}), "mrope_section"),
        (json!({"rope_scaling": 4}), "RoPE scaling 4"),
        (json!({"rope_parameters": {"rope_theta": 1e6, "factor": 2.0}}), "'factor' 2.0"),
        // The second one counts, too.
        (
            json!({"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "dynamic"}}),
            "dynamic",
        ),
        (json!({"use_sliding_window": true}), "sliding windows"),
        (json!({"use_sliding_window": 1}), "sliding windows"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "sliding_attention"),
        (json!({"layer_types": ["linear_attention"]}), "linear_attention"),
        (json!({"layer_types": "sliding_attention"}), "sliding_attention"),
        (json!({"rope_scaling": {"rope_type": null, "type": "linear"}}), "linear"),
    ] {
        let error = wedlm(values.clone()).error(&Options::default());
        assert!(matches!(&error, Error::Unsupported(what) if what.contains(says)), "{values}: {error}");
    }
    for values in [
        json!({"rope_scaling": null, "use_sliding_window": false, "sliding_window": 32768}),
        json!({"rope_scaling": {"rope_type": "default"}, "layer_types": ["full_attention"]}),
        json!({"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}}),
        json!({"rope_parameters": {"rope_theta": 1000000.0}}),
        json!({"rope_scaling": {"rope_type": null, "factor": null}, "layer_types": null}),
    ] {
        converted(wedlm(values).write().path(), &Options::default());
    }
}
