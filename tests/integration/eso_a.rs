//! Eso-LM (A) against the authors' code: `tests/golden/tiny-A`.

use esolm::convert::Options;
use esolm::{
    ContextParams, Error, GenerateParams, Order, Plan, Prompt, SamplingParams, Schedule, ScoreParams,
};

use crate::golden::{self, Golden, LENGTH, MASK, VOCAB, check_logits, context, text};
use crate::replay::replay_one;
use crate::runs::{ON, texts};

#[test]
fn eso_a_diffusion_phase_matches_reference_logits() {
    let golden = Golden::open("tiny-A");
    let (clean, zt, order) =
        (golden.ints("diff.num_clean"), golden.ints("diff.zt"), golden.ints("diff.sort_idx"));
    let expected = golden.floats("diff.logits");
    for context in &mut golden.contexts(1) {
        for (i, &clean) in clean.iter().enumerate() {
            let clean = clean as usize;
            let (zt, order) = (&zt[i * LENGTH..][..LENGTH], &order[i * LENGTH..][..LENGTH]);
            if clean == LENGTH {
                continue;
            }
            // All masks in one step; the tokens written do not matter.
            let plan = Plan {
                known: zt[..clean].to_vec(),
                order: order.to_vec(),
                counts: vec![(LENGTH - clean) as u32],
                diffusion: LENGTH - clean,
            };
            let logits = replay_one(context, &plan, &[1; LENGTH]);
            check_logits(
                &format!("A, {clean} known"),
                &logits,
                &expected[i * LENGTH * VOCAB..][..LENGTH * VOCAB],
                clean,
            );
            // In two steps: masks see all tokens of the first step, which see each other both ways.
            if clean > 0 {
                let known = clean / 2;
                let plan = Plan {
                    known: zt[..known].to_vec(),
                    counts: vec![(clean - known) as u32, (LENGTH - clean) as u32],
                    diffusion: LENGTH - known,
                    order: order.to_vec(),
                };
                let logits = replay_one(
                    context,
                    &plan,
                    &text(order, zt).iter().map(|&t| if t == MASK { 1 } else { t }).collect::<Vec<_>>(),
                );
                check_logits(
                    "A, in steps",
                    &logits,
                    &expected[i * LENGTH * VOCAB..][..LENGTH * VOCAB],
                    clean,
                );
            }
        }
    }
}

#[test]
fn eso_a_sequential_phase_matches_reference_logits() {
    let golden = Golden::open("tiny-A");
    let (clean, x0, order) =
        (golden.ints("seq.num_clean"), golden.ints("seq.x0"), golden.ints("seq.sort_idx"));
    let expected = golden.floats("seq.logits");
    for context in &mut golden.contexts(1) {
        for (i, &clean) in clean.iter().enumerate() {
            let clean = clean as usize;
            let (x0, order) = (&x0[i * LENGTH..][..LENGTH], &order[i * LENGTH..][..LENGTH]);
            let expected = &expected[i * LENGTH * VOCAB..][..LENGTH * VOCAB];
            let text = text(order, x0);
            // Whether the prompt gave the clean tokens or the diffusion phase wrote them, the sequential phase is the
            // same.
            for known in [clean, clean / 2] {
                let mut counts = vec![1; LENGTH - clean];
                if known < clean {
                    counts.insert(0, (clean - known) as u32);
                }
                let plan = Plan {
                    known: x0[..known].to_vec(),
                    order: order.to_vec(),
                    counts,
                    diffusion: clean - known,
                };
                check_logits(
                    &format!("A, sequential from {clean}"),
                    &replay_one(context, &plan, &text),
                    expected,
                    clean,
                );
            }
        }
    }
}

#[test]
fn eso_a_without_a_sequential_phase_writes_the_same_by_diffusion() {
    let dir = tempfile::tempdir().unwrap();
    let plain = std::fs::read_to_string(golden::path("tiny-A/config.json")).unwrap();
    let changed = plain.replace(r#""sequential_attn_mode": "mixed""#, r#""sequential_attn_mode": "causal""#);
    assert_ne!(plain, changed);
    std::fs::write(dir.path().join("config.json"), changed).unwrap();
    std::fs::copy(golden::path("tiny-A/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let model = golden::model(dir.path(), &Options::default());
    let mut only = context(&model, ContextParams::default());
    let [_, mut both] = Golden::open("tiny-A").contexts(1);
    let counts = [5, 2];
    for (order, schedule) in [
        (Order::Random, Schedule::Reference),
        (Order::Strided { stride: 8, shuffle: true }, Schedule::Reference),
        (Order::Blocks { size: 16 }, Schedule::Custom(&counts)),
    ] {
        let params = GenerateParams { order, schedule, steps: 9, seed: 3, ..GenerateParams::default() };
        for prompt in [Prompt::default(), Prompt { known: vec![(7, 3), (20, 4)] }] {
            let prompts = [prompt];
            assert_eq!(texts(&mut only, &prompts, &params), texts(&mut both, &prompts, &params));
        }
    }
    for alpha_0 in [0.0, 0.5, 0.999] {
        let params = GenerateParams { alpha_0, ..GenerateParams::default() };
        let error = only.begin(&[Prompt::default()], &params).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidArgument(what) if what.contains("diffusion phase alone")),
            "{error}"
        );
    }
    let plan = Plan { known: vec![], order: (0..8).collect(), counts: vec![4, 4], diffusion: 4 };
    only.begin_with_plans(std::slice::from_ref(&plan), SamplingParams::FULL, 0).unwrap_err();
    only.begin_with_plans(&[Plan { diffusion: 8, ..plan }], SamplingParams::FULL, 0).unwrap();
    // Its bound is that of diffusion, and no order has a likelihood.
    let tokens: Vec<u32> = (1..40).collect();
    let bound = ScoreParams { orders: 0, draws: 4, ..ScoreParams::default() };
    let score = only.score_text(&tokens, &bound, ON).unwrap();
    assert_eq!(score.bound, both.score_text(&tokens, &bound, ON).unwrap().bound);
    assert!(score.bound.diffusion.mean > 0.0);
    for params in [ScoreParams { alpha_0: 0.5, ..bound }, ScoreParams::default()] {
        assert!(
            only.score_text(&tokens, &params, ON).unwrap_err().to_string().contains("diffusion phase alone")
        );
    }
}
