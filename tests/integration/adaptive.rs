//! Adaptive steps, which accept the tokens that the model is confident of.

use esolm::{Adaptive, Confidence, Error, GenerateParams, Order, Prompt, Schedule, Variant};

use crate::reference::{LENGTH, MASK, Network};
use crate::replay::check_steps;
use crate::runs::{context, diffusion, finish};

fn params(confidence: Confidence, threshold: f32, window: usize) -> GenerateParams<'static> {
    let adaptive = Some(Adaptive { confidence, threshold, window, ..Adaptive::default() });
    GenerateParams { adaptive, seed: 5, log_probs: true, ..diffusion() }
}

fn prompts() -> [Prompt; 2] {
    [Prompt { known: vec![(30, 4), (2, 9), (3, 9)] }, Prompt::default()]
}

#[test]
fn every_confidence_measure_writes_each_position_once() {
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm] {
        let model = Network::small(variant, 1).model();
        let (mut batch, mut single) = (context(&model, 2), context(&model, 1));
        for (confidence, threshold) in [
            (Confidence::Probability, 0.3),
            (Confidence::Margin, 0.1),
            (Confidence::Entropy, 2.5),
            (Confidence::Probability, 0.0),
            (Confidence::Probability, 1.5),
        ] {
            for order in [Order::Random, Order::LeftToRight, Order::Strided { stride: 9, shuffle: true }] {
                for window in [1, 7, usize::MAX] {
                    let what = format!("{variant:?} {confidence:?} {threshold} {order:?} {window}");
                    let params = GenerateParams { order, ..params(confidence, threshold, window) };
                    let prompts = prompts();
                    batch.begin(&prompts, &params).unwrap();
                    let mut written = vec![vec![]; 2];
                    let mut index = 0;
                    loop {
                        let unknown = |n: usize| LENGTH - [3, 0][n] - written[n].len();
                        let left = [unknown(0), unknown(1)];
                        let Some(step) = batch.step().unwrap() else { break };
                        assert_eq!((step.index, step.updates.len()), (index, step.log_probs.len()));
                        index += 1;
                        for (sequence, left) in left.into_iter().enumerate() {
                            let own = step.updates.iter().filter(|u| u.sequence as usize == sequence);
                            let own: Vec<u32> = own.map(|u| u.position).collect();
                            // At least one; all of them if every one is accepted, one if none is.
                            let min = if threshold == 0.0 { window.min(left) } else { 1.min(left) };
                            let max = if threshold == 1.5 { 1 } else { window };
                            assert!((min..=max.min(left)).contains(&own.len()), "{what}: {own:?}");
                            written[sequence].extend(own);
                        }
                        assert!(step.total > step.index);
                    }
                    assert_eq!(batch.progress(), (index, index), "{what}");
                    for (sequence, prompt) in prompts.iter().enumerate() {
                        let tokens = batch.tokens(sequence).unwrap();
                        assert!(!tokens.contains(&MASK), "{what}");
                        assert!(prompt.known.iter().all(|&(p, t)| tokens[p as usize] == t), "{what}");
                        let order = batch.order(sequence).unwrap();
                        assert_eq!(order[prompt.known.len()..], written[sequence], "{what}");
                    }
                    single.begin(&prompts[..1], &params).unwrap();
                    finish(&mut single);
                    assert_eq!(single.tokens(0).unwrap(), batch.tokens(0).unwrap(), "{what}: alone");
                }
            }
        }
    }
}

#[test]
fn rejected_tokens_leave_nothing_in_the_cache() {
    let network = Network::small(Variant::EsoB, 1);
    let mut context = context(&network.model(), 1);
    let prompt = &prompts()[0];
    context.begin(std::slice::from_ref(prompt), &params(Confidence::Probability, 0.25, 9)).unwrap();
    let mut accepted_some = 0;
    check_steps(&mut context, &network, prompt, |proposed, accepted| {
        accepted_some += usize::from(accepted > 1 && accepted < proposed);
    });
    assert!(accepted_some >= 3, "steps that accept several and reject several: {accepted_some}");
}

#[test]
fn invalid_adaptive_params_are_refused() {
    let good = params(Confidence::Margin, 0.5, 8);
    let adaptive = |threshold, window| params(Confidence::Entropy, threshold, window);
    for (variant, params, says) in [
        (Variant::EsoB, adaptive(0.5, 0), "window"),
        (Variant::EsoB, adaptive(f32::NAN, 8), "threshold"),
        (Variant::EsoB, adaptive(-0.5, 8), "threshold"),
        (Variant::EsoB, adaptive(f32::INFINITY, 8), "threshold"),
        (Variant::EsoB, GenerateParams { alpha_0: 0.5, ..good }, "diffusion alone"),
        (Variant::EsoB, GenerateParams { schedule: Schedule::Custom(&[2]), ..good }, "not both"),
        (Variant::Ar, good, "diffusion alone"),
    ] {
        let mut context = context(&Network::small(variant, 1).model(), 1);
        let error = context.begin(&[Prompt::default()], &params).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
    }
}
