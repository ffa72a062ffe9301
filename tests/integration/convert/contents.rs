//! What becomes of the published files, in every form.

use esolm::convert::{Options, TokenizerSource, WeightSet};
use esolm::gguf::Gguf;
use esolm::{Config, Variant};
use serde_json::json;

use super::{Published, converted, tensors};
use crate::golden::path;

#[test]
fn checkpoint_average_equals_published_safetensors() {
    let (from_checkpoint, checkpoint) = converted(&path("tiny-B/checkpoint.ckpt"), &Options::default());
    let (published, safetensors) = converted(&path("tiny-B/model.safetensors"), &Options::default());
    assert_eq!(from_checkpoint.weights, WeightSet::Ema);
    assert_eq!(published.weights, WeightSet::AsStored);
    // Only the checkpoint has a tokenizer, which gives the BOS and EOS tokens.
    let Config { eos_token_id, bos_token_id, .. } = from_checkpoint.config;
    assert_eq!(from_checkpoint.tokenizer, TokenizerSource::Embedded);
    assert_eq!(from_checkpoint.config, Config { eos_token_id, bos_token_id, ..published.config });
    assert!(tensors(&checkpoint) == tensors(&safetensors), "tensors differ");
}

#[test]
fn raw_weights_differ_from_the_average() {
    let (_, average) = converted(&path("tiny-B/checkpoint.ckpt"), &Options::default());
    let raw = Options { raw_weights: true, ..Options::default() };
    let (report, raw) = converted(&path("tiny-B/checkpoint.ckpt"), &raw);
    assert_eq!(report.weights, WeightSet::Raw);
    let (average, raw) = (tensors(&average), tensors(&raw));
    assert_eq!(average.keys().collect::<Vec<_>>(), raw.keys().collect::<Vec<_>>());
    let equal: Vec<&String> = average.keys().filter(|name| average[*name] == raw[*name]).collect();
    assert_eq!(equal, Vec::<&String>::new(), "every tensor was trained");
}

#[test]
fn gguf_has_exactly_the_tensors_of_its_config() {
    for input in ["checkpoint.ckpt", "model.safetensors"] {
        let (report, bytes) = converted(&path("tiny-B").join(input), &Options::default());
        let gguf = Gguf::parse(&bytes, "out").unwrap();
        assert_eq!(Config::from_gguf(&gguf).unwrap(), report.config);
        let found: Vec<_> = gguf.tensors().iter().map(|t| (t.name.clone(), t.dims.clone())).collect();
        let specs = report.config.tensors().unwrap();
        let expected: Vec<_> = specs.iter().map(|s| (s.name.clone(), s.dims.clone())).collect();
        assert_eq!(found, expected);
        let parameters: usize = specs.iter().map(|s| s.dims.iter().product::<usize>()).sum();
        assert_eq!(report.parameters, parameters as u64);
    }
}

#[test]
fn bare_config_with_options_equals_the_full_one() {
    let mut bare = Published::tiny();
    bare.config = serde_json::from_slice(&std::fs::read(path("tiny-B/config.bare.json")).unwrap()).unwrap();
    let dir = bare.write();
    let options = Options { variant: Some(Variant::EsoB), context_length: Some(64), ..Options::default() };
    let (report, bytes) = converted(dir.path(), &options);
    let (full, full_bytes) = converted(&path("tiny-B/model.safetensors"), &Options::default());
    // Only the full configuration has it.
    let expected = Config { train_alpha_0: None, ..full.config.clone() };
    assert!(full.config.train_alpha_0.is_some());
    assert_eq!(report.config, expected);
    assert!(tensors(&bytes) == tensors(&full_bytes), "tensors differ");
}

#[test]
fn prefixed_keys_and_flat_configs_are_accepted() {
    let (full, full_bytes) = converted(&path("tiny-B/model.safetensors"), &Options::default());
    for width in ["hidden_size", "hidden_dim"] {
        let mut model = Published::tiny();
        let named = std::mem::take(&mut model.tensors).into_iter();
        model.tensors = named.map(|(name, tensor)| (format!("backbone.{name}"), tensor)).collect();
        model.config = json!({
            "model_type": "EsoLM", "diffusion_attn_mode": "causal", "sequential_attn_mode": "causal",
            "time_conditioning": false, "alpha_0": 0.5, "n_blocks": 3, "n_heads": 4, width: 64,
            "model_length": 64, "cond_dim": 32, "vocab_size": 97, "mask_index": 96,
        });
        let dir = model.write();
        let (report, bytes) = converted(&dir.path().join("model.safetensors"), &Options::default());
        assert_eq!(report.config, full.config, "{width}");
        assert_eq!(report.notes, full.notes, "{width}");
        assert!(tensors(&bytes) == tensors(&full_bytes), "{width}: tensors differ");
    }
}
