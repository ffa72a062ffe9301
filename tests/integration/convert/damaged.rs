//! Damaged and foreign inputs: the error names what is wrong, and no file is left behind.

use esolm::Error;
use esolm::convert::{Options, convert};
use esolm::gguf::{Gguf, TensorType};
use safetensors::tensor::Dtype;

use super::torch_save::{Saved, torch_save};
use super::{Published, converted, refused, tensors};
use crate::golden::path;
use crate::reference::Random;
use crate::runs::file_names;

#[test]
fn missing_tensor_is_named() {
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
fn extra_tensor_of_the_network_is_named() {
    for name in ["blocks.1.attn_qkv.bias", "output_layer.extra"] {
        let mut model = Published::tiny();
        model.tensors.insert(name.into(), (Dtype::F32, vec![2], vec![0; 8]));
        let error = model.error(&Options::default());
        assert!(matches!(&error, Error::BadFile { what, .. } if what.contains(name)), "{error}");
    }
}

#[test]
fn tensor_with_and_without_prefix_is_refused() {
    let mut model = Published::tiny();
    let copy = model.tensors["output_layer.linear.bias"].clone();
    model.tensors.insert("backbone.output_layer.linear.bias".into(), copy);
    let error = model.error(&Options::default()).to_string();
    assert!(error.contains("output_layer.linear.bias") && error.contains("twice"), "{error}");
}

#[test]
fn wrong_shape_is_named() {
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
fn weight_that_is_not_finite_is_named() {
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
fn weight_beyond_its_type_is_named() {
    let mut model = Published::tiny();
    model.poke("blocks.1.mlp.0.weight", 77, 1e6);
    let options = Options { tensor_type: TensorType::F16, ..Options::default() };
    let error = model.error(&options).to_string();
    assert!(error.contains("blk.1.ffn_up.weight") && error.contains("f16"), "{error}");
    converted(model.write().path(), &Options::default());
}

#[test]
fn unsupported_weight_types_are_named() {
    let mut model = Published::tiny();
    let tensor = model.tensors.get_mut("output_layer.linear.bias").unwrap();
    (tensor.0, tensor.1, tensor.2) = (Dtype::I32, vec![97], vec![0; 4 * 97]);
    let error = model.error(&Options::default()).to_string();
    assert!(error.contains("output_layer.linear.bias") && error.contains("I32"), "{error}");
}

/// A small file would become a model of any size.
#[test]
fn tensors_that_share_one_storage_are_refused_unless_tied() {
    let mut model = Published::tiny();
    let (embedding, output) = ("vocab_embed.embedding", "output_layer.linear.weight");
    let tied = model.tensors[embedding].clone();
    model.tensors.insert(output.into(), tied.clone());
    let dir = model.write();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let file = dir.path().join("pytorch_model.bin");
    let save = |first: &str, storage: Vec<u8>, shares: &dyn Fn(&str) -> bool| {
        let shape = model.tensors[first].1.clone();
        let mut entries = vec![(first.to_owned(), Saved::Tensor("FloatStorage", shape, storage))];
        for (name, tensor) in model.tensors.iter().filter(|(name, _)| *name != first) {
            let shared = || Saved::Shared(tensor.1.clone(), 0);
            entries.push((name.clone(), if shares(name) { shared() } else { Saved::weight(tensor) }));
        }
        std::fs::write(&file, torch_save(&Saved::State(entries))).unwrap();
    };
    save(embedding, tied.2, &|name| name == output);
    assert!(tensors(&converted(&file, &Options::default()).1) == tensors(&model.plain()), "tensors differ");
    let (largest, (_, _, bytes)) = model.tensors.iter().max_by_key(|(_, tensor)| tensor.2.len()).unwrap();
    save(largest, vec![0; bytes.len()], &|name| name != "rotary_emb.inv_freq");
    let error = refused(&file, &Options::default());
    assert!(matches!(&error, Error::BadFile { what, .. } if what.contains("2 times the file")), "{error}");
    // In a safetensors file no two tensors overlap.
    let one = r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#;
    let header = format!(r#"{{"a":{one},"b":{one}}}"#);
    let file = dir.path().join("shared.safetensors");
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&file, [&length, header.as_bytes(), &[0; 16]].concat()).unwrap();
    let error = refused(&file, &Options::default());
    assert!(matches!(&error, Error::BadFile { what, .. } if what.contains("offset")), "{error}");
}

#[test]
fn truncated_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (name, every) in [("checkpoint.ckpt", 40), ("model.safetensors", 60)] {
        let bytes = std::fs::read(path("tiny-B").join(name)).unwrap();
        std::fs::copy(path("tiny-B/config.json"), dir.path().join("config.json")).unwrap();
        let file = dir.path().join(name);
        let lengths = (0..every).map(|i| bytes.len() * i / every).chain([1, 2, 8, 30, bytes.len() - 1]);
        for len in lengths {
            std::fs::write(&file, &bytes[..len]).unwrap();
            refused(&file, &Options::default());
        }
    }
}

#[test]
fn no_bit_flip_crashes_or_leaves_a_partial_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(path("tiny-B/config.json"), dir.path().join("config.json")).unwrap();
    let mut random = Random(1);
    for name in ["checkpoint.ckpt", "model.safetensors"] {
        let good = std::fs::read(path("tiny-B").join(name)).unwrap();
        let (file, out) = (dir.path().join(name), tempfile::tempdir().unwrap());
        let target = out.path().join("m.gguf");
        for case in 0..120 {
            let mut bytes = good.clone();
            // By turns the zip's directory at the end, the head with pickle or header, and anywhere.
            let at = match case % 3 {
                0 => bytes.len() - 1 - random.below(4000),
                1 => random.below(20_000),
                _ => random.below(bytes.len()),
            };
            bytes[at] ^= 1 << random.below(8);
            std::fs::write(&file, &bytes).unwrap();
            match convert(&file, &target, &Options::default(), &mut |_| ()) {
                Ok(_) => {
                    Gguf::parse(&std::fs::read(&target).unwrap(), "out").unwrap();
                    std::fs::remove_file(&target).unwrap();
                }
                Err(_) => assert_eq!(file_names(out.path()), Vec::<String>::new()),
            }
        }
    }
}

#[test]
fn inputs_that_are_no_model_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(refused(&dir.path().join("none"), &Options::default()), Error::Io { .. }));
    let empty = refused(dir.path(), &Options::default());
    assert!(matches!(&empty, Error::BadFile { what, .. } if what.contains("model.safetensors")), "{empty}");
    let path = dir.path().join("prose.safetensors");
    std::fs::write(&path, "This is no model, it is prose.").unwrap();
    let error = refused(&path, &Options::default());
    assert!(error.to_string().contains("not a safetensors file"), "{error}");
    let old = dir.path().join("old.ckpt");
    std::fs::write(&old, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    let error = refused(&old, &Options::default());
    assert!(matches!(&error, Error::Unsupported(what) if what.contains("old format")), "{error}");
}
