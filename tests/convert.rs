//! The converter: what becomes of the reference's files, in every form, and what is refused and how it is said.
#![cfg(feature = "convert")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use esolm::Error;
use esolm::config::{Config, Variant};
use esolm::convert::{Options, Report, TokenizerSource, Weights, convert};
use esolm::gguf::{Gguf, TensorType};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B").join(file)
}

/// Converts `input` to a file in a directory of its own and hands back its bytes.
fn converted(input: &Path, options: &Options) -> (Report, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let report = convert(input, &out, options, &mut |_| ()).unwrap();
    assert_eq!(report.bytes, std::fs::metadata(&out).unwrap().len());
    (report, std::fs::read(out).unwrap())
}

/// Every tensor of a file: its type, shape and bytes.
fn tensors(bytes: &[u8]) -> BTreeMap<String, (TensorType, Vec<usize>, Vec<u8>)> {
    let gguf = Gguf::parse(bytes, "out").unwrap();
    let one = |t: &esolm::gguf::TensorInfo| {
        (t.name.clone(), (t.ty, t.dims.clone(), bytes[t.range.clone()].to_vec()))
    };
    gguf.tensors().iter().map(one).collect()
}

/// A published model that a test changes before it is written down.
struct Published {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    config: Value,
}

impl Published {
    fn tiny() -> Self {
        let bytes = std::fs::read(golden("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .iter()
            .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
            .collect();
        let config = serde_json::from_slice(&std::fs::read(golden("config.json")).unwrap()).unwrap();
        Self { tensors, config }
    }

    /// Writes `model.safetensors` and `config.json` into a new directory.
    fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        dir
    }

    fn error(&self, options: &Options) -> Error {
        let dir = self.write();
        refused(dir.path(), options)
    }

    /// Overwrites one element of an f32 tensor.
    fn poke(&mut self, name: &str, element: usize, value: f32) {
        let data = &mut self.tensors.get_mut(name).unwrap().2;
        data[4 * element..4 * element + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The error of a conversion that has to fail, and to leave the output's directory empty.
fn refused(input: &Path, options: &Options) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let result = convert(input, &dir.path().join("model.gguf"), options, &mut |_| ());
    assert_eq!(files(dir.path()), Vec::<String>::new(), "a failure left files behind");
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

/// The names in a directory, hidden ones too.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_averaged_checkpoint_equals_the_published_file_byte_for_byte() {
    let (from_checkpoint, checkpoint) = converted(&golden("checkpoint.ckpt"), &Options::default());
    let (published, safetensors) = converted(&golden("model.safetensors"), &Options::default());
    assert_eq!(from_checkpoint.weights, Weights::Ema);
    assert_eq!(published.weights, Weights::AsStored);
    // Only the checkpoint brings a tokenizer, which knows the ends of a text.
    let Config { eos_token_id, bos_token_id, .. } = from_checkpoint.config;
    assert_eq!(from_checkpoint.tokenizer, TokenizerSource::Embedded);
    assert_eq!(from_checkpoint.config, Config { eos_token_id, bos_token_id, ..published.config });
    assert!(tensors(&checkpoint) == tensors(&safetensors), "tensors differ");
}

#[test]
fn raw_weights_differ_from_the_average() {
    let (_, average) = converted(&golden("checkpoint.ckpt"), &Options::default());
    let raw = Options { raw_weights: true, ..Options::default() };
    let (report, raw) = converted(&golden("checkpoint.ckpt"), &raw);
    assert_eq!(report.weights, Weights::Raw);
    let (average, raw) = (tensors(&average), tensors(&raw));
    assert_eq!(average.keys().collect::<Vec<_>>(), raw.keys().collect::<Vec<_>>());
    let equal: Vec<&String> = average.keys().filter(|name| average[*name] == raw[*name]).collect();
    assert_eq!(equal, Vec::<&String>::new(), "every tensor was trained");
}

#[test]
fn raw_weights_of_a_published_file_are_refused() {
    let raw = Options { raw_weights: true, ..Options::default() };
    let error = refused(&golden("model.safetensors"), &raw).to_string();
    assert!(error.contains("--raw-weights"), "{error}");
}

#[test]
fn the_file_has_exactly_the_tensors_of_its_configuration() {
    for input in ["checkpoint.ckpt", "model.safetensors"] {
        let (report, bytes) = converted(&golden(input), &Options::default());
        let gguf = Gguf::parse(&bytes, "out").unwrap();
        assert_eq!(Config::from_gguf(&gguf).unwrap(), report.config);
        let found: Vec<_> = gguf.tensors().iter().map(|t| (t.name.clone(), t.dims.clone())).collect();
        let specs = report.config.tensors();
        let expected: Vec<_> = specs.iter().map(|s| (s.name.clone(), s.dims.clone())).collect();
        assert_eq!(found, expected);
        let parameters: usize = specs.iter().map(|s| s.dims.iter().product::<usize>()).sum();
        assert_eq!(report.parameters, parameters as u64);
    }
}

#[test]
fn progress_ends_at_the_totals() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    convert(&golden("model.safetensors"), &dir.path().join("m.gguf"), &Options::default(), &mut |p| {
        seen.push(p)
    })
    .unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.tensors, last.bytes), (last.total_tensors, last.total_bytes));
    assert_eq!(seen.len(), last.total_tensors);
    assert!(seen.is_sorted_by_key(|p| p.bytes));
    assert_eq!(files(dir.path()), ["m.gguf"], "no temporary file stays after a success either");
}

