//! The forms in which checkpoints come. Each converts to the same tensors as the plain one.

use std::path::Path;

use esolm::convert::{Options, WeightSet};
use esolm::gguf::Gguf;
use esolm::{Config, Error};
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use super::torch_save::{Saved, torch_save};
use super::{Published, converted, refused, tensors};
use crate::golden::path;

/// Checks that `input` converts to the tensors of the published tiny model. Returns the notes and the weights' kind.
fn check(input: &Path) -> (Vec<String>, WeightSet) {
    let (report, bytes) = converted(input, &Options::default());
    assert!(tensors(&bytes) == tensors(&Published::tiny().plain()), "tensors differ");
    (report.notes, report.weights)
}

/// The order in which a module registers its parameters, which decides that of the moving average.
fn in_order(model: &Published) -> Vec<&String> {
    let mut names: Vec<&String> = model.tensors.keys().collect();
    // Any order will do, but not the alphabetical one.
    names.sort_by_key(|name| name.chars().rev().collect::<String>());
    names
}

#[test]
fn wrappers_prefixes_are_removed_in_any_nesting() {
    for prefix in [
        "_orig_mod.",
        "module.",
        "_forward_module.",
        "model.",
        "backbone._orig_mod.",
        "_forward_module.module.model.backbone.",
    ] {
        let mut model = Published::tiny();
        let named = std::mem::take(&mut model.tensors).into_iter();
        model.tensors = named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        check(model.write().path());
    }
}

#[test]
fn extra_tensors_and_integers_are_left_out_with_a_note() {
    let mut model = Published::tiny();
    model.tensors.insert("metrics.total".into(), (Dtype::F32, vec![2], vec![0; 8]));
    model.tensors.insert("backbone.blocks.0.step".into(), (Dtype::I64, vec![1], vec![0; 8]));
    model.tensors.insert("is_trained".into(), (Dtype::BOOL, vec![1], vec![1]));
    let (notes, _) = check(model.write().path());
    let note = notes.iter().find(|note| note.contains("left out")).unwrap();
    for name in ["metrics.total", "blocks.0.step", "is_trained"] {
        assert!(note.contains(name), "{note}");
    }
}

/// The tiny model in shards of this many tensors, with an index.
fn sharded(model: &Published, size: usize) -> TempDir {
    let dir = model.write();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let all: Vec<_> = model.tensors.iter().collect();
    let mut map = serde_json::Map::new();
    for (number, shard) in all.chunks(size).enumerate() {
        let file = format!("model-{number:05}.safetensors");
        std::fs::write(dir.path().join(&file), Published::serialized(shard.iter().copied())).unwrap();
        map.extend(shard.iter().map(|(name, _)| ((*name).clone(), json!(file))));
    }
    write_index(dir.path(), json!({ "metadata": { "total_size": 1 }, "weight_map": map }));
    dir
}

