//! Parity with the authors' code: the reference trajectories of `tests/golden`, replayed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "convert")]

use std::path::{Path, PathBuf};

use esolm::convert::{Options, convert};
use esolm::gguf::TensorType;
use esolm::verify::{Outcome, verify};
use esolm::{KvType, LoadOptions, Model};

/// With f32 weights and f32 keys and values; the reference's own noise is 2e-5.
const EXACT: f32 = 1e-4;
/// With f16 keys and values: 11 bits of mantissa, over three blocks. Measured 1.8e-2.
const HALF_CACHE: f32 = 4e-2;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B").join(file)
}

fn model(input: &str, options: &Options) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    convert(&golden(input), &out, options, &mut |_| ()).unwrap();
    Model::open(&out, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap()
}

fn replay(model: &Model, kv: KvType) -> Vec<Outcome> {
    let outcomes = verify(model, &golden("golden.safetensors"), kv, 1).unwrap();
    let names: Vec<&str> = outcomes.iter().map(|o| o.name.as_str()).collect();
    let expected = ["samp_a05_p09", "samp_a1_p09", "samp_a1_p1", "samp_sub8_p09", "traj", "traj1", "traj1p"];
    assert_eq!(names, expected);
    outcomes
}

#[test]
fn every_trajectory_is_reproduced_from_both_forms_of_the_checkpoint() {
    for input in ["checkpoint.ckpt", "model.safetensors"] {
        for o in replay(&model(input, &Options::default()), KvType::F32) {
            println!("{input} {o:?}");
            assert!(o.largest_difference <= EXACT, "{input}: {o:?}");
            assert_eq!(o.differing, 0, "{input}: {o:?}");
            assert!(o.tokens >= 64);
        }
    }
}

#[test]
fn a_half_precision_cache_stays_close() {
    for o in replay(&model("checkpoint.ckpt", &Options::default()), KvType::F16) {
        println!("{o:?}");
        assert!(o.largest_difference <= HALF_CACHE, "{o:?}");
    }
}

#[test]
fn raw_weights_are_told_apart() {
    let options = Options { raw_weights: true, ..Options::default() };
    for o in replay(&model("checkpoint.ckpt", &options), KvType::F32) {
        assert!(o.largest_difference > 0.1, "{o:?}");
    }
}

#[test]
fn quantized_weights_are_close_but_not_equal() {
    // Bounds on the scale of the logits, whose deviation is 1.5: 11, 8 and about 8 bits of precision.
    let types = [(TensorType::F16, 1e-5, 0.1), (TensorType::Bf16, 1e-4, 1.0), (TensorType::Q8_0, 1e-4, 1.0)];
    for (ty, least, most) in types {
        let options = Options { tensor_type: ty, ..Options::default() };
        for o in replay(&model("checkpoint.ckpt", &options), KvType::F32) {
            println!("{} {o:?}", ty.name());
            let range = least..most;
            assert!(range.contains(&o.largest_difference), "{}: {o:?}", ty.name());
        }
    }
}
