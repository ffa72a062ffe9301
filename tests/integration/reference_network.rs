//! The reference network is the authors': it computes the logits of `tests/golden`, for every variant.
//!
//! This also proves that folding is right: the network knows nothing of conditions, which the converter multiplies
//! into the weights.

use esolm::convert::{Options, SpecialToken};

use crate::golden::{BOS, EXACT, Golden, LENGTH, VOCAB, converted};
use crate::reference::{Attention, Network, Row};
use crate::replay::largest_difference;

fn network(golden: &Golden, raw_weights: bool) -> Network {
    let options = Options { raw_weights, bos: Some(SpecialToken::Id(BOS)), ..Options::default() };
    Network::from_gguf(&converted(&golden.path("checkpoint.ckpt"), &options))
}

/// Compares the rows from `from` on with a part of an array, which begins at its text `number`.
fn check(network: &Network, rows: &[Row], attention: Attention, golden: &[f32], number: usize, from: usize) {
    let expected: Vec<Vec<f32>> =
        golden[number * rows.len() * VOCAB..].chunks(VOCAB).take(rows.len()).map(<[f32]>::to_vec).collect();
    let difference = largest_difference(&network.logits(rows, attention)[from..], &expected[from..]);
    println!("{attention:?}: {difference:e}");
    assert!(difference <= f64::from(EXACT), "{attention:?}: {difference:e}");
}

fn rows(tokens: &[u32], positions: &[u32]) -> Vec<Row> {
    tokens.iter().copied().zip(positions.iter().copied()).collect()
}

#[test]
fn eso_b_matches_reference_logits_with_folded_weights() {
    let golden = Golden::open("tiny-B");
    let (tokens, orders) = (golden.int_rows("diff.zt"), golden.int_rows("diff.sort_idx"));
    for (array, raw_weights) in [("diff.logits", false), ("diff.logits_raw_weights", true)] {
        let network = network(&golden, raw_weights);
        assert_eq!(network.config.context_length, LENGTH);
        assert_eq!(network.config.vocab_size, VOCAB);
        let expected = golden.floats(array);
        let texts = expected.len() / (LENGTH * VOCAB);
        assert_eq!(texts, if raw_weights { 1 } else { 4 });
        assert_eq!(expected.len(), texts * LENGTH * VOCAB, "all logits are compared");
        for number in 0..texts {
            let rows = rows(&tokens[number], &orders[number]);
            check(&network, &rows, Attention::Causal, &expected, number, 0);
        }
    }
}

#[test]
fn eso_a_matches_reference_logits() {
    let golden = Golden::open("tiny-A");
    let network = network(&golden, false);
    let (tokens, orders) = (golden.int_rows("diff.zt"), golden.int_rows("diff.sort_idx"));
    let (known, expected) = (golden.ints("diff.num_clean"), golden.floats("diff.logits"));
    for (number, &known) in known.iter().enumerate() {
        let (rows, known) = (rows(&tokens[number], &orders[number]), known as usize);
        check(&network, &rows, Attention::CausalAfter(known), &expected, number, known);
    }
}

#[test]
fn mdlm_matches_reference_logits() {
    let golden = Golden::open("mdlm-tiny");
    let network = network(&golden, false);
    let (positions, expected) = ((0..LENGTH as u32).collect::<Vec<_>>(), golden.floats("logits"));
    for (number, tokens) in golden.int_rows("x").iter().enumerate() {
        check(&network, &rows(tokens, &positions), Attention::Bidirectional, &expected, number, 0);
    }
}

#[test]
fn ar_matches_reference_logits() {
    let golden = Golden::open("ar-tiny");
    let network = network(&golden, false);
    let (positions, expected) = ((0..24).collect::<Vec<_>>(), golden.floats("logits"));
    for (number, tokens) in golden.ints("prefix").chunks(24).enumerate() {
        check(&network, &rows(tokens, &positions), Attention::Causal, &expected, number, 0);
    }
}