fn write_index(dir: &Path, index: serde_json::Value) {
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_are_read_by_their_index() {
    let mut model = Published::tiny();
    model.tensors.insert("counter".into(), (Dtype::I64, vec![1], vec![0; 8]));
    for size in [1, 7, 100] {
        let dir = sharded(&model, size);
        check(dir.path());
        check(&dir.path().join("model.safetensors.index.json"));
    }
}

#[test]
fn index_that_does_not_fit_its_shards_is_refused() {
    let dir = sharded(&Published::tiny(), 20);
    let index = std::fs::read(dir.path().join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let name = "rotary_emb.inv_freq";
    let own = index["weight_map"][name].as_str().unwrap().to_owned();
    let other =
        if own.contains("00000") { own.replace("00000", "00001") } else { own.replace("00001", "00000") };
    let inside = dir.path().join("folder");
    std::fs::create_dir(&inside).unwrap();
    std::fs::copy(dir.path().join(&own), inside.join("shard.safetensors")).unwrap();
    let absolute = inside.join("shard.safetensors").display().to_string();
    for file in [
        "folder/shard.safetensors",
        "../x",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a\\b",
        "C:x",
        "a\0",
        &absolute,
        &other,
    ] {
        let mut changed = index.clone();
        changed["weight_map"][name] = json!(file);
        write_index(dir.path(), changed);
        let error = refused(dir.path(), &Options::default());
        assert!(matches!(&error, Error::BadFile { what, .. } if what.contains(name)), "{file}: {error}");
    }
    for wrong in [json!({}), json!({ "weight_map": {} }), json!({ "weight_map": { name: 3 } }), json!([])] {
        write_index(dir.path(), wrong);
        assert!(matches!(refused(dir.path(), &Options::default()), Error::BadFile { .. }));
    }
    let mut missing = index.clone();
    missing["weight_map"]["blocks.9"] = json!(own);
    write_index(dir.path(), missing);
    assert!(refused(dir.path(), &Options::default()).to_string().contains("blocks.9"));
    // No shard may be the output, either.
    write_index(dir.path(), index);
    let options = Options { force: true, ..Options::default() };
    let error =
        esolm::convert::convert(dir.path(), &dir.path().join(&own), &options, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("both input and output"), "{error}");
    check(dir.path());
}

#[test]
fn truncated_shards_are_errors() {
    let dir = sharded(&Published::tiny(), 20);
    let shard = dir.path().join("model-00001.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    for len in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&shard, &bytes[..len]).unwrap();
        refused(dir.path(), &Options::default());
    }
    std::fs::remove_file(&shard).unwrap();
    assert!(matches!(refused(dir.path(), &Options::default()), Error::Io { .. }));
}

/// The tiny model's state dictionary.
fn state(model: &Published, prefix: &str) -> Saved {
    let entry = |name: &String| (format!("{prefix}{name}"), Saved::weight(&model.tensors[name]));
    Saved::State(in_order(model).into_iter().map(entry).collect())
}

#[test]
fn bare_state_dictionaries_are_read_with_the_configuration_beside_them() {
    let model = Published::tiny();
    let dir = model.write();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    for (file, value) in [
        ("pytorch_model.bin", state(&model, "")),
        ("last.pt", state(&model, "module.backbone.")),
        ("last.pt", Saved::Dict(vec![("model", state(&model, "_orig_mod."))])),
        ("step.ckpt", Saved::Dict(vec![("step", Saved::counter()), ("module", state(&model, "model."))])),
    ] {
        let path = dir.path().join(file);
        std::fs::write(&path, torch_save(&value)).unwrap();
        let (_, weights) = check(dir.path());
        assert_eq!((check(&path).1, weights), (WeightSet::AsStored, WeightSet::AsStored));
        let raw = Options { raw_weights: true, ..Options::default() };
        assert!(refused(&path, &raw).to_string().contains("--raw-weights"));
        std::fs::remove_file(path).unwrap();
    }
    for name in ["a.pt", "b.pt"] {
        std::fs::write(dir.path().join(name), torch_save(&state(&model, ""))).unwrap();
    }
    assert!(refused(dir.path(), &Options::default()).to_string().contains("which of 2 files"));
    std::fs::write(dir.path().join("pytorch_model.bin"), torch_save(&Saved::Dict(vec![]))).unwrap();
    assert!(refused(dir.path(), &Options::default()).to_string().contains("no tensors"));
}

/// A Lightning checkpoint of the tiny model whose last weights are all zero, and whose moving average is `average`.
fn lightning(model: &Published, extra: &[(&str, Saved)], average: Saved) -> Vec<u8> {
    let mut entries = Vec::new();
    for (number, name) in in_order(model).into_iter().enumerate() {
        if let Some((name, value)) = extra.get(number) {
            let value = match value {
                Saved::Tensor(class, shape, bytes) => Saved::Tensor(class, shape.clone(), bytes.clone()),
                _ => Saved::Json(json!(true)),
            };
            entries.push(((*name).to_owned(), value));
        }
        let (_, shape, bytes) = &model.tensors[name];
        // The buffer is what it is, and has no average.
        let bytes = if name.ends_with("inv_freq") { bytes.clone() } else { vec![0; bytes.len()] };
        entries.push((
            format!("backbone._orig_mod.{name}"),
            Saved::Tensor("FloatStorage", shape.clone(), bytes),
        ));
    }
    torch_save(&Saved::Dict(vec![
        ("state_dict", Saved::State(entries)),
        ("ema", Saved::Dict(vec![("shadow_params", average)])),
    ]))
}

fn parameters(model: &Published) -> Vec<&String> {
    in_order(model).into_iter().filter(|name| !name.ends_with("inv_freq")).collect()
}

#[test]
fn moving_average_is_matched_without_buffers_and_extra_tensors() {
    let model = Published::tiny();
    let dir = model.write();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let file = dir.path().join("last.ckpt");
    let extra = || {
        [
            ("noise.steps", Saved::counter()),
            ("noise.scale", Saved::Tensor("FloatStorage", vec![2], vec![0; 8])),
            ("metrics.compute", Saved::Json(json!(true))),
            ("backbone.blocks.0.seen", Saved::counter()),
        ]
    };
    let of = |name: &&String| Saved::weight(&model.tensors[*name]);
    let list: Vec<Saved> = parameters(&model).iter().map(of).collect();
    std::fs::write(&file, lightning(&model, &extra(), Saved::List(list))).unwrap();
    let (notes, weights) = check(&file);
    assert_eq!(weights, WeightSet::Ema);
    let note = notes.iter().find(|note| note.contains("left out")).unwrap();
    assert!(note.contains("metrics.compute") && note.contains("blocks.0.seen"), "{note}");
    // With an average of the training code's own parameter, which stands behind the network's first name.
    let mut list: Vec<Saved> = parameters(&model).iter().map(of).collect();
    list.insert(1, Saved::Tensor("FloatStorage", vec![2], vec![0; 8]));
    std::fs::write(&file, lightning(&model, &extra(), Saved::List(list))).unwrap();
    assert_eq!(check(&file).1, WeightSet::Ema);
    // By name.
    let named = |name: &&String| (format!("module.backbone.{name}"), of(name));
    let named: Vec<(String, Saved)> = parameters(&model).iter().rev().map(named).collect();
    std::fs::write(&file, lightning(&model, &extra(), Saved::State(named))).unwrap();
    assert_eq!(check(&file).1, WeightSet::Ema);
    for short in [
        Saved::List(parameters(&model).iter().skip(1).map(of).collect()),
        Saved::List(parameters(&model).iter().map(of).chain([Saved::counter()]).collect()),
        Saved::State(parameters(&model).iter().skip(1).map(|name| ((*name).clone(), of(name))).collect()),
    ] {
        std::fs::write(&file, lightning(&model, &[], short)).unwrap();
        assert!(refused(&file, &Options::default()).to_string().contains("moving average"));
    }
}

/// A BD3-LM as the authors' trainer saves it (kuleshov-group/bd3lms: configs/, diffusion.py): the network's settings under
/// `model` with an `adaln` that says nothing, the block's beside them, two numbers of the trainer's own among the tensors.
#[test]
fn bd3lm_as_its_trainer_saves_it() {
    let mut model = Published::of("bd3lm-tiny");
    let plain = model.plain();
    let named = std::mem::take(&mut model.tensors).into_iter();
    let bare = |name: String| name.strip_prefix("backbone.").map_or(name.clone(), str::to_owned);
    model.tensors = named.map(|(name, tensor)| (bare(name), tensor)).collect();
    model.tensors.retain(|name, _| !name.starts_with("sampling_eps"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("last.ckpt");
    let save = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut config = json!({
            "algo": { "name": "bd3lm", "backbone": "dit", "parameterization": "subs", "time_conditioning": false, "T": 0,
                      "causal_attention": false, "ignore_bos": true, "cross_attn": true, "var_min": true },
            "model": { "hidden_size": 48, "cond_dim": 16, "length": 32, "n_blocks": 3, "n_heads": 4, "causal": false,
                       "tie_word_embeddings": true, "adaln": false, "attn_backend": "flash_attn" },
            "block_size": 4,
        });
        change(&mut config);
        let Saved::State(mut entries) = state(&model, "backbone.") else { unreachable!() };
        for name in ["sampling_eps_min", "sampling_eps_max"] {
            entries.push((name.into(), Saved::Tensor("FloatStorage", vec![], vec![0; 4])));
        }
        let average = parameters(&model).iter().map(|name| Saved::weight(&model.tensors[*name])).collect();
        let saved = Saved::Dict(vec![
            ("state_dict", Saved::State(entries)),
            ("ema", Saved::Dict(vec![("shadow_params", Saved::List(average))])),
            ("hyper_parameters", Saved::Dict(vec![("config", Saved::Json(config))])),
        ]);
        std::fs::write(&file, torch_save(&saved)).unwrap();
    };
    save(&|_| ());
    let (report, bytes) = converted(&file, &Options::default());
    assert_eq!((report.weights, report.config.block_length), (WeightSet::Ema, 4));
    assert!(tensors(&bytes) == tensors(&plain), "tensors differ");
    assert_eq!(report.config, Config::from_gguf(&Gguf::parse(&plain, "plain").unwrap()).unwrap());
    // As omegaconf keeps the default.
    save(&|config| config["block_size"] = json!("${model.length}"));
    assert_eq!(converted(&file, &Options::default()).0.config.block_length, 32);
    for (path, value, what) in [
        // What says the same elsewhere does not hide it.
        ("/model/causal_attention", json!(true), "'model.causal_attention' is true"),
        ("/causal", json!(true), "'causal' is true"),
        ("/model/cross_attn", json!(false), "'model.cross_attn' is false"),
        ("/algo/causal_attention", json!(true), "causal"),
        ("/algo/cross_attn", json!(false), "cross_attn"),
        ("/block_size", json!("${model.n_blocks}"), "block_size"),
        ("/block_size", json!(0), "block"),
    ] {
        let (parent, name) = path.rsplit_once('/').unwrap();
        save(&|config| config.pointer_mut(parent).unwrap()[name] = value.clone());
        let error = refused(&file, &Options::default()).to_string();
        assert!(error.contains(what), "{path}: {error}");
    }
}

#[test]
fn integer_in_the_place_of_a_weight_is_named() {
    let mut model = Published::tiny();
    let dir = model.write();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let name = "output_layer.linear.bias";
    model.tensors.remove(name);
    let Saved::State(mut entries) = state(&model, "") else { unreachable!() };
    entries.push((name.into(), Saved::Tensor("LongStorage", vec![97], vec![0; 8 * 97])));
    std::fs::write(dir.path().join("pytorch_model.bin"), torch_save(&Saved::State(entries))).unwrap();
    let error = refused(dir.path(), &Options::default()).to_string();
    assert!(error.contains(name) && error.contains("LongStorage"), "{error}");
}

#[test]
fn configuration_may_have_numbers_that_are_not_finite() {
    let model = Published::tiny();
    let dir = model.write();
    let config = model.config.to_string();
    let open = config.strip_prefix('{').unwrap();
    let python = format!(
        r#"{{"best": Infinity, "worst": -Infinity, "loss": [NaN], "Infinity": "NaN \" Infinity", {open}"#
    );
    std::fs::write(dir.path().join("config.json"), python).unwrap();
    check(dir.path());
    // Where a number is needed, it is refused.
    let unknown = config.replacen("\"alpha_0\":0.5", "\"alpha_0\":NaN", 1);
    assert_ne!(unknown, config);
    std::fs::write(dir.path().join("config.json"), unknown).unwrap();
    assert!(refused(dir.path(), &Options::default()).to_string().contains("alpha_0"));
}

#[test]
fn model_without_a_tokenizer_is_converted_with_a_note() {
    let (report, _) = converted(&path("tiny-B/model.safetensors"), &Options::default());
    assert!(report.notes.iter().any(|note| note.contains("--tokenizer")), "{:?}", report.notes);
    let (report, _) = converted(&path("tiny-B/checkpoint.ckpt"), &Options::default());
    assert!(!report.notes.iter().any(|note| note.contains("--tokenizer")), "{:?}", report.notes);
}
