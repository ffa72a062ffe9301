//! Likelihoods against the authors' code, and against what generation itself reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "convert")]

use std::ops::ControlFlow;
use std::path::Path;

use esolm::convert::{Options, convert};
use esolm::{
    Bound, Context, ContextParams, Error, Estimate, GenerateParams, Kernels, KvType, LoadOptions, Model,
    Order, Plan, Prompt, Sampling, ScoreParams,
};
use safetensors::SafeTensors;

const LENGTH: usize = 64;
const MASK: u32 = 96;
/// Logits agree within 1e-4, so log-probabilities within twice that.
const EXACT: f64 = 2e-4;

struct Golden(std::path::PathBuf, Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
        Self(dir, bytes)
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let file = SafeTensors::deserialize(&self.1).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec()
    }

    fn ints(&self, name: &str) -> Vec<Vec<u32>> {
        let all: Vec<u32> = self.words(name).into_iter().map(u32::from_le_bytes).collect();
        all.chunks(LENGTH).map(<[u32]>::to_vec).collect()
    }

    fn floats(&self, name: &str) -> Vec<Vec<f32>> {
        let all: Vec<f32> = self.words(name).into_iter().map(f32::from_le_bytes).collect();
        all.chunks(LENGTH).map(<[f32]>::to_vec).collect()
    }

    fn model(&self) -> Model {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model.gguf");
        convert(&self.0.join("checkpoint.ckpt"), &out, &Options::default(), &mut |_| ()).unwrap();
        Model::open(&out, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap()
    }
}

fn context(model: &Model, params: ContextParams) -> Context {
    Context::new(model, &ContextParams { kv_type: KvType::F32, threads: 2, ..params }).unwrap()
}

/// Contexts that go through a text in different ways: in one pass, in some, in many, and step by step.
fn contexts(model: &Model) -> Vec<Context> {
    let rows = |pass_rows| context(model, ContextParams { pass_rows, ..ContextParams::default() });
    let mut all = [2 * LENGTH, 50, 5].map(rows).into_iter().collect::<Vec<_>>();
    if model.config().variant.is_causal() {
        all.push(context(model, ContextParams { kernels: Kernels::Ggml, ..ContextParams::default() }));
    }
    all
}

fn check(what: &str, found: &[f64], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = found.iter().zip(expected).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
    println!("{what}: {largest:e}");
    assert!(largest <= EXACT, "{what}: {largest}");
}

#[test]
fn any_order_likelihoods_are_the_references() {
    for model in ["tiny-B", "tiny-A"] {
        let golden = Golden::open(model);
        for context in &mut contexts(&golden.model()) {
            for name in ["aoar_full", "aoar_half", "aoar_l2r"] {
                let array = |part: &str| format!("{name}.{part}");
                let (x0, orders, logp) = (
                    golden.ints(&array("x0")),
                    golden.ints(&array("sort_idx")),
                    golden.floats(&array("logp")),
                );
                for ((x0, order), logp) in x0.iter().zip(&orders).zip(&logp) {
                    check(&format!("{model}, {name}"), &context.score_order(x0, order, 0).unwrap(), logp);
                }
            }
        }
    }
}

#[test]
fn the_sequential_loss_is_the_references() {
    for name in ["tiny-B", "tiny-A"] {
        let golden = Golden::open(name);
        for context in &mut contexts(&golden.model()) {
            let (x0, z0, orders, loss) = (
                golden.ints("rec.x0"),
                golden.ints("rec.z0"),
                golden.ints("rec.sort_idx"),
                golden.floats("rec.per_token"),
            );
            for (((x0, z0), order), loss) in x0.iter().zip(&z0).zip(&orders).zip(&loss) {
                let known = z0.iter().filter(|&&t| t != MASK).count();
                let found = context.score_order(x0, order, known).unwrap();
                let expected: Vec<f32> = loss[known..].iter().map(|l| -l).collect();
                check(&format!("{name}, {known} known"), &found, &expected);
            }
        }
    }
}

#[test]
fn the_diffusion_loss_is_the_references() {
    for name in ["tiny-B", "tiny-A"] {
        let golden = Golden::open(name);
        for context in &mut contexts(&golden.model()) {
            let (x0, xt, orders, logp) = (
                golden.ints("nll.x0"),
                golden.ints("nll.xt"),
                golden.ints("nll.sort_idx"),
                golden.floats("nll.logp"),
            );
            for (((x0, xt), order), logp) in x0.iter().zip(&xt).zip(&orders).zip(&logp) {
                let known = xt.iter().filter(|&&t| t != MASK).count();
                check(name, &context.score_masked(x0, order, known).unwrap(), &logp[known..]);
            }
        }
    }
}

