//! Generation: what is written, where, and on what it depends.

use std::ops::ControlFlow;

use esolm::{Adaptive, Confidence, Context, Error, GenerateParams, Order, Prompt, Schedule, Update, Variant};

use crate::reference::{MASK, Network, Random};
use crate::runs::{both_phases, context, texts, tokens};

/// Runs the generation to its end. Returns the updates of each step.
fn updates(context: &mut Context) -> Vec<Vec<Update>> {
    let mut steps = Vec::new();
    while let Some(step) = context.step().unwrap() {
        assert_eq!(step.index, steps.len());
        steps.push(step.updates.to_vec());
    }
    let (done, total) = context.progress();
    assert_eq!((done, total), (steps.len(), steps.len()));
    steps
}

#[test]
fn seed_determines_the_text() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let prompts = vec![Prompt::default(); 2];
    let first = texts(&mut context, &prompts, &both_phases(1));
    assert_eq!(texts(&mut context, &prompts, &both_phases(1)), first);
    assert_eq!(texts(&mut self::context(&model, 2), &prompts, &both_phases(1)), first, "a new context");
    assert_ne!(first[0], first[1], "sequences of one batch");
    for seed in 2..6 {
        let other = texts(&mut context, &prompts, &both_phases(seed));
        assert!(first.iter().all(|text| !other.contains(text)), "seed {seed}");
    }
}

/// The number of steps of a whole text of 48 tokens.
fn steps(context: &mut Context, params: &GenerateParams<'_>) -> usize {
    context.begin(&[Prompt::default()], params).unwrap();
    context.progress().1
}

#[test]
fn diffusion_is_by_default_where_it_is_asked_for() {
    let default = GenerateParams { length: 48, seed: 5, ..GenerateParams::default() };
    let adaptive =
        Adaptive { confidence: Confidence::Probability, threshold: 0.5, window: 8, ..Adaptive::default() };
    let asking = [
        GenerateParams { steps: 4, ..default },
        GenerateParams { schedule: Schedule::Custom(&[8]), ..default },
        GenerateParams { order: Order::Blocks { size: 8 }, steps: 1, ..default },
        GenerateParams { order: Order::Strided { stride: 8, shuffle: false }, ..default },
        GenerateParams { adaptive: Some(adaptive), ..default },
    ];
    for variant in [Variant::EsoA, Variant::EsoB] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        // Left to right, one by one.
        let prompts = [Prompt::default()];
        assert_eq!(steps(&mut context, &default), 48);
        let text = texts(&mut context, &prompts, &default);
        for same in [
            GenerateParams { alpha_0: 0.0, ..default },
            GenerateParams { alpha_0: 0.0, steps: 4, ..default },
            GenerateParams { order: Order::LeftToRight, ..default },
        ] {
            assert_eq!(texts(&mut context, &prompts, &same), text, "{same:?}");
        }
        for params in &asking {
            let all = GenerateParams { alpha_0: 1.0, ..*params };
            assert_eq!(
                texts(&mut context, &prompts, params),
                texts(&mut context, &prompts, &all),
                "{params:?}"
            );
        }
        assert!(steps(&mut context, &asking[0]) <= 4);
        for alpha_0 in [-0.5, -1.5, f64::NAN] {
            assert!(context.begin(&prompts, &GenerateParams { alpha_0, ..default }).is_err());
        }
    }
}

#[test]
fn sequence_does_not_depend_on_its_neighbours() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 3);
    let prompt = Prompt { known: vec![(3, 9), (40, 1)] };
    let alone = texts(&mut context, std::slice::from_ref(&prompt), &both_phases(1));
    let other = Prompt::prefix(&(0..30).collect::<Vec<_>>()).unwrap();
    for neighbours in [[Prompt::default(), other.clone()], [other, Prompt { known: vec![(47, 3)] }]] {
        let [one, two] = neighbours;
        let together = texts(&mut context, &[prompt.clone(), one, two], &both_phases(1));
        assert_eq!(together[0], alone[0]);
    }
}

#[test]
fn known_tokens_stay_at_any_position() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let mut random = Random(3);
    for case in 0..12 {
        let count = 1 + random.below(40);
        let mut known: Vec<(u32, u32)> = random.permutation(48)[..count]
            .iter()
            .map(|&position| (position, random.below(MASK as usize) as u32))
            .collect();
        context.begin(&[Prompt { known: known.clone() }], &both_phases(case)).unwrap();
        let mut written: Vec<u32> = updates(&mut context).concat().iter().map(|u| u.position).collect();
        let tokens = context.tokens(0).unwrap();
        assert!(known.iter().all(|&(position, token)| tokens[position as usize] == token));
        assert!(!tokens.contains(&MASK));
        // Every unknown position was written once, no known one ever.
        written.extend(known.drain(..).map(|(position, _)| position));
        written.sort_unstable();
        assert!(written.into_iter().eq(0..48), "case {case}");
    }
}

