//! Bounds on the likelihood, and texts of several windows.

use std::ops::ControlFlow;

use esolm::{Bound, ContextParams, Error, Estimate, ScoreParams};

use crate::golden::{Golden, LENGTH, MASK, context};
use crate::runs::ON;

fn text(length: u32) -> Vec<u32> {
    (0..length).map(|i| i * 31 % 95).collect()
}

#[test]
fn bounds_are_ordered_as_theory_predicts() {
    let model = Golden::open("tiny-B").model();
    let mut context = context(&model, ContextParams::default());
    let tokens = text(LENGTH as u32);
    // More orders can only lower the expected bound; these are the first of the same orders.
    let mut nll = |orders| {
        let params = ScoreParams { orders, random_order: true, seed: 7, ..ScoreParams::default() };
        context.score_text(&tokens, &params, ON).unwrap().nll
    };
    let (one, many) = (nll(1), nll(16));
    assert!(many < one + 16f64.ln(), "{many} {one}");
    for alpha_0 in [1.0, 0.5] {
        let params = ScoreParams { orders: 0, draws: 64, alpha_0, seed: 3, ..ScoreParams::default() };
        let Bound { diffusion, sequential } = context.score_text(&tokens, &params, ON).unwrap().bound;
        assert!(diffusion.mean > 0.0 && diffusion.standard_error > 0.0 && diffusion.mean.is_finite());
        assert_eq!(sequential.mean > 0.0, alpha_0 < 1.0);
    }
    for bad in [-1.0, 1.5, f64::NAN] {
        let params = ScoreParams { alpha_0: bad, ..ScoreParams::default() };
        assert!(context.score_text(&tokens, &params, ON).is_err());
    }
    let several = ScoreParams { orders: 2, ..ScoreParams::default() };
    assert!(matches!(context.score_text(&tokens, &several, ON), Err(Error::InvalidArgument(_))));
    for absurd in [1 << 40, usize::MAX] {
        let orders = ScoreParams { orders: absurd, random_order: true, ..ScoreParams::default() };
        let draws = ScoreParams { draws: absurd, ..ScoreParams::default() };
        for params in [orders, draws] {
            assert!(matches!(context.score_text(&tokens, &params, ON), Err(Error::InvalidArgument(_))));
        }
    }
    assert!(context.score_text(&[], &ScoreParams::default(), ON).is_err());
    assert!(context.score_text(&[MASK], &ScoreParams::default(), ON).is_err());
    assert!(context.score_order(&tokens, &[1, 2], 0).is_err());
    assert!(context.score_order(&[MASK], &[0], 0).is_err());
}

