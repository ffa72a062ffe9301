//! What a configuration says about attention, and what becomes of it.

use esolm::convert::{Options, SpecialToken};
use esolm::gguf::Gguf;
use esolm::{Config, Error, Variant};
use serde_json::json;

use super::{Published, converted, tensors};

#[test]
fn unknown_attention_modes_are_refused_by_name() {
    for (diffusion, sequential, name) in [
        ("mixed", "mixed", "'diffusion_attn_mode' is mixed,"),
        ("mixed", "causal", "'diffusion_attn_mode' is mixed,"),
        ("mixed2", "mixed2", "'sequential_attn_mode' is mixed2"),
        ("causal", "mixed2", "'sequential_attn_mode' is mixed2"),
        ("causal", "mixed", "'mixed' (sequential)"),
        ("bidirectional", "causal", "'bidirectional' (diffusion)"),
    ] {
        let mut model = Published::of("tiny-A");
        model.config["algo"]["diffusion_attn_mode"] = json!(diffusion);
        model.config["algo"]["sequential_attn_mode"] = json!(sequential);
        // Also where the algorithm has no name.
        for algorithm in ["esolm", ""] {
            if algorithm.is_empty() {
                model.config["algo"].as_object_mut().unwrap().remove("name").unwrap();
            }
            for variant in [None, Some(Variant::EsoA)] {
                let error = model.error(&Options { variant, ..Options::default() });
                assert!(matches!(&error, Error::Unsupported(what) if what.contains(name)), "{error}");
            }
        }
    }
}

#[test]
fn settings_of_unshuffled_tokens_are_refused_by_name() {
    for name in ["keep_clean_unshuffled", "keep_masks_unshuffled"] {
        for value in [json!(true), json!("yes")] {
            let mut model = Published::tiny();
            model.config["algo"][name] = value;
            let error = model.error(&Options::default());
            assert!(matches!(&error, Error::Unsupported(what) if what.contains(name)), "{error}");
        }
        let mut model = Published::tiny();
        model.config["algo"][name] = json!(false);
        converted(model.write().path(), &Options::default());
    }
}

#[test]
fn settings_of_any_length_are_quoted_in_part() {
    for (part, name) in [
        ("algo", "name"),
        ("algo", "diffusion_attn_mode"),
        ("algo", "time_conditioning"),
        ("algo", "keep_clean_unshuffled"),
        ("model", "length"),
    ] {
        let mut model = Published::tiny();
        model.config[part][name] = json!("x".repeat(1_000_000));
        let error = model.error(&Options::default()).to_string();
        assert!(error.contains("xxx") && error.len() < 1500, "{name}: {} bytes", error.len());
    }
}

#[test]
fn eso_a_of_the_script_for_alpha_0_of_1_has_a_diffusion_phase_only() {
    let plain = Published::of("tiny-A").plain();
    let mut model = Published::of("tiny-A");
    model.config["algo"]["sequential_attn_mode"] = json!("causal");
    model.config["algo"]["alpha_0"] = json!(1.0);
    let (report, bytes) = converted(model.write().path(), &Options::default());
    assert!(report.config.diffusion_only && !report.config.has_sequential_phase());
    assert!(report.notes.iter().any(|note| note.contains("diffusion phase alone")), "{:?}", report.notes);
    assert!(tensors(&bytes) == tensors(&plain), "tensors differ");
    let written = Config::from_gguf(&Gguf::parse(&bytes, "out").unwrap()).unwrap();
    assert_eq!(written, report.config);
    // A file without the key has both phases.
    let plain = Gguf::parse(&plain, "plain").unwrap();
    assert!(plain.get("esolm.diffusion_only").is_none());
    assert!(Config::from_gguf(&plain).unwrap().has_sequential_phase());
}

#[test]
fn ar_without_a_token_before_the_text_says_so() {
    let mut model = Published::of("ar-tiny");
    model.config["algo"]["prepend_token"] = json!("none");
    let (report, bytes) = converted(model.write().path(), &Options::default());
    assert_eq!((report.config.needs_first_token, report.config.prepend_token_id), (true, None));
    assert!(report.notes.iter().any(|note| note.contains("has to be given")), "{:?}", report.notes);
    let written = Config::from_gguf(&Gguf::parse(&bytes, "out").unwrap()).unwrap();
    assert_eq!(written, report.config);
    // One that reads no mask, and one that has it before its texts.
    let masked = Options {
        mask_token: Some(SpecialToken::Id(90)),
        bos: Some(SpecialToken::Id(1)),
        ..Options::default()
    };
    for prepend in ["none", "bos"] {
        model.config["algo"]["prepend_token"] = json!(prepend);
        let error = model.error(&masked);
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        assert!(error.to_string().starts_with("--mask-token: "), "{error}");
    }
    model.config["algo"]["prepend_token"] = json!("mask");
    let (report, _) = converted(model.write().path(), &masked);
    assert_eq!((report.config.mask_token_id, report.config.prepend_token_id), (90, Some(90)));
    model.config["algo"]["prepend_token"] = json!("eos");
    let error = model.error(&Options::default()).to_string();
    assert!(error.contains("not bos, mask or none"), "{error}");
}
