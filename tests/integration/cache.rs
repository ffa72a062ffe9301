//! The K/V cache: a cached generation computes what one from scratch would, alone or in a batch, in batches of any
//! size.

use esolm::{Config, Context, ContextParams, GenerateParams, Prompt, Variant};

use crate::reference::{Attention, MASK, Network, Random, config};
use crate::replay::{Case, EXACT, cases, largest_difference, replay_cases};
use crate::runs::{context, diffusion, params, texts};

/// Between runs of the library with other batches. Measured 1.5e-6.
const SAME: f64 = 1e-5;

/// Runs cases one by one and compares them with the reference network. Returns the largest difference.
fn check_cases(contexts: &mut [Context], network: &Network, cases: &[Case], tolerance: f64) -> f64 {
    let mut largest: f64 = 0.0;
    for (number, case) in cases.iter().enumerate() {
        let expected = case.expected(network);
        for context in &mut *contexts {
            let difference = largest_difference(&replay_cases(context, &[case])[0], &expected);
            assert!(difference <= tolerance, "case {number} of {:?}: {difference:e}", network.config);
            largest = largest.max(difference);
        }
    }
    largest
}

#[test]
fn cached_logits_match_reference_network() {
    let mut largest: f64 = 0.0;
    for (number, (blocks, heads)) in [(2, 4), (3, 2)].into_iter().enumerate() {
        let network = Network::random(config(blocks, heads), 10 + number as u64);
        let model = network.model();
        let mut contexts = [0, 5, 1]
            .map(|batch_rows| Context::new(&model, &ContextParams { batch_rows, ..params(1) }).unwrap());
        largest = largest.max(check_cases(&mut contexts, &network, &cases(), EXACT));
    }
    println!("largest difference from the reference network: {largest:e}");
}

#[test]
fn widths_of_any_proportion_match_reference_network() {
    // Hidden layers narrower and much wider than the rest, and widths that are no multiples of 32.
    for (embedding_length, head_count, feed_forward_length) in [(64, 4, 8), (40, 5, 72), (64, 4, 1160)] {
        let widths = Config { embedding_length, feed_forward_length, ..config(3, head_count) };
        let network = Network::random(widths, 5);
        check_cases(&mut [context(&network.model(), 1)], &network, &cases(), 1e-3);
    }
}

/// Each step of both phases on a batch of random texts, for the variants that attend both ways.
#[test]
fn both_ways_attention_matches_reference_network() {
    let mut largest: f64 = 0.0;
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let mut random = Random(4);
        for (blocks, heads) in [(2, 4), (3, 2)] {
            let network = Network::random(Config { variant, ..config(blocks, heads) }, blocks as u64);
            let model = network.model();
            // Number of known tokens, tokens per step of the diffusion phase, length of the sequential phase.
            let shapes: [(usize, &[u32], usize); 6] = [
                (0, &[], 12),
                (7, &[], 9),
                (1, &[1], 1),
                (0, &[3, 8, 1], 10),
                (5, &[6, 1], 36),
                (33, &[2], 13),
            ];
            let cases = shapes.map(|(known, diffused, left)| match variant {
                // MDLM has no sequential phase.
                Variant::Mdlm => {
                    Case::in_phases(&mut random, known, &[diffused, &[left as u32]].concat(), &[])
                }
                _ => Case::in_phases(&mut random, known, diffused, &vec![1; left]),
            });
            let expected = cases.each_ref().map(|case| case.expected(&network));
            for batch_rows in [0, 48] {
                let params = ContextParams { batch_rows, ..params(cases.len()) };
                let mut context = Context::new(&model, &params).unwrap();
                let found = replay_cases(&mut context, &cases.each_ref());
                for ((case, found), expected) in cases.iter().zip(&found).zip(&expected) {
                    let difference = largest_difference(found, expected);
                    assert!(difference <= EXACT, "{variant:?} {:?}: {difference:e}", case.plan);
                    largest = largest.max(difference);
                }
            }
        }
    }
    println!("largest difference from the reference network: {largest:e}");
}

#[test]
fn mistakes_move_logits_by_more_than_the_tolerance() {
    // A wrong position, a wrong token before, a row less.
    let network = Network::small(Variant::EsoB, 1);
    let rows = [(3, 0), (50, 4), (7, 2), (MASK, 1)];
    let last = |rows: &[(u32, u32)]| vec![network.logits(rows, Attention::Causal).pop().unwrap()];
    for other in [
        &[(3, 0), (50, 5), (7, 2), (MASK, 1)][..],
        &[(3, 0), (51, 4), (7, 2), (MASK, 1)],
        &[(3, 0), (50, 4), (MASK, 1)],
    ] {
        assert!(largest_difference(&last(&rows), &last(other)) > 1000.0 * EXACT);
    }
    // Causal instead of bidirectional attention.
    let network = Network::small(Variant::EsoB, 2);
    let rows: Vec<(u32, u32)> = (0..6).map(|i| (i * 7, i)).collect();
    let last = |both_ways| vec![network.logits(&rows, Attention::CausalAfter(both_ways))[5].clone()];
    let difference = largest_difference(&last(0), &last(5));
    assert!(difference > 1e-2, "{difference}");
}

#[test]
fn ragged_batch_equals_its_sequences_one_by_one() {
    let model = Network::small(Variant::EsoB, 1).model();
    let cases = cases();
    let all: Vec<&Case> = cases.iter().collect();
    let mut single = context(&model, 1);
    let alone: Vec<_> = all.iter().map(|case| replay_cases(&mut single, &[case]).remove(0)).collect();
    let mut largest: f64 = 0.0;
    for batch_rows in [0, 7] {
        let params = ContextParams { batch_rows, ..params(all.len()) };
        let mut batch = Context::new(&model, &params).unwrap();
        let mut check = |numbers: &[usize]| {
            let together: Vec<&Case> = numbers.iter().map(|&n| all[n]).collect();
            for (logits, &number) in replay_cases(&mut batch, &together).iter().zip(numbers) {
                let difference = largest_difference(logits, &alone[number]);
                assert!(difference <= SAME, "sequence {number} of {numbers:?}: {difference:e}");
                largest = largest.max(difference);
            }
        };
        check(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        // Smaller batches in the same context, after larger ones.
        check(&[8, 3]);
        check(&[5]);
        check(&[2, 2, 7]);
    }
    println!("largest difference between batch and single: {largest:e}");
}

#[test]
fn thread_count_does_not_change_results() {
    // Little work: waiting threads spin, and there may be more threads than cores.
    let model = Network::small(Variant::EsoB, 1).model();
    let mut random = Random(6);
    let cases = [Case::new(&mut random, 3, &[9, 1, 4]), Case::new(&mut random, 0, &[2, 12])];
    let some: Vec<&Case> = cases.iter().collect();
    let generation = GenerateParams { length: 16, steps: 3, alpha_0: 0.9, seed: 5, ..diffusion() };
    let run = |threads| {
        let mut context = Context::new(&model, &ContextParams { threads, ..params(2) }).unwrap();
        assert_eq!(context.threads(), threads);
        let logits = replay_cases(&mut context, &some);
        (logits, texts(&mut context, &vec![Prompt::default(); 2], &generation))
    };
    let one = run(1);
    for threads in [2, 3] {
        let more = run(threads);
        assert!(more.0 == one.0, "{threads} threads: the logits differ");
        assert_eq!(more.1, one.1, "{threads} threads");
    }
}
