//! The losses of the default model on held-out stories, against those of a network written in NumPy.
//!
//! `tests/heldout/stories.txt` was written for this project, so no model has seen it. `tests/heldout/losses.py` says how
//! the numbers of `losses.json` are computed, which share nothing with esolm but the model file.

use std::path::{Path, PathBuf};

use esolm::gguf::TensorType;
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{Context, ContextParams, KvType, Model, ScoreParams};
use serde_json::Value;

use crate::runs::{ON, default_model, open};

/// Nats of a window of 256 tokens: the same weights in f32, products in f32 against f64.
const EXACT: f64 = 3e-4;

/// The same with activations rounded to 8 bits and keys and values in f16.
const ROUNDED: f64 = 2.0;

/// Two-sided 6e-5 for each of two comparisons.
const DEVIATIONS: f64 = 4.0;

fn heldout(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heldout").join(file)
}

fn reference() -> Value {
    serde_json::from_str(&std::fs::read_to_string(heldout("losses.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn tokens(model: &Model) -> Vec<u32> {
    let text = std::fs::read_to_string(heldout("stories.txt")).unwrap();
    // The stories are divided by the end-of-text token, written out.
    model.tokenizer().unwrap().encode_corpus(&text).unwrap()
}

/// The loss of each window from left to right, and that of its second half in one step of diffusion.
fn losses(model: &Model, kv_type: KvType) -> [Vec<f64>; 2] {
    let mut context = Context::new(model, &ContextParams { kv_type, ..ContextParams::default() }).unwrap();
    let (mut in_order, mut masked) = (vec![], vec![]);
    for window in tokens(model).chunks(context.length()) {
        let n = window.len() as u32;
        let mut order: Vec<u32> = (0..n).collect();
        in_order.push(-context.score_order(window, &order, 0).unwrap().iter().sum::<f64>());
        order.iter_mut().for_each(|place| *place = *place * 37 % n);
        let found = context.score_masked(window, &order, window.len() / 2).unwrap();
        masked.push(-found.iter().sum::<f64>());
    }
    [in_order, masked]
}

/// Compares each window.
fn check(what: &str, found: &[Vec<f64>; 2], expected: &Value, tolerance: f64) {
    for (found, part) in found.iter().zip(["left_to_right", "masked"]) {
        let expected = numbers(&expected[part]);
        assert_eq!(found.len(), expected.len());
        assert!(expected.len() > 20);
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let [sum, of_reference] = [found, &expected].map(|losses| losses.iter().sum::<f64>());
        println!(
            "{what}, {part}: {sum:.1} nats, the reference's {of_reference:.1}; at most {largest:.1e} off"
        );
        assert!(largest < tolerance, "{what}, {part}: {largest}");
    }
}

#[test]
fn default_model_has_the_reference_losses_on_held_out_stories() {
    let (file, reference) = (default_model(), reference());
    let rounded = open(&file);
    let ids: Vec<u32> = numbers(&reference["tokens"]).iter().map(|&token| token as u32).collect();
    assert_eq!(tokens(&rounded), ids);
    let dir = tempfile::tempdir().unwrap();
    let exact = dir.path().join("exact.gguf");
    quantize(&file, &exact, &QuantizeOptions::new(TensorType::F32), &mut |_| ()).unwrap();
    check("f32", &losses(&open(&exact), KvType::F32), &reference["file"], EXACT);
    let found = losses(&rounded, KvType::F16);
    check("q8_0", &found, &reference["file"], ROUNDED);
    check("q8_0 against the checkpoint", &found, &reference["checkpoint"], ROUNDED);
    check("q8_0, and keys and values", &losses(&rounded, KvType::Q8_0), &reference["file"], ROUNDED);
}

#[test]
fn default_model_has_the_reference_bound_on_held_out_stories() {
    let (model, reference) = (open(&default_model()), reference());
    let mut context = Context::new(&model, &ContextParams::default()).unwrap();
    let tokens = tokens(&model);
    let params = ScoreParams { orders: 0, draws: 8, alpha_0: 0.5, seed: 1, ..ScoreParams::default() };
    let bound = context.score_text(&tokens, &params, ON).unwrap().bound;
    for (part, found) in [("diffusion", bound.diffusion), ("sequential", bound.sequential)] {
        let expected = &reference["file"]["bound"][part];
        let [sum, error] = ["sum", "standard_error"].map(|name| expected[name].as_f64().unwrap());
        let error = error.hypot(found.standard_error);
        let z = (found.mean - sum) / error;
        println!("{part}: {:.1}, not {sum:.1} +- {error:.1}: {z:.2} deviations", found.mean);
        assert!(z.abs() < DEVIATIONS, "{part}: {}, not {sum} +- {error}", found.mean);
        assert!(error < 0.02 * sum, "{part}: {error} would let anything pass");
    }
}
