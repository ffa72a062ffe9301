//! Steps that keep what the model is sure of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
mod random_model;

use esolm::config::{Config, Variant};
use esolm::{
    Adaptive, Confidence, Context, ContextParams, Error, GenerateParams, KvType, Model, Order, Prompt,
    Schedule,
};
use random_model::{RandomModel, config};

/// As in `properties.rs`.
const EXACT: f64 = 1e-4;
const LENGTH: usize = 48;
const MASK: u32 = 100;

fn reference(variant: Variant) -> RandomModel {
    RandomModel::new(Config { variant, ..config(2, 4) }, 1)
}

fn context(model: &Model, sequences: usize) -> Context {
    let params = ContextParams { sequences, threads: 1, kv_type: KvType::F32, ..ContextParams::default() };
    Context::new(model, &params).unwrap()
}

fn params(confidence: Confidence, threshold: f32, window: usize) -> GenerateParams<'static> {
    let adaptive = Some(Adaptive { confidence, threshold, window });
    GenerateParams { adaptive, seed: 5, log_probs: true, ..GenerateParams::default() }
}

fn prompts() -> [Prompt; 2] {
    [Prompt { known: vec![(30, 4), (2, 9), (3, 9)] }, Prompt::default()]
}

#[test]
fn every_position_is_written_once_whatever_the_measure() {
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm] {
        let model = reference(variant).open();
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
                        let unknown = |n: usize| 48 - [3, 0][n] - written[n].len();
                        let left = [unknown(0), unknown(1)];
                        let Some(step) = batch.step().unwrap() else { break };
                        assert_eq!((step.index, step.updates.len()), (index, step.log_probs.len()));
                        index += 1;
                        for (sequence, left) in left.into_iter().enumerate() {
                            let own = step.updates.iter().filter(|u| u.sequence as usize == sequence);
                            let own: Vec<u32> = own.map(|u| u.position).collect();
                            // At least one; all of them where everything passes, one where nothing does.
                            let least = if threshold == 0.0 { window.min(left) } else { 1.min(left) };
                            let most = if threshold == 1.5 { 1 } else { window };
                            assert!((least..=most.min(left)).contains(&own.len()), "{what}: {own:?}");
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
                    while single.step().unwrap().is_some() {}
                    assert_eq!(single.tokens(0).unwrap(), batch.tokens(0).unwrap(), "{what}: alone");
                }
            }
        }
    }
}

#[test]
fn what_is_put_back_leaves_nothing_in_the_cache() {
    let reference = reference(Variant::EsoB);
    let model = reference.open();
    let mut context = context(&model, 1);
    let mut kept_some = 0;
    context.begin(&prompts()[..1], &params(Confidence::Probability, 0.25, 9)).unwrap();
    let mut known = prompts()[0].known.clone();
    known.sort_unstable();
    let mut rows: Vec<(u32, u32)> = known.into_iter().map(|(p, t)| (t, p)).collect();
    let mut proposed: Vec<(u32, Vec<f32>)> = vec![];
    while let Some(step) = context
        .step_editing(|choice, _| {
            proposed.push((choice.position, choice.logits.to_vec()));
            Ok(())
        })
        .unwrap()
    {
        kept_some += usize::from(step.updates.len() > 1 && step.updates.len() < proposed.len());
        let masks = proposed.iter().map(|&(position, _)| (MASK, position));
        let all: Vec<(u32, u32)> = rows.iter().copied().chain(masks).collect();
        for ((_, found), expected) in proposed.drain(..).zip(&reference.logits(&all)[rows.len()..]) {
            for (a, b) in found.iter().zip(expected) {
                assert!((f64::from(*a) - b).abs() <= EXACT);
            }
        }
        rows.extend(step.updates.iter().map(|u| (u.token, u.position)));
    }
    assert_eq!(rows.len(), LENGTH);
    assert!(kept_some >= 3, "steps that keep several and put several back: {kept_some}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = params(Confidence::Margin, 0.5, 8);
    let adaptive = |threshold, window| params(Confidence::Entropy, threshold, window);
    for (variant, params, says) in [
        (Variant::EsoB, adaptive(0.5, 0), "window"),
        (Variant::EsoB, adaptive(f32::NAN, 8), "threshold"),
        (Variant::EsoB, adaptive(-0.5, 8), "threshold"),
        (Variant::EsoB, adaptive(f32::INFINITY, 8), "threshold"),
        (Variant::EsoB, GenerateParams { alpha_0: 0.5, ..good }, "diffusion alone"),
        (Variant::EsoB, GenerateParams { schedule: Schedule::Given(&[2]), ..good }, "not both"),
        (Variant::Ar, good, "diffusion alone"),
    ] {
        let mut context = context(&reference(variant).open(), 1);
        let error = context.begin(&[Prompt::default()], &params).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
    }
}
