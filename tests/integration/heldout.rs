//! The losses of the default model on held-out text, against those of the authors' code.
//!
//! `tests/heldout/excerpt.txt` is the first 96 blocks of 256 tokens of the held-out tales (Project Gutenberg, public
//! domain in the USA), each tale followed by its end-of-text token. Of these the authors' `_loss`, on the default
//! model's weights in f32, says 4.923 nats per token at alpha_0 = 0.5, of which 2.119 are the sequential part; each
//! part is from one half of the blocks, with one draw for each.

use std::path::Path;

use esolm::{Context, ContextParams, ScoreParams};

use crate::runs::{ON, fairy, open};

const BLOCKS: usize = 96;

const SEQUENTIAL: f64 = 2.119;

const DIFFUSION: f64 = 4.923 - SEQUENTIAL;

/// Two-sided 6e-5 for each of two comparisons.
const DEVIATIONS: f64 = 4.0;

#[test]
fn default_model_has_the_reference_losses_on_held_out_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = open(&fairy());
    let text = std::fs::read_to_string(root.join("tests/heldout/excerpt.txt")).unwrap();
    let tokens = model.tokenizer().unwrap().encode(&text).unwrap();
    let mut context = Context::new(&model, &ContextParams::default()).unwrap();
    assert_eq!(tokens.len(), BLOCKS * context.length(), "the excerpt is whole blocks");
    let (mut diffusion, mut sequential) = (vec![], vec![]);
    for (block, window) in tokens.chunks(context.length()).enumerate() {
        let params =
            ScoreParams { orders: 0, draws: 1, alpha_0: 0.5, seed: block as u64, ..ScoreParams::default() };
        let bound = context.score_text(window, &params, ON).unwrap().bound;
        diffusion.push(bound.diffusion.mean / window.len() as f64);
        sequential.push(bound.sequential.mean / window.len() as f64);
    }
    for (what, losses, expected) in
        [("diffusion", diffusion, DIFFUSION), ("sequential", sequential, SEQUENTIAL)]
    {
        let n = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let variance = losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0);
        // The authors' is from half as many blocks. (That the blocks are partly the same only helps.)
        let error = (variance / n + variance / (n / 2.0)).sqrt();
        let z = (mean - expected) / error;
        println!("{what}: {mean:.4}, the authors' {expected:.4} +- {error:.4}: {z:.2} deviations");
        assert!(z.abs() < DEVIATIONS, "{what}: {mean}, not {expected} +- {error}");
        assert!(error < 0.1, "{what}: {error} would let anything pass");
    }
}