/// A short text has few orders and masks, so that averages over all of them can be computed.
#[test]
fn bounds_equal_the_averages_over_all_orders_and_masks() {
    let model = Golden::open("tiny-B").model();
    let mut context = context(&model, ContextParams { threads: 1, ..ContextParams::default() });
    let tokens = text(3);
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let sum = |logs: Vec<f64>| logs.iter().sum::<f64>();
    let likelihoods = orders.map(|order| sum(context.score_order(&tokens, &order, 0).unwrap()).exp());
    let mean = likelihoods.iter().sum::<f64>() / 6.0;
    let deviation = (likelihoods.map(|p| (p - mean).powi(2)).iter().sum::<f64>() / 6.0).sqrt();
    let spread = deviation / mean;
    assert!(spread > 0.05, "orders differ: {likelihoods:?}");
    // log of the mean over K orders: off by 4 of its deviations, and by no more than half their square on average.
    const K: usize = 2000;
    let params = ScoreParams { orders: K, random_order: true, seed: 5, ..ScoreParams::default() };
    let nll = context.score_text(&tokens, &params, ON).unwrap().nll;
    let off = (nll + mean.ln()).abs();
    assert!(off < 4.0 * spread / (K as f64).sqrt(), "{nll}, not {}", -mean.ln());
    // With one order, the result is the likelihood in that order; the seed picks it.
    let mut seen = [0; 6];
    for seed in 0..60 {
        let params = ScoreParams { orders: 1, random_order: true, seed, ..ScoreParams::default() };
        let score = context.score_text(&tokens, &params, ON).unwrap();
        let which = likelihoods.iter().position(|p| (p.ln() + score.nll).abs() < 1e-9).unwrap();
        seen[which] += 1;
    }
    assert!(seen.iter().all(|&times| times > 0), "{seen:?}");

    // With k of 3 tokens known, in random order: losses by k, all unknown at once and one by one from left to right.
    let mut losses = |known: usize| {
        let each = orders.map(|mut order| {
            let masked = -sum(context.score_masked(&tokens, &order, known).unwrap());
            order[known..].sort_unstable();
            (masked, -sum(context.score_order(&tokens, &order, known).unwrap()))
        });
        let mean = |part: fn(&(f64, f64)) -> f64| each.iter().map(part).sum::<f64>() / 6.0;
        (mean(|l| l.0), mean(|l| l.1))
    };
    let losses = [losses(0), losses(1), losses(2), (0.0, 0.0)];
    let binomial = |k: usize, alpha: f64| {
        [1.0, 3.0, 3.0, 1.0][k] * alpha.powi(k as i32) * (1.0 - alpha).powi(3 - k as i32)
    };
    for alpha_0 in [1.0, 0.5] {
        // The integral over t by the middle of 2000 slices.
        let at = |t: f64| {
            let alpha = alpha_0 * (1.0 - 0.999 * t);
            let mean: f64 = (0..4).map(|k| binomial(k, alpha) * losses[k].0).sum();
            alpha_0 * 0.999 / (1.0 - alpha) * mean
        };
        let diffusion = (0..2000).map(|i| at((f64::from(i) + 0.5) / 2000.0)).sum::<f64>() / 2000.0;
        let sequential: f64 = (0..4).map(|k| binomial(k, alpha_0) * losses[k].1).sum();
        let params = ScoreParams { orders: 0, draws: 2000, alpha_0, seed: 3, ..ScoreParams::default() };
        let bound = context.score_text(&tokens, &params, ON).unwrap().bound;
        for (found, expected) in [(bound.diffusion, diffusion), (bound.sequential, sequential)] {
            let off = (found.mean - expected).abs();
            assert!(off <= 4.0 * found.standard_error + 1e-9, "{alpha_0}: {found:?}, not {expected}");
            assert!(found.standard_error < 0.05 * expected.max(1.0), "{found:?} would let anything pass");
        }
    }
}

#[test]
fn bound_without_diffusion_is_the_left_to_right_likelihood() {
    let model = Golden::open("tiny-B").model();
    let mut context = context(&model, ContextParams::default());
    let params = ScoreParams { draws: 2, alpha_0: 0.0, ..ScoreParams::default() };
    let score = context.score_text(&text(40), &params, ON).unwrap();
    assert_eq!(score.bound.total(), Estimate { mean: score.nll, standard_error: 0.0 });
    assert!((score.nll + score.tokens.iter().sum::<f64>()).abs() < 1e-9);
}

#[test]
fn long_text_is_scored_in_windows_and_can_be_cancelled() {
    let model = Golden::open("tiny-B").model();
    let mut context = context(&model, ContextParams::default());
    let tokens = text(2 * LENGTH as u32 + 10);
    let mut seen = vec![];
    let whole = context.score_text(&tokens, &ScoreParams::default(), |done, all| {
        seen.push((done, all));
        ControlFlow::Continue(())
    });
    let whole = whole.unwrap();
    assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
    let mut parts = vec![];
    for window in tokens.chunks(LENGTH) {
        let order: Vec<u32> = (0..window.len() as u32).collect();
        parts.extend(context.score_order(window, &order, 0).unwrap());
    }
    assert_eq!(whole.tokens, parts);
    let stopped = context.score_text(&tokens, &ScoreParams::default(), |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
    context.cancel_token().cancel();
    let cancelled = context.score_text(&tokens, &ScoreParams::default(), ON);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    context.cancel_token().reset();
    // By place in the text, whatever the order, and each window in an order of its own.
    let random = ScoreParams { random_order: true, ..ScoreParams::default() };
    let score = context.score_text(&tokens, &random, ON).unwrap();
    assert_eq!(score.tokens.len(), tokens.len());
    assert!((score.nll + score.tokens.iter().sum::<f64>()).abs() < 1e-9);
    let twice = [&tokens[..LENGTH], &tokens[..LENGTH]].concat();
    let score = context.score_text(&twice, &random, ON).unwrap();
    assert_ne!(score.tokens[..LENGTH], score.tokens[LENGTH..]);
}
