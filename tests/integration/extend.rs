//! Continuing a generation in the same context.

use esolm::{Constraints, Context, Error, GenerateParams, Order, Plan, Prompt, Schedule, Variant};

use crate::reference::{LENGTH, MASK, Network};
use crate::replay::{largest_difference, replay};
use crate::runs::{context, diffusion, tokens};

/// Between keys and values that were kept and computed again, in batches of other sizes. Measured 1e-6.
pub const SAME: f64 = 1e-5;

/// What the steps wrote (sequence, position, token), and the logits of each token.
#[derive(Debug, PartialEq)]
pub struct Run {
    pub steps: Vec<Vec<(u32, u32, u32)>>,
    pub logits: Vec<Vec<f32>>,
}

/// Runs the generation to its end.
pub fn finish(context: &mut Context) -> Run {
    let mut run = Run { steps: vec![], logits: vec![] };
    while let Some(step) = context
        .step_with_logits(|choice, _| {
            run.logits.push(choice.logits.to_vec());
            Ok(())
        })
        .unwrap()
    {
        run.steps.push(step.updates.iter().map(|u| (u.sequence, u.position, u.token)).collect());
    }
    run
}

/// Generates the first `length` tokens, or some steps of them. Returns prompts to extend the texts with.
pub fn begin_part(context: &mut Context, length: usize, steps: usize) -> [Prompt; 2] {
    let ar = context.model().config().variant == Variant::Ar;
    let middle = if ar { Prompt::prefix(&[1, 2]).unwrap() } else { Prompt { known: vec![(7, 3), (2, 9)] } };
    let some = GenerateParams { length, steps: 6, alpha_0: 0.7, seed: 4, ..diffusion() };
    context.begin(&[middle, Prompt::default()], &some).unwrap();
    for _ in 0..steps {
        context.step().unwrap();
    }
    let next = length as u32;
    let more = if ar { vec![(next, 5), (next + 1, 6)] } else { vec![(next + 9, 5), (next, 6)] };
    [Prompt { known: more }, Prompt::default()]
}

pub fn more(seed: u64) -> GenerateParams<'static> {
    GenerateParams { steps: 5, alpha_0: 0.6, seed, ..diffusion() }
}

#[test]
fn extended_text_equals_one_generated_at_once() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 2);
        let mut fresh = self::context(&model, 2);
        // After the end, and in the middle.
        for steps in [usize::MAX, 4] {
            if variant == Variant::Ar && steps == 4 {
                continue;
            }
            let prompts = begin_part(&mut context, 20, steps.min(100));
            let before = tokens(&context);
            context.extend(&prompts, &more(7)).unwrap();
            let orders: Vec<Vec<u32>> = (0..2).map(|n| context.order(n).unwrap().to_vec()).collect();
            let run = finish(&mut context);
            let texts = tokens(&context);
            for (sequence, (before, text)) in before.iter().zip(&texts).enumerate() {
                assert_eq!(text.len(), LENGTH);
                assert!(!text.contains(&MASK));
                assert!(before.iter().zip(text).all(|(&b, &t)| b == MASK || b == t));
                assert!(prompts[sequence].known.iter().all(|&(p, t)| text[p as usize] == t));
            }
            let plans: Vec<Plan> = (0..2)
                .map(|sequence| {
                    let own = |step: &Vec<(u32, u32, u32)>| {
                        step.iter().filter(|u| u.0 as usize == sequence).count() as u32
                    };
                    let counts: Vec<u32> = run.steps.iter().map(own).filter(|&count| count > 0).collect();
                    let known = LENGTH - counts.iter().sum::<u32>() as usize;
                    let text = &texts[sequence];
                    let known = orders[sequence][..known].iter().map(|&p| text[p as usize]).collect();
                    Plan { known, order: orders[sequence].clone(), counts, diffusion: 0 }
                })
                .collect();
            let written: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let expected = replay(&mut fresh, &plans, &written);
            // By sequence and place, as the steps wrote them.
            let mut places = plans.iter().map(|plan| plan.known.len()).collect::<Vec<_>>();
            let logits: Vec<Vec<f32>> = run
                .steps
                .concat()
                .iter()
                .map(|&(sequence, position, _)| {
                    let (sequence, place) = (sequence as usize, places[sequence as usize]);
                    assert_eq!(plans[sequence].order[place], position);
                    places[sequence] += 1;
                    expected[sequence][place].clone()
                })
                .collect();
            let difference = largest_difference(&run.logits, &logits);
            println!("{variant:?}: {difference:e}");
            assert!(difference <= SAME, "{variant:?}: {difference:e}");
        }
    }
}

#[test]
fn impossible_extensions_are_refused() {
    let b = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&b, 2);
    assert!(matches!(context.extend(&[Prompt::default()], &more(1)), Err(Error::InvalidArgument(_))));
    begin_part(&mut context, 20, 100);
    let before = (context.progress(), context.tokens(0).unwrap().to_vec());
    let known = |p: u32, t: u32| Prompt { known: vec![(p, t)] };
    let rules = [Constraints { allowed: vec![(7, vec![4])], ..Constraints::default() }];
    let g = more(1);
    for (prompts, params, says) in [
        (vec![Prompt::default()], g, "1 prompts to go on with 2"),
        (vec![Prompt::default(); 3], g, "3 prompts"),
        (vec![known(7, 3), Prompt::default()], g, "given twice"),
        (vec![known(48, 3), Prompt::default()], g, "beyond the length"),
        (vec![Prompt::default(); 2], GenerateParams { length: 19, ..g }, "there are 20 tokens"),
        (vec![Prompt::default(); 2], GenerateParams { length: 49, ..g }, "length 49"),
        (vec![Prompt::default(); 2], GenerateParams { constraints: &rules, ..g }, "the prompt has token 3"),
    ] {
        let error = context.extend(&prompts, &params).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
        assert_eq!((context.progress(), context.tokens(0).unwrap().to_vec()), before);
    }
    // An order names all positions; those that are known are skipped.
    let given: Vec<u32> = (0..48).rev().collect();
    let params = GenerateParams { order: Order::Custom(&given), schedule: Schedule::Custom(&[3]), ..g };
    context
        .extend(&[Prompt::default(), Prompt::default()], &GenerateParams { alpha_0: 1.0, ..params })
        .unwrap();
    finish(&mut context);
    assert!(context.order(0).unwrap()[20..].iter().copied().eq((20..48).rev()));
    let bytes = context.save().unwrap();
    // A model with other weights, and one of another variant.
    for other in [Network::small(Variant::EsoB, 2), Network::small(Variant::Ar, 1)] {
        let error = self::context(&other.model(), 2).restore(&bytes).unwrap_err();
        assert!(error.to_string().contains("another model"), "{error}");
    }
    let too_small = self::context(&b, 1).restore(&bytes);
    assert!(matches!(too_small, Err(Error::InvalidArgument(_))));
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let mut context = self::context(&Network::small(variant, 1).model(), 1);
        context.begin(&[Prompt::default()], &g).unwrap_or(());
        assert!(matches!(context.extend(&[Prompt::default()], &g), Err(Error::Unsupported(_))));
        assert!(matches!(context.save(), Err(Error::Unsupported(_))));
        assert!(matches!(context.saved_size(), Err(Error::Unsupported(_))));
        assert!(matches!(context.restore(&bytes), Err(Error::Unsupported(_))));
    }
    // Scoring has overwritten the cache, so there is nothing to extend.
    let text = context.tokens(0).unwrap().to_vec();
    context.score_order(&text, &given, 0).unwrap();
    assert!(context.extend(&[Prompt::default()], &g).is_err());
}
