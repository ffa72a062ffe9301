//! What rounding activations to 8 bits in products with quantized weights does to predictions: the default model
//! against the same weights in f32.

use std::path::Path;

use esolm::gguf::TensorType;
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{Context, ContextParams, KvType, Plan};

use crate::replay::replay_one;
use crate::runs::{default_model, open};

const LENGTH: usize = 96;

/// Logits of every row of a generation in which 8, 7, .. tokens at a time are written, always the same.
fn logits(path: &Path) -> Vec<Vec<f32>> {
    let params = ContextParams { length: LENGTH, kv_type: KvType::F32, ..ContextParams::default() };
    let mut context = Context::new(&open(path), &params).unwrap();
    let counts: Vec<u32> = (0..LENGTH)
        .map(|i| 8 - i as u32 % 8)
        .scan(0, |sum, n| {
            *sum += n;
            (*sum <= LENGTH as u32).then_some(n)
        })
        .collect();
    let written = counts.iter().sum::<u32>();
    let order: Vec<u32> = (0..written).map(|i| i * 5 % written).collect();
    let mut text = vec![0; order.len()];
    order.iter().zip(0..).for_each(|(&position, place)| text[position as usize] = place * 7 % 300);
    replay_one(&mut context, &Plan { known: vec![], order, counts, diffusion: 0 }, &text)
}

#[test]
fn rounding_of_activations_moves_predictions_little() {
    let file = default_model();
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
    assert!(agree + 3 >= rows, "{agree} of {rows}");
    assert!(divergence / (rows as f64) < 5e-4, "{divergence}");
}
