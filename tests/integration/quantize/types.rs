//! Each type: what it costs, and that models of it run.

use std::path::Path;

use esolm::gguf::{Gguf, TensorInfo, TensorType};
use esolm::{Context, ContextParams, GenerateParams, KvType, Plan, Prompt};

use super::{Scratch, all_tensors, unpacked, wide};
use crate::reference::{Attention, Network, Random, Row, config};
use crate::replay::{largest_difference, replay_one};
use crate::runs::{diffusion, finish, open};

/// The root of the mean square of a - b, over that of a.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |d: f32| f64::from(d).powi(2);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (error / a.iter().map(|a| square(*a)).sum::<f64>()).sqrt()
}

/// The most that a type may change normally distributed weights, relative to their deviation.
fn bound(ty: TensorType) -> f64 {
    match ty {
        TensorType::F32 => 0.0,
        TensorType::F16 => 3e-4,
        TensorType::Bf16 => 2.5e-3,
        TensorType::Q8_0 => 7e-3,
        TensorType::Q6K => 0.02,
        TensorType::Q5K | TensorType::Q5_0 | TensorType::Q5_1 => 0.05,
        TensorType::Q4K | TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Iq4Nl => 0.10,
        TensorType::Q3K => 0.18,
        TensorType::Q2K => 0.33,
    }
}

/// The largest difference between the library's logits and those of the reference network with the same, unpacked
/// weights, over the logits' deviation.
fn logit_error(path: &Path, network: &Network) -> f64 {
    let length = 12;
    let order = Random(5).permutation(length);
    let rows: Vec<Row> = order.iter().map(|&p| (network.config.mask_token_id, p)).collect();
    let expected = network.logits(&rows, Attention::Causal);
    let params = ContextParams { length, threads: 1, kv_type: KvType::F32, ..ContextParams::default() };
    let mut context = Context::new(&open(path), &params).unwrap();
    let plan = Plan { known: vec![], order, counts: vec![length as u32], diffusion: 0 };
    let largest = largest_difference(&replay_one(&mut context, &plan, &vec![0; length]), &expected);
    let all: Vec<f64> = expected.concat();
    largest / (all.iter().map(|v| v * v).sum::<f64>() / all.len() as f64).sqrt()
}

#[test]
fn every_type_keeps_its_error_bound_and_generates() {
    let original = Network::random(wide(), 11);
    let scratch = Scratch::new(&original.to_gguf());
    for ty in TensorType::all() {
        let name = format!("{}.gguf", ty.name());
        let report = scratch.quantize(&name, &all_tensors(ty)).unwrap();
        assert_eq!(report.notes, Vec::<String>::new(), "{name}");
        let unpacked = unpacked(&scratch.path(&name));
        let mut worst = 0.0f64;
        for spec in original.config.tensors().unwrap() {
            let (a, b) = (&original.tensors[&spec.name], &unpacked.tensors[&spec.name]);
            match spec.dims.len() {
                1 => assert_eq!(a, b, "{name} {}", spec.name),
                _ => worst = worst.max(relative_error(a, b)),
            }
        }
        let logits = logit_error(&scratch.path(&name), &unpacked);
        println!("{:7} weights {worst:.2e} logits {logits:.2e}", ty.name());
        assert!(worst <= bound(ty), "{name}: the error {worst} is above {}", bound(ty));
        // Activations are quantized too, to 8 bits for the quantized types.
        let limit = match ty {
            TensorType::F32 => 1e-5,
            TensorType::F16 => 5e-3,
            _ => 0.15,
        };
        assert!(logits <= limit, "{name}: logits differ by {logits}");

        let model = open(&scratch.path(&name));
        let of_type = |t: &&TensorInfo| t.dims.len() > 1 && t.ty == ty;
        assert_eq!(model.tensors().iter().filter(of_type).count(), 2 + 4 * 2, "{name}");
        let params = ContextParams { threads: 1, length: 24, ..ContextParams::default() };
        let mut context = Context::new(&model, &params).unwrap();
        let generate = GenerateParams { steps: 5, alpha_0: 0.6, ..diffusion() };
        context.begin(&[Prompt::prefix(&[1, 2, 3]).unwrap()], &generate).unwrap();
        finish(&mut context);
        let mask = original.config.mask_token_id;
        assert!(context.tokens(0).unwrap().iter().all(|&t| t < mask), "{name}");
    }
}

#[test]
fn rows_of_partial_blocks_get_a_fallback_type() {
    let model = Network::random(config(2, 2), 4);
    let scratch = Scratch::new(&model.to_gguf());
    for (ty, instead) in [
        (TensorType::Q2K, TensorType::Iq4Nl),
        (TensorType::Q3K, TensorType::Iq4Nl),
        (TensorType::Q4K, TensorType::Q5_0),
        (TensorType::Q5K, TensorType::Q5_1),
        (TensorType::Q6K, TensorType::Q8_0),
    ] {
        let name = format!("{}.gguf", ty.name());
        let report = scratch.to(&name, ty);
        assert!(report.notes.iter().any(|n| n.contains("rows of 160") && n.contains(instead.name())));
        let written = std::fs::read(scratch.path(&name)).unwrap();
        let gguf = Gguf::parse(&written, &name).unwrap();
        assert_eq!(gguf.tensor("blk.1.ffn_down.weight").unwrap().ty, instead);
        let unpacked = unpacked(&scratch.path(&name));
        let error = logit_error(&scratch.path(&name), &unpacked);
        assert!(error < 0.15, "{name} {error}");
    }
}
