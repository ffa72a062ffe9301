//! Comparing the quality of models: against the definitions, and what must hold of any comparison.

use std::ops::ControlFlow;

use esolm::evaluate::quality::{QualityOptions, compare};
use esolm::{Architecture, Config, Error, KvType, Model, ScoreParams, ThreadPool, ThreadPoolParams, Variant};

use crate::reference::{Attention, LENGTH, MASK, Network, Random, config};
use crate::runs::{ON, context};

/// A model, and the same with each weight changed by a `share` of the weights' deviation.
fn pair(share: f64) -> [Network; 2] {
    let (model, mut other) = (Network::small(Variant::EsoB, 1), Network::small(Variant::EsoB, 1));
    let mut random = Random(2);
    let mut names: Vec<_> = other.tensors.keys().cloned().collect();
    names.sort();
    for name in names {
        other.tensor_mut(&name).iter_mut().for_each(|w| *w += (share * 0.2 * random.normal()) as f32);
    }
    [model, other]
}

fn text(tokens: usize) -> Vec<u32> {
    Random(3).text(tokens)
}

fn options() -> QualityOptions {
    QualityOptions { threads: 1, kv_type: KvType::F32, steps: 6, ..QualityOptions::default() }
}

/// log softmax without the mask.
fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let logits = &logits[..MASK as usize];
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l - sum.ln()).collect()
}

#[test]
fn comparison_matches_its_definitions() {
    let models = pair(0.2);
    let tokens = text(3 * LENGTH);
    // One token at a time, left to right: each distribution is a row of the reference network.
    let options = QualityOptions { alpha_0: Some(0.0), ..options() };
    let found = compare(&models.each_ref().map(Network::model), &tokens, &options, None, ON).unwrap();
    let (mut nlls, mut divergences, mut same) = ([[0.0; 3]; 2], vec![], 0);
    for (window, tokens) in tokens.chunks(LENGTH).enumerate() {
        for place in 0..LENGTH {
            let mut rows: Vec<(u32, u32)> = tokens[..place].iter().copied().zip(0..).collect();
            rows.push((MASK, place as u32));
            let [p, q] =
                models.each_ref().map(|m| log_softmax(m.logits(&rows, Attention::Causal).last().unwrap()));
            nlls[0][window] -= p[tokens[place] as usize];
            nlls[1][window] -= q[tokens[place] as usize];
            divergences.push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            let top = |l: &[f64]| (0..l.len()).max_by(|&a, &b| l[a].total_cmp(&l[b]));
            same += usize::from(top(&p) == top(&q));
        }
    }
    let n = (3 * LENGTH) as f64;
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a} {b}");
    for (quality, nlls) in found.iter().zip(&nlls) {
        assert_eq!(quality.tokens, 3 * LENGTH);
        close(quality.nll, nlls.iter().sum::<f64>() / n);
        assert!(quality.tokens_per_second > 0.0);
    }
    let other = &found[1];
    let d: Vec<f64> = (0..3).map(|w| (nlls[1][w] - nlls[0][w]) / LENGTH as f64).collect();
    let mean = d.iter().sum::<f64>() / 3.0;
    close(other.difference.mean, mean);
    close(
        other.difference.standard_error,
        (d.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 2.0 / 3.0).sqrt(),
    );
    close(other.divergence, divergences.iter().sum::<f64>() / n);
    divergences.sort_by(f64::total_cmp);
    close(other.divergence_999, divergences[divergences.len() - 1]);
    assert!((other.same_top - same as f64 / n).abs() < 1.5 / n, "{} {same}", other.same_top);
    assert!(other.divergence > 1e-3 && other.same_top < 1.0, "the models are too similar for this test");
}

