//! Eso-LM (A) against the authors' code: `tests/golden/tiny-A`.

use esolm::Plan;

use crate::golden::{Golden, LENGTH, MASK, VOCAB, check_logits, text};
use crate::replay::replay_one;

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