#[test]
fn order_of_prompt_tokens_does_not_matter() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let mut known = vec![(30, 5), (2, 6), (11, 7)];
    let first = texts(&mut context, &[Prompt { known: known.clone() }], &both_phases(1));
    known.reverse();
    assert_eq!(texts(&mut context, &[Prompt { known }], &both_phases(1)), first);
}

#[test]
fn step_callback_sees_updates_and_can_stop() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let prompts = [Prompt::prefix(&[4, 5, 6]).unwrap(), Prompt::default()];
    let whole = texts(&mut context, &prompts, &both_phases(8));
    let (_, steps) = context.progress();
    for stop_at in [0, 2, steps - 1] {
        let mut seen = [vec![MASK; 48], vec![MASK; 48]];
        seen[0][..3].copy_from_slice(&[4, 5, 6]);
        let mut calls = 0;
        let stopped = context.generate(&prompts, &both_phases(8), |step| {
            assert_eq!((step.index, step.total), (calls, steps));
            for &Update { sequence, position, token } in step.updates {
                let place = &mut seen[sequence as usize][position as usize];
                assert_eq!(std::mem::replace(place, token), MASK, "written once");
            }
            calls += 1;
            if step.index == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert_eq!((calls, context.progress()), (stop_at + 1, (stop_at + 1, steps)));
        let written = tokens(&context);
        assert_eq!(written.as_slice(), seen, "what was written up to there, and no more");
        context.finish(|_| ControlFlow::Continue(())).unwrap();
        assert_eq!(tokens(&context), whole);
    }
}

#[test]
fn prompt_without_holes_needs_no_step() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let full = Prompt::prefix(&(0..48).collect::<Vec<_>>()).unwrap();
    context.begin(std::slice::from_ref(&full), &both_phases(1)).unwrap();
    assert_eq!(context.progress(), (0, 0));
    assert_eq!(updates(&mut context), Vec::<Vec<Update>>::new());
    assert!(context.tokens(0).unwrap().iter().copied().eq(0..48));
    // Beside a prompt with holes, it stays unchanged.
    context.begin(&[full, Prompt::default()], &both_phases(1)).unwrap();
    let steps = updates(&mut context);
    assert!(steps.concat().iter().all(|update| update.sequence == 1));
    assert_eq!(steps.concat().len(), 48);
    assert!(context.tokens(0).unwrap().iter().copied().eq(0..48));
}

#[test]
fn sequential_phase_writes_left_to_right_one_by_one() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let params = GenerateParams { alpha_0: 0.0, ..both_phases(1) };
    context.begin(&[Prompt::default()], &params).unwrap();
    let positions = |steps: Vec<Vec<Update>>| -> Vec<Vec<u32>> {
        steps.iter().map(|step| step.iter().map(|u| u.position).collect()).collect()
    };
    let expected: Vec<Vec<u32>> = (0..48).map(|p| vec![p]).collect();
    assert_eq!(positions(updates(&mut context)), expected);
    let prompt = Prompt { known: vec![(1, 7), (40, 8)] };
    context.begin(&[prompt], &params).unwrap();
    let expected: Vec<Vec<u32>> = (0..48).filter(|p| ![1, 40].contains(p)).map(|p| vec![p]).collect();
    assert_eq!(positions(updates(&mut context)), expected);
}

#[test]
fn single_diffusion_step_writes_all_tokens() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let params = GenerateParams { alpha_0: 1.0, steps: 1, ..both_phases(1) };
    context.begin(&[Prompt::default(), Prompt::prefix(&[1]).unwrap()], &params).unwrap();
    let steps = updates(&mut context);
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].len(), 48 + 47);
    assert!(!context.tokens(0).unwrap().contains(&MASK));
}

#[test]
fn texts_can_be_shorter_than_the_context() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    for length in [1, 31, 32, 33, 48] {
        let texts = texts(&mut context, &[Prompt::default()], &GenerateParams { length, ..both_phases(1) });
        assert_eq!(texts[0].len(), length);
        assert!(!texts[0].contains(&MASK));
    }
}
