//! What the rounding of activations to 8 bits in the products of quantized models does to their predictions: the model
//! of this repository against the same weights in f32.
#![cfg(feature = "convert")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use esolm::convert::{QuantizeOptions, quantize};
use esolm::gguf::TensorType;
use esolm::{Context, ContextParams, KvType, LoadOptions, Model, Plan, Sampling};

const LENGTH: usize = 96;

/// Logits of every row of a generation in which 8, 7, .. tokens at a time are written, always the same.
fn logits(path: &Path) -> Vec<Vec<f32>> {
    let model = Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
    let params = ContextParams { length: LENGTH, kv_type: KvType::F32, ..ContextParams::default() };
    let mut context = Context::new(&model, &params).unwrap();
    let counts: Vec<u32> = (0..LENGTH)
        .map(|i| 8 - i as u32 % 8)
        .scan(0, |sum, n| {
            *sum += n;
            (*sum <= LENGTH as u32).then_some(n)
        })
        .collect();
    let written = counts.iter().sum::<u32>();
    let plan =
        Plan { known: vec![], order: (0..written).map(|i| i * 5 % written).collect(), counts, diffusion: 0 };
    context.begin_planned(&[plan], Sampling::default(), 1).unwrap();
    let mut all = vec![];
    let mut keep = |choice: &esolm::Choice<'_>| {
        all.push(choice.logits.to_vec());
        choice.slot as u32 * 7 % 300
    };
    while context.step_choosing(|_, choice| Ok(keep(choice))).unwrap().is_some() {}
    all
}

#[test]
fn rounding_moves_predictions_little() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fairy-q8_0.gguf");
    let dir = tempfile::tempdir().unwrap();
    let exact = dir.path().join("exact.gguf");
    quantize(&file, &exact, &QuantizeOptions::new(TensorType::F32), &mut |_| ()).unwrap();
    let (rounded, exact) = (logits(&file), logits(&exact));
    let (mut most, mut square, mut divergence, mut agree) = (0.0f32, 0.0, 0.0, 0);
    for (rounded, exact) in rounded.iter().zip(&exact) {
        let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        agree += usize::from(best(rounded) == best(exact));
        let total = |row: &[f32]| row.iter().map(|&x| f64::from(x).exp()).sum::<f64>();
        let (p, q) = (total(exact), total(rounded));
        for (&r, &e) in rounded.iter().zip(exact) {
            most = most.max((r - e).abs());
            square += f64::from(e).powi(2) / (exact.len() * LENGTH) as f64;
            let (r, e) = (f64::from(r), f64::from(e));
            divergence += e.exp() / p * ((e - p.ln()) - (r - q.ln()));
        }
    }
    let (rows, deviation) = (exact.len(), square.sqrt());
    println!(
        "{rows} rows of deviation {deviation:.2}: {most:.4} at most, divergence {:.1e}, best equal in {agree}",
        divergence / rows as f64
    );
    assert!(rows > 80);
    assert!(most > 0.0, "nothing was rounded");
    assert!(most < 0.3, "{most}");
    assert!(agree + 1 >= rows, "{agree} of {rows}");
    assert!(divergence / (rows as f64) < 2e-4, "{divergence}");
}