#[test]
fn a_bare_configuration_with_options_equals_the_full_one() {
    let mut bare = Published::tiny();
    bare.config = serde_json::from_slice(&std::fs::read(golden("config.bare.json")).unwrap()).unwrap();
    let dir = bare.write();
    let options = Options { variant: Some(Variant::EsoB), context_length: Some(64), ..Options::default() };
    let (report, bytes) = converted(dir.path(), &options);
    let (full, full_bytes) = converted(&golden("model.safetensors"), &Options::default());
    // The one thing that only the full configuration knows.
    let expected = Config { train_alpha_0: None, ..full.config.clone() };
    assert!(full.config.train_alpha_0.is_some());
    assert_eq!(report.config, expected);
    assert!(tensors(&bytes) == tensors(&full_bytes), "tensors differ");
}

#[test]
fn what_a_bare_configuration_does_not_tell_has_to_be_given() {
    let mut bare = Published::tiny();
    bare.config = serde_json::from_slice(&std::fs::read(golden("config.bare.json")).unwrap()).unwrap();
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
fn prefixed_keys_and_flat_configurations_are_accepted() {
    let (full, full_bytes) = converted(&golden("model.safetensors"), &Options::default());
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

#[test]
fn a_configuration_that_contradicts_the_tensors_is_named() {
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

#[test]
fn a_missing_tensor_is_named() {
    for name in ["blocks.1.attn_out.weight", "sigma_map.mlp.2.bias", "output_layer.linear.bias"] {
        let mut model = Published::tiny();
        model.tensors.remove(name).unwrap();
        let error = model.error(&Options::default());
        assert!(matches!(&error, Error::BadFile { what, .. } if what.contains(name)), "{error}");
    }
    let mut model = Published::tiny();
    model.tensors.retain(|name, _| !name.starts_with("blocks.1."));
    assert!(model.error(&Options::default()).to_string().contains("block 1"));
    // Every tensor's absence is an error of some kind, but for the rotary buffer, which only repeats what
    // the configuration says.
    for name in Published::tiny().tensors.keys() {
        let mut model = Published::tiny();
        model.tensors.remove(name).unwrap();
        if name == "rotary_emb.inv_freq" {
            converted(model.write().path(), &Options::default());
        } else {
            assert!(matches!(model.error(&Options::default()), Error::BadFile { .. }), "{name}");
        }
    }
}

#[test]
fn an_extra_tensor_is_named() {
    for name in ["blocks.1.attn_qkv.bias", "something.else"] {
        let mut model = Published::tiny();
        model.tensors.insert(name.into(), (Dtype::F32, vec![2], vec![0; 8]));
        let error = model.error(&Options::default());
        assert!(matches!(&error, Error::BadFile { what, .. } if what.contains(name)), "{error}");
    }
}

#[test]
fn a_tensor_with_and_without_prefix_is_one_too_many() {
    let mut model = Published::tiny();
    let copy = model.tensors["output_layer.linear.bias"].clone();
    model.tensors.insert("backbone.output_layer.linear.bias".into(), copy);
    let error = model.error(&Options::default()).to_string();
    assert!(error.contains("output_layer.linear.bias") && error.contains("twice"), "{error}");
}

#[test]
fn a_wrong_shape_is_named() {
    for (name, shape) in [
        ("blocks.2.attn_qkv.weight", vec![64, 192]),
        ("output_layer.norm_final.weight", vec![8, 8]),
        ("blocks.0.mlp.2.weight", vec![128, 128]),
    ] {
        let mut model = Published::tiny();
        let tensor = model.tensors.get_mut(name).unwrap();
        tensor.2.resize(4 * shape.iter().product::<usize>(), 0);
        tensor.1 = shape;
        let error = model.error(&Options::default());
        assert!(matches!(&error, Error::BadFile { what, .. } if what.contains(name)), "{error}");
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for (name, element, value) in [
        ("blocks.1.mlp.0.weight", 77, f32::NAN),
        ("vocab_embed.embedding", 5, f32::INFINITY),
        ("sigma_map.mlp.0.bias", 0, f32::NAN),
        ("blocks.2.adaLN_modulation.weight", 9, f32::NEG_INFINITY),
    ] {
        let mut model = Published::tiny();
        model.poke(name, element, value);
        let error = model.error(&Options::default());
        let said = error.to_string();
        assert!(matches!(error, Error::BadFile { .. }), "{said}");
        assert!(said.contains(name) && said.contains(&format!("element {element} ")), "{said}");
    }
}

#[test]
fn a_weight_beyond_its_type_is_named() {
    let mut model = Published::tiny();
    model.poke("blocks.1.mlp.0.weight", 77, 1e6);
    let options = Options { tensor_type: TensorType::F16, ..Options::default() };
    let error = model.error(&options).to_string();
    assert!(error.contains("blk.1.ffn_up.weight") && error.contains("f16"), "{error}");
    converted(model.write().path(), &Options::default());
}

#[test]
fn weights_of_unsupported_types_are_named() {
    let mut model = Published::tiny();
    let tensor = model.tensors.get_mut("output_layer.linear.bias").unwrap();
    (tensor.0, tensor.1, tensor.2) = (Dtype::I32, vec![97], vec![0; 4 * 97]);
    let error = model.error(&Options::default()).to_string();
    assert!(error.contains("output_layer.linear.bias") && error.contains("I32"), "{error}");
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
fn a_given_tokenizer_has_to_be_the_models() {
    let dir = tempfile::tempdir().unwrap();
    for (words, fits) in [(96, true), (97, true), (95, false), (98, false), (1, false)] {
        let tokenizer = Some(tokenizer(dir.path(), words));
        let options = Options { tokenizer, ..Options::default() };
        if fits {
            let (report, _) = converted(&golden("checkpoint.ckpt"), &options);
            assert_eq!(report.tokenizer, TokenizerSource::Given);
            continue;
        }
        let error = refused(&golden("checkpoint.ckpt"), &options);
        let said = error.to_string();
        assert!(matches!(error, Error::Tokenizer(_)), "{said}");
        assert!(said.contains(&format!("{words} tokens")) && said.contains("97"), "{said}");
    }
    let broken = dir.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    let options = Options { tokenizer: Some(broken), ..Options::default() };
    let error = refused(&golden("checkpoint.ckpt"), &options);
    assert!(matches!(&error, Error::Tokenizer(what) if what.contains("broken.json")), "{error}");
}

#[test]
fn an_output_that_exists_is_only_replaced_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    std::fs::write(&out, "precious").unwrap();
    let error = convert(&golden("model.safetensors"), &out, &Options::default(), &mut |_| ()).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("model.gguf")), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    // Force does not touch it either until the new file is whole.
    let force = Options { force: true, ..Options::default() };
    let mut damaged = Published::tiny();
    damaged.poke("output_layer.linear.bias", 96, f32::NAN);
    convert(damaged.write().path(), &out, &force, &mut |_| ()).unwrap_err();
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(files(dir.path()), ["model.gguf"]);
    convert(&golden("model.safetensors"), &out, &force, &mut |_| ()).unwrap();
    assert!(std::fs::read(&out).unwrap().starts_with(b"GGUF"));
    assert_eq!(files(dir.path()), ["model.gguf"]);
    let directory = convert(&golden("model.safetensors"), dir.path(), &force, &mut |_| ()).unwrap_err();
    assert!(directory.to_string().contains("directory"), "{directory}");
}

#[test]
fn truncated_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (name, every) in [("checkpoint.ckpt", 40), ("model.safetensors", 60)] {
        let bytes = std::fs::read(golden(name)).unwrap();
        std::fs::copy(golden("config.json"), dir.path().join("config.json")).unwrap();
        let path = dir.path().join(name);
        let lengths = (0..every).map(|i| bytes.len() * i / every).chain([1, 2, 8, 30, bytes.len() - 1]);
        for len in lengths {
            std::fs::write(&path, &bytes[..len]).unwrap();
            refused(&path, &Options::default());
        }
    }
}

#[test]
fn no_byte_flip_crashes_and_none_leaves_half_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden("config.json"), dir.path().join("config.json")).unwrap();
    let mut state = 1u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for name in ["checkpoint.ckpt", "model.safetensors"] {
        let good = std::fs::read(golden(name)).unwrap();
        let (path, out) = (dir.path().join(name), tempfile::tempdir().unwrap());
        let target = out.path().join("m.gguf");
        for case in 0..120 {
            let mut bytes = good.clone();
            // By turns the zip's directory at the end, the head with pickle or header, and anywhere.
            let at = match case % 3 {
                0 => bytes.len() - 1 - next(4000),
                1 => next(20_000),
                _ => next(bytes.len()),
            };
            bytes[at] ^= 1 << next(8);
            std::fs::write(&path, &bytes).unwrap();
            match convert(&path, &target, &Options::default(), &mut |_| ()) {
                Ok(_) => {
                    Gguf::parse(&std::fs::read(&target).unwrap(), "out").unwrap();
                    std::fs::remove_file(&target).unwrap();
                }
                Err(_) => assert_eq!(files(out.path()), Vec::<String>::new()),
            }
        }
    }
}