#[test]
fn mdlms_and_ars_losses_are_the_references() {
    let golden = Golden::open("mdlm-tiny");
    let mut context = context(&golden.model(), ContextParams::default());
    let (x0, xt) = (golden.ints("nll.x0"), golden.ints("nll.xt"));
    let (weight, loss) = (golden.words("nll.weight"), golden.floats("nll.per_token"));
    for (i, (x0, xt)) in x0.iter().zip(&xt).enumerate() {
        let (mut order, masked): (Vec<u32>, Vec<u32>) =
            (0..LENGTH as u32).partition(|&p| xt[p as usize] != MASK);
        let known = order.len();
        order.extend(&masked);
        let weight = f64::from(f32::from_le_bytes(weight[i]));
        let found: Vec<f64> =
            context.score_masked(x0, &order, known).unwrap().iter().map(|l| l * weight).collect();
        let expected: Vec<f32> = masked.iter().map(|&p| loss[i][p as usize]).collect();
        // The weight multiplies the difference.
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(largest <= EXACT * weight.abs().max(1.0), "{largest}");
    }
    assert!(matches!(context.score_order(&x0[0], &[0], 0), Err(Error::Unsupported(_))));

    let golden = Golden::open("ar-tiny");
    for context in &mut contexts(&golden.model()) {
        let order: Vec<u32> = (0..LENGTH as u32).collect();
        for (x0, loss) in golden.ints("nll.x0").iter().zip(&golden.floats("nll.per_token")) {
            let expected: Vec<f32> = loss.iter().map(|l| -l).collect();
            check("AR", &context.score_order(x0, &order, 0).unwrap(), &expected);
        }
        assert!(matches!(context.score_masked(&[1], &[0], 0), Err(Error::Unsupported(_))));
    }
}

#[test]
fn a_samples_score_is_what_its_generation_saw() {
    let model = Golden::open("tiny-B").model();
    let mut context = context(&model, ContextParams::default());
    for (name, order) in [
        ("random", (0..LENGTH as u32).map(|i| i * 37 % 64).collect::<Vec<_>>()),
        ("left to right", (0..LENGTH as u32).collect()),
        ("strided", (0..LENGTH as u32).map(|i| i % 8 * 8 + i / 8).collect()),
    ] {
        let known = 3;
        let plan = Plan {
            known: vec![4, 5, 6],
            order: order.clone(),
            counts: vec![1; LENGTH - known],
            diffusion: LENGTH - known,
        };
        context.begin_planned(&[plan], Sampling::default(), 5).unwrap();
        let mut reported = vec![];
        let mut draws = 0..;
        while context
            .step_choosing(|sampler, choice| {
                let uniform = f64::from(draws.next().unwrap() * 7919 % 1000) / 1000.0;
                let token = sampler.draw(choice.logits, &Sampling::default(), uniform)?;
                let others = choice.logits.iter().enumerate().filter(|&(t, _)| t != MASK as usize);
                let sum: f64 = others.map(|(_, &l)| f64::from(l).exp()).sum();
                reported.push(f64::from(choice.logits[token as usize]) - sum.ln());
                Ok(token)
            })
            .unwrap()
            .is_some()
        {}
        let tokens = context.tokens(0).unwrap().to_vec();
        let scores = context.score_order(&tokens, &order, known).unwrap();
        assert_eq!(scores.len(), reported.len());
        for (score, reported) in scores.iter().zip(&reported) {
            assert!((score - reported).abs() < 1e-5, "{name}: {score} {reported}");
        }
    }
}

/// The text that the bounds below are of.
fn text(length: u32) -> Vec<u32> {
    (0..length).map(|i| i * 31 % 95).collect()
}

const ON: fn(usize, usize) -> ControlFlow<()> = |_, _| ControlFlow::Continue(());

#[test]
fn bounds_are_ordered_as_theory_has_it() {
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

/// Orders of a short text can be counted out, and so can what random orders, times and masks average to.
#[test]
fn bounds_are_the_averages_that_they_are_defined_as() {
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
    // One order is its own likelihood; which one, the seed says.
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
fn without_diffusion_the_bound_is_the_likelihood_from_left_to_right() {
    let model = Golden::open("tiny-B").model();
    let mut context = context(&model, ContextParams::default());
    let params = ScoreParams { draws: 2, alpha_0: 0.0, ..ScoreParams::default() };
    let score = context.score_text(&text(40), &params, ON).unwrap();
    assert_eq!(score.bound.total(), Estimate { mean: score.nll, standard_error: 0.0 });
    assert!((score.nll + score.tokens.iter().sum::<f64>()).abs() < 1e-9);
}

#[test]
fn a_long_text_is_its_windows_and_can_be_stopped() {
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

#[test]
fn the_strided_order_and_its_schedule_are_the_references() {
    let golden = Golden::open("tiny-B");
    let mut context = context(&golden.model(), ContextParams::default());
    let order = Order::Strided { stride: 8, shuffle: false };
    context.begin(&[Prompt::default()], &GenerateParams { order, ..GenerateParams::default() }).unwrap();
    let mut counts = vec![];
    while let Some(step) = context.step().unwrap() {
        counts.push(step.updates.len() as u32);
    }
    assert_eq!(counts, golden.ints("samp_sub8_p09.sched").concat());
    assert_eq!(context.order(0).unwrap(), golden.ints("samp_sub8_p09.sort_idx")[0]);
}
