//! The log-probabilities that steps report are those that scoring the text in its order finds.

use esolm::{Context, GenerateParams, Order, Prompt, SamplingParams, Schedule, Variant};

use crate::orders::{orders, prompts};
use crate::reference::{LENGTH, Network, Random};
use crate::runs::{context, diffusion};

/// Between a log-probability reported and one scored. Measured 4e-6.
const SAME: f64 = 1e-4;

/// Filters and temperature, which do not change what is reported.
const FILTERED: SamplingParams = SamplingParams { temperature: 0.8, top_p: 0.9, ..SamplingParams::FULL };

fn one_by_one(order: Order<'_>, alpha_0: f64) -> GenerateParams<'_> {
    GenerateParams {
        order,
        alpha_0,
        schedule: Schedule::Custom(&[1]),
        log_probs: true,
        seed: 8,
        sampling: FILTERED,
        ..diffusion()
    }
}

/// Runs the generation to its end, one token per step. Returns the reported log-probabilities.
fn reported(context: &mut Context) -> Vec<f64> {
    let mut reported = vec![];
    while let Some(step) = context.step().unwrap() {
        assert_eq!((step.updates.len(), step.log_probs.len()), (1, 1));
        reported.extend(step.log_probs);
    }
    reported
}

fn check_scores(scores: &[f64], reported: &[f64], what: &str) {
    assert_eq!(scores.len(), reported.len(), "{what}");
    for (score, reported) in scores.iter().zip(reported) {
        assert!((score - reported).abs() < SAME, "{what}: {score} {reported}");
    }
    let (score, sum) = (scores.iter().sum::<f64>(), reported.iter().sum::<f64>());
    assert!((score - sum).abs() < SAME && sum < -1.0, "{what}: {score} {sum}");
}

/// Scores the text in the order in which it was generated.
fn check_sample(context: &mut Context, reported: &[f64], what: &str) {
    let (tokens, order) = (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
    let scores = context.score_order(&tokens, &order, order.len() - reported.len()).unwrap();
    check_scores(&scores, reported, what);
}

#[test]
fn score_in_generation_order_equals_reported_log_probs() {
    let given = Random(7).permutation(LENGTH);
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        for order in orders(&given) {
            // (B) is the same in both phases. The diffusion phase of (A) is below.
            let (prompts, shares) = match variant {
                Variant::Ar if !matches!(order, Order::Random | Order::LeftToRight) => continue,
                Variant::Ar => (&prompts()[..2], &[0.0][..]),
                Variant::EsoA => (&prompts()[..], &[0.0][..]),
                _ => (&prompts()[..], &[1.0, 0.4, 0.0][..]),
            };
            for (prompt, &alpha_0) in prompts.iter().flat_map(|p| shares.iter().map(move |a| (p, a))) {
                let what = format!("{variant:?} {order:?} {alpha_0}");
                context.begin(std::slice::from_ref(prompt), &one_by_one(order, alpha_0)).unwrap();
                let reported = reported(&mut context);
                assert_eq!(reported.len(), LENGTH - prompt.known.len(), "{what}");
                check_sample(&mut context, &reported, &what);
            }
        }
        // Nothing is reported unless asked for.
        context.begin(&[Prompt::default()], &diffusion()).unwrap();
        assert!(context.step().unwrap().unwrap().log_probs.is_empty());
    }
}

#[test]
fn score_of_an_extended_text_equals_reported_log_probs() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        for order in [Order::Random, Order::LeftToRight] {
            let short = GenerateParams { length: 20, ..one_by_one(order, 0.5) };
            context.begin(&[Prompt::prefix(&[1, 2, 3]).unwrap()], &short).unwrap();
            let first = reported(&mut context);
            assert_eq!(first.len(), 17);
            let longer = GenerateParams { seed: 9, ..one_by_one(order, 0.5) };
            context.extend(&[Prompt::default()], &longer).unwrap();
            let whole = [first, reported(&mut context)].concat();
            check_sample(&mut context, &whole, &format!("{variant:?} {order:?}"));
        }
    }
}

/// Without a cache a token is drawn from one step of diffusion, in which its row is that of the first unknown
/// position.
#[test]
fn score_masked_equals_reported_log_probs_of_diffusion() {
    let given = Random(7).permutation(LENGTH);
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        for order in orders(&given) {
            for prompt in &prompts() {
                context.begin(std::slice::from_ref(prompt), &one_by_one(order, 1.0)).unwrap();
                let reported = reported(&mut context);
                let (tokens, order) =
                    (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
                let scores: Vec<f64> = (prompt.known.len()..LENGTH)
                    .map(|known| context.score_masked(&tokens, &order, known).unwrap()[0])
                    .collect();
                check_scores(&scores, &reported, &format!("{variant:?} {order:?}"));
            }
        }
    }
}
