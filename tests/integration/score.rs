//! Likelihoods against the authors' code.

use std::ops::ControlFlow;

use esolm::{
    Context, ContextParams, Error, Kernels, Model, Plan, Prompt, SamplingParams, ScoreParams, Variant,
};

use crate::golden::{Golden, LENGTH, MASK, context};
use crate::reference::Network;
use crate::runs::diffusion;

/// Logits agree within 1e-4, so log-probabilities within twice that.
const EXACT: f64 = 2e-4;

/// Contexts that process a text in different ways: in one batch, in some, in many, and with ggml's kernels.
fn contexts(model: &Model) -> Vec<Context> {
    let rows = |batch_rows| context(model, ContextParams { batch_rows, ..ContextParams::default() });
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
fn any_order_likelihoods_match_reference() {
    for model in ["tiny-B", "tiny-A"] {
        let golden = Golden::open(model);
        for context in &mut contexts(&golden.model()) {
            for name in ["aoar_full", "aoar_half", "aoar_l2r"] {
                let array = |part: &str| format!("{name}.{part}");
                let (x0, orders, logp) = (
                    golden.int_rows(&array("x0")),
                    golden.int_rows(&array("sort_idx")),
                    golden.float_rows(&array("logp")),
                );
                for ((x0, order), logp) in x0.iter().zip(&orders).zip(&logp) {
                    check(&format!("{model}, {name}"), &context.score_order(x0, order, 0).unwrap(), logp);
                }
            }
        }
    }
}

#[test]
fn sequential_loss_matches_reference() {
    for name in ["tiny-B", "tiny-A"] {
        let golden = Golden::open(name);
        for context in &mut contexts(&golden.model()) {
            let (x0, z0, orders, loss) = (
                golden.int_rows("rec.x0"),
                golden.int_rows("rec.z0"),
                golden.int_rows("rec.sort_idx"),
                golden.float_rows("rec.per_token"),
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
fn diffusion_loss_matches_reference() {
    for name in ["tiny-B", "tiny-A"] {
        let golden = Golden::open(name);
        for context in &mut contexts(&golden.model()) {
            let (x0, xt, orders, logp) = (
                golden.int_rows("nll.x0"),
                golden.int_rows("nll.xt"),
                golden.int_rows("nll.sort_idx"),
                golden.float_rows("nll.logp"),
            );
            for (((x0, xt), order), logp) in x0.iter().zip(&xt).zip(&orders).zip(&logp) {
                let known = xt.iter().filter(|&&t| t != MASK).count();
                check(name, &context.score_masked(x0, order, known).unwrap(), &logp[known..]);
            }
        }
    }
}

#[test]
fn mdlm_and_ar_losses_match_reference() {
    let golden = Golden::open("mdlm-tiny");
    let mut context = context(&golden.model(), ContextParams::default());
    let (x0, xt) = (golden.int_rows("nll.x0"), golden.int_rows("nll.xt"));
    let (weight, loss) = (golden.floats("nll.weight"), golden.float_rows("nll.per_token"));
    for (i, (x0, xt)) in x0.iter().zip(&xt).enumerate() {
        let (mut order, masked): (Vec<u32>, Vec<u32>) =
            (0..LENGTH as u32).partition(|&p| xt[p as usize] != MASK);
        let known = order.len();
        order.extend(&masked);
        let weight = f64::from(weight[i]);
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
        for (x0, loss) in golden.int_rows("nll.x0").iter().zip(&golden.float_rows("nll.per_token")) {
            let expected: Vec<f32> = loss.iter().map(|l| -l).collect();
            check("AR", &context.score_order(x0, &order, 0).unwrap(), &expected);
        }
        assert!(matches!(context.score_masked(&[1], &[0], 0), Err(Error::Unsupported(_))));
    }
}

#[test]
fn score_equals_log_softmax_of_generation_logits() {
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
        context.begin_with_plans(&[plan], SamplingParams::FULL, 5).unwrap();
        let mut reported = vec![];
        let mut draws = 0..;
        while context
            .step_with_tokens(|sampler, choice| {
                let uniform = f64::from(draws.next().unwrap() * 7919 % 1000) / 1000.0;
                let token = sampler.draw(choice.logits, &SamplingParams::FULL, uniform)?;
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

#[test]
fn scoring_ends_the_generation_and_checks_its_arguments_always() {
    for kernels in [Kernels::Own, Kernels::Ggml] {
        let model = Network::small(Variant::EsoB, 1).model();
        let mut context =
            Context::new(&model, &ContextParams { kernels, ..ContextParams::default() }).unwrap();
        let (tokens, order) = ([1, 2, 3], [2, 0, 1]);
        for known in [0, 1, 3] {
            for masked in [false, true] {
                context.begin(&[Prompt::default()], &diffusion()).unwrap();
                let mut score = |tokens: &[u32], order: &[u32]| match masked {
                    true => context.score_masked(tokens, order, known),
                    false => context.score_order(tokens, order, known),
                };
                assert_eq!(score(&tokens, &order).unwrap().len(), 3 - known);
                for (tokens, order) in [([1, 2, 3], [2, 2, 1]), ([1, 2, 3], [2, 0, 3])] {
                    assert!(
                        matches!(score(&tokens, &order), Err(Error::InvalidArgument(_))),
                        "{known} {order:?}"
                    );
                }
                assert_eq!((context.sequences(), context.progress()), (0, (0, 0)));
                assert!(context.step().unwrap().is_none());
            }
        }
    }
}

#[test]
fn scoring_a_text_by_nothing_is_refused() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = Context::new(&model, &ContextParams::default()).unwrap();
    let mut score = |orders, draws| {
        let params = ScoreParams { orders, draws, ..ScoreParams::default() };
        context.score_text(&[1, 2, 3], &params, |_, _| ControlFlow::Continue(()))
    };
    let refused = score(0, 0).unwrap_err();
    assert!(
        matches!(&refused, Error::InvalidArgument(what) if what.contains("neither orders nor draws")),
        "{refused}"
    );
    assert!(score(1, 0).unwrap().nll > 0.0);
    assert!(score(0, 8).unwrap().bound.diffusion.mean > 0.0);
}