/// Of a model whose first token is given; WeDLM, which proposes more than it keeps, is compared one by one.
#[test]
fn differences_are_of_the_tokens_that_are_written() {
    for variant in [Variant::Ar, Variant::WeDlm] {
        let models = [1, 2].map(|seed| Network::qwen(variant, Architecture::QWEN3, seed).model());
        let options = QualityOptions { length: 6, ..options() };
        let found = compare(&models, &text(3 * 6), &options, None, ON).unwrap();
        let [first, second] = [&found[0], &found[1]];
        assert_eq!((first.tokens, second.tokens), (3 * 5, 3 * 5), "{variant:?}");
        assert!((second.difference.mean - (second.nll - first.nll)).abs() < 1e-9, "{variant:?}: {second:?}");
        let scored = context(&models[0], 1);
        let nll: f64 = text(3 * 6)
            .chunks(6)
            .scan(scored, |context, window| {
                Some(context.score_text(window, &ScoreParams::default(), ON).unwrap().nll)
            })
            .sum();
        assert!((first.nll - nll / 15.0).abs() < 1e-5, "{variant:?}: {first:?}, {nll}");
    }
    let model = [Network::qwen(Variant::WeDlm, Architecture::QWEN3, 1).model()];
    let diffusion = QualityOptions { alpha_0: Some(1.0), ..options() };
    assert!(matches!(compare(&model, &text(LENGTH), &diffusion, None, ON), Err(Error::InvalidArgument(_))));
}

#[test]
fn model_equals_itself_and_small_changes_lose_less() {
    let models: Vec<Model> = [0.0, 0.02, 0.2].map(|share| pair(share)[1].model()).into();
    let found = compare(&models, &text(3 * LENGTH + 5), &options(), None, ON).unwrap();
    let same = &found[0];
    assert_eq!(
        (same.difference.mean, same.divergence, same.divergence_999, same.same_top),
        (0.0, 0.0, 0.0, 1.0)
    );
    assert!(found[1].divergence > 0.0 && found[1].divergence < 0.1 * found[2].divergence);
    assert!(found[1].divergence < found[1].divergence_999 && found[1].same_top >= found[2].same_top);
    assert_eq!(same.tokens, 3 * LENGTH, "the incomplete window is left out");
    // From left to right the likelihood equals that of scoring.
    let left_to_right = QualityOptions { alpha_0: Some(0.0), ..options() };
    let tokens = text(2 * LENGTH);
    // By the threads of a pool as by its own.
    let pool = ThreadPool::new(&ThreadPoolParams { threads: 2, ..ThreadPoolParams::default() }).unwrap();
    let with_pool = QualityOptions { threads: 0, ..left_to_right };
    let found = compare(&models[..1], &tokens, &with_pool, Some(&pool), ON).unwrap();
    let scored = context(&models[0], 1).score_text(&tokens, &ScoreParams::default(), ON).unwrap();
    assert!((found[0].nll - scored.nll / tokens.len() as f64).abs() < 1e-5);
}

#[test]
fn windows_are_counted_and_a_comparison_can_be_cancelled() {
    let model = [Network::random(config(1, 2), 1).model()];
    let mut seen = vec![];
    let two = QualityOptions { windows: 2, ..options() };
    let found = compare(&model, &text(5 * LENGTH), &two, None, |done, all| {
        seen.push((done, all));
        ControlFlow::Continue(())
    });
    assert_eq!((found.unwrap()[0].tokens, seen), (2 * LENGTH, vec![(1, 2), (2, 2)]));
    assert_eq!(
        compare(&model, &text(7), &options(), None, ON).unwrap()[0].tokens,
        7,
        "a short text is one window"
    );
    let stopped = compare(&model, &text(LENGTH), &options(), None, |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[test]
fn invalid_comparisons_are_refused() {
    let model = || Network::random(config(1, 2), 1).model();
    let bad = |models: &[Model], tokens: &[u32], options: &QualityOptions| {
        let error = compare(models, tokens, options, None, ON).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    };
    bad(&[], &text(9), &options());
    bad(&[model()], &[], &options());
    bad(&[model()], &[MASK + 1], &options());
    bad(&[model()], &[MASK], &options());
    bad(&[model()], &text(9), &QualityOptions { alpha_0: Some(1.5), ..options() });
    bad(&[model()], &text(9), &QualityOptions { steps: (1 << 20) + 1, ..options() });
    bad(&[model()], &text(99), &QualityOptions { length: 99, ..options() });
    let wider = Network::random(Config { vocab_size: 102, ..config(1, 2) }, 1).model();
    bad(&[model(), wider], &text(9), &options());
}