#[test]
fn inputs_that_are_no_model_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(refused(&dir.path().join("none"), &Options::default()), Error::Io { .. }));
    assert!(matches!(refused(dir.path(), &Options::default()), Error::Io { .. }));
    let path = dir.path().join("prose.safetensors");
    std::fs::write(&path, "This is no model, it is prose.").unwrap();
    let error = refused(&path, &Options::default());
    assert!(error.to_string().contains("no safetensors file"), "{error}");
    let old = dir.path().join("old.ckpt");
    std::fs::write(&old, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    let error = refused(&old, &Options::default());
    assert!(matches!(&error, Error::Unsupported(what) if what.contains("old format")), "{error}");
}

#[test]
fn the_input_is_never_replaced_even_with_force() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("model.safetensors");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B");
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(root.join(file), dir.path().join(file)).unwrap();
    }
    for other in ["tokenizer.json", "given.json", "matrix.gguf"] {
        std::fs::write(dir.path().join(other), "{}").unwrap();
    }
    let path = |name: &str| dir.path().join(name);
    let options = esolm::convert::Options {
        force: true,
        tokenizer: Some(path("given.json")),
        importance: Some(path("matrix.gguf")),
        ..Default::default()
    };
    std::fs::create_dir(path("sub")).unwrap();
    for read in ["model.safetensors", "config.json", "tokenizer.json", "given.json", "matrix.gguf"] {
        let before = std::fs::read(path(read)).unwrap();
        for output in [path(read), dir.path().join("sub/..").join(read)] {
            for input in [weights.as_path(), dir.path()] {
                let error = esolm::convert::convert(input, &output, &options, &mut |_| ()).unwrap_err();
                assert!(error.to_string().contains("both input and output"), "{read}: {error}");
                assert!(std::fs::read(path(read)).unwrap() == before);
            }
        }
    }
}
