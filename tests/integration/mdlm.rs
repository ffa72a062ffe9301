//! MDLM against the authors' code: `tests/golden/mdlm-tiny`.

use esolm::{Plan, SamplingParams};

use crate::golden::{Golden, LENGTH, MASK, VOCAB, check_logits};
use crate::replay::replay_one;

#[test]
fn mdlm_matches_reference_logits() {
    let golden = Golden::open("mdlm-tiny");
    let (x, expected) = (golden.ints("x"), golden.floats("logits"));
    for context in &mut golden.contexts(1) {
        for (x, expected) in x.chunks(LENGTH).zip(expected.chunks(LENGTH * VOCAB)) {
            let known: Vec<u32> = (0..LENGTH as u32).filter(|&p| x[p as usize] != MASK).collect();
            if known.len() == LENGTH {
                continue;
            }
            let masked = (0..LENGTH as u32).filter(|&p| x[p as usize] == MASK);
            let order: Vec<u32> = known.iter().copied().chain(masked).collect();
            let plan = Plan {
                known: known.iter().map(|&p| x[p as usize]).collect(),
                counts: vec![(LENGTH - known.len()) as u32],
                diffusion: LENGTH - known.len(),
                order: order.clone(),
            };
            let logits = replay_one(context, &plan, &[1; LENGTH]);
            let sorted: Vec<f32> =
                order.iter().flat_map(|&p| &expected[p as usize * VOCAB..][..VOCAB]).copied().collect();
            check_logits("MDLM", &logits, &sorted, known.len());
        }
    }
}

#[test]
fn mdlm_step_draws_reference_tokens_from_the_same_noise() {
    let golden = Golden::open("mdlm-tiny");
    let mut written = 0;
    for (name, top_p) in [("p1", 1.0), ("p09", 0.9)] {
        let sampling = SamplingParams { top_p, ..SamplingParams::FULL };
        for time in ["t1", "t05", "tlast"] {
            let array = |part: &str| format!("step_{time}_{name}.{part}");
            let (x, u, x_new) =
                (golden.ints(&array("x")), golden.doubles(&array("u")), golden.ints(&array("x_new")));
            let texts = x.chunks(LENGTH).zip(x_new.chunks(LENGTH)).zip(u.chunks(LENGTH * VOCAB));
            for ((x, x_new), u) in texts {
                // Positions that are known, that the step writes, and that stay masked.
                let all = 0..LENGTH as u32;
                let (mut order, masked): (Vec<u32>, Vec<u32>) = all.partition(|&p| x[p as usize] != MASK);
                let known: Vec<u32> = order.iter().map(|&p| x[p as usize]).collect();
                let (fresh, left): (Vec<u32>, Vec<u32>) =
                    masked.into_iter().partition(|&p| x_new[p as usize] != MASK);
                // A step that writes no token changes nothing.
                if fresh.is_empty() {
                    assert_eq!(x, x_new);
                    continue;
                }
                let counts = [fresh.len() as u32, left.len() as u32];
                let plan = Plan {
                    diffusion: fresh.len() + left.len(),
                    counts: counts.into_iter().filter(|&count| count > 0).collect(),
                    order: {
                        order.extend(fresh.iter().chain(&left));
                        order
                    },
                    known,
                };
                for context in &mut golden.contexts(1) {
                    context.begin_with_plans(std::slice::from_ref(&plan), sampling, 0).unwrap();
                    let draw = |sampler: &mut esolm::Sampler, choice: &esolm::LogitsRow<'_>| {
                        let noise = &u[choice.position as usize * VOCAB..][..VOCAB];
                        sampler.draw_gumbel(choice.logits, &sampling, noise)
                    };
                    context.step_with_tokens(draw).unwrap();
                    let tokens = context.tokens(0).unwrap();
                    assert_eq!(&tokens, &x_new, "{time} {name}");
                    written += fresh.len();
                }
            }
        }
    }
    assert!(written > 100, "{written}");
}

#[test]
fn mdlm_generates_reference_text_from_the_same_noise() {
    let golden = Golden::open("mdlm-tiny");
    let (states, u, tokens) =
        (golden.ints("gen16.states"), golden.doubles("gen16.u"), golden.ints("gen16.tokens"));
    // The step that wrote each position: the first in which it is not the mask. Steps without tokens are left out.
    let states: Vec<&[u32]> = states.chunks(LENGTH).collect();
    let step_of = |p: usize| states.iter().position(|s| s[p] != MASK).unwrap();
    let mut order: Vec<u32> = (0..LENGTH as u32).collect();
    order.sort_by_key(|&p| step_of(p as usize));
    let counts: Vec<u32> = (0..16)
        .map(|step| (0..LENGTH).filter(|&p| step_of(p) == step).count() as u32)
        .filter(|&c| c > 0)
        .collect();
    let plan = Plan { known: vec![], order, counts, diffusion: LENGTH };
    let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::FULL };
    for context in &mut golden.contexts(1) {
        context.begin_with_plans(std::slice::from_ref(&plan), sampling, 0).unwrap();
        while context
            .step_with_tokens(|sampler, choice| {
                let p = choice.position as usize;
                let noise = &u[(step_of(p) * LENGTH + p) * VOCAB..][..VOCAB];
                sampler.draw_gumbel(choice.logits, &sampling, noise)
            })
            .unwrap()
            .is_some()
        {}
        assert_eq!(context.tokens(0).unwrap(), tokens);
    }
}
