//! What has to hold for every model: on small random ones, against the plain definition of the network and
//! against the same generation done another way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod random_model;

use std::ops::ControlFlow;

use esolm::config::Config;
use esolm::{
    Context, ContextParams, Error, GenerateParams, KvType, MemoryUse, Model, Plan, Prompt, Sampling, Update,
};
use random_model::{Random, RandomModel, config};

/// Against the definition in f64. Measured 6.6e-6 over all cases here.
const EXACT: f64 = 1e-4;
/// Between two runs of the library that differ in what is computed side by side. Measured 1.5e-6.
const SAME: f64 = 1e-5;

const MASK: u32 = 100;

fn model() -> RandomModel {
    RandomModel::new(config(2, 4), 1)
}

fn params(sequences: usize) -> ContextParams {
    ContextParams { sequences, threads: 1, kv_type: KvType::F32, ..ContextParams::default() }
}

fn context(model: &Model, sequences: usize) -> Context {
    Context::new(model, &params(sequences)).unwrap()
}

/// A generation that is fixed in every detail: the plan and, by position, what is written.
struct Case {
    plan: Plan,
    text: Vec<u32>,
}

impl Case {
    /// `counts` is the schedule of the tokens that are not among the `known`.
    fn new(random: &mut Random, known: usize, counts: &[u32]) -> Self {
        let length = known + counts.iter().sum::<u32>() as usize;
        let text: Vec<u32> = (0..length).map(|_| random.below(MASK as usize) as u32).collect();
        let order = random.permutation(length);
        let known = order[..known].iter().map(|&p| text[p as usize]).collect();
        Self { plan: Plan { known, order, counts: counts.to_vec(), diffusion: 0 }, text }
    }

    /// Logits by slot, each step's computed by the definition from nothing: all tokens known before it, then
    /// its masks.
    fn expected(&self, model: &RandomModel) -> Vec<Vec<f64>> {
        let mut all = vec![vec![]; self.plan.known.len()];
        for &count in &self.plan.counts {
            let end = all.len() + count as usize;
            let row = |(slot, &position): (usize, &u32)| {
                (if slot < all.len() { self.text[position as usize] } else { MASK }, position)
            };
            let rows: Vec<_> = self.plan.order[..end].iter().enumerate().map(row).collect();
            let mut logits = model.logits(&rows);
            all.extend(logits.drain(all.len()..));
        }
        all
    }
}

/// Runs the cases side by side. Logits by sequence and slot; empty where known beforehand.
fn replay(context: &mut Context, cases: &[&Case]) -> Vec<Vec<Vec<f64>>> {
    let plans: Vec<Plan> = cases.iter().map(|case| case.plan.clone()).collect();
    context.begin_planned(&plans, Sampling::default(), 0).unwrap();
    let mut all: Vec<_> = cases.iter().map(|case| vec![vec![]; case.text.len()]).collect();
    let choose = |all: &mut Vec<Vec<Vec<f64>>>, choice: &esolm::Choice<'_>| {
        all[choice.sequence][choice.slot] = choice.logits.iter().map(|&l| f64::from(l)).collect();
        cases[choice.sequence].text[choice.position as usize]
    };
    while context.step_choosing(|_, choice| Ok(choose(&mut all, choice))).unwrap().is_some() {}
    for (number, case) in cases.iter().enumerate() {
        assert_eq!(context.tokens(number).unwrap(), case.text);
    }
    all
}

fn largest_difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let rows = a.iter().zip(b);
    rows.map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
    })
    .fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// Schedules that have little in common: one by one, all at once, uneven, beyond a group of 32 cache slots.
fn cases() -> Vec<Case> {
    let mut random = Random(2);
    let mut case = |known, counts: &[u32]| Case::new(&mut random, known, counts);
    vec![
        case(0, &[1; 12]),
        case(0, &[20]),
        case(0, &[1, 7, 2, 9, 1, 1, 1]),
        case(5, &[3, 8, 1, 1, 4]),
        case(1, &[1]),
        case(17, &[6, 1, 1]),
        case(30, &[1, 1, 1, 4, 11]),
        case(0, &[13, 13, 13, 9]),
        case(3, &[40, 1, 1, 1, 1, 1]),
    ]
}

#[test]
fn a_cached_generation_equals_one_recomputed_from_scratch() {
    let mut most: f64 = 0.0;
    for (number, (blocks, heads)) in [(2, 4), (3, 2)].into_iter().enumerate() {
        let reference = RandomModel::new(config(blocks, heads), 10 + number as u64);
        let model = reference.open();
        let mut contexts: Vec<_> = [0, 5, 1]
            .map(|pass_rows| Context::new(&model, &ContextParams { pass_rows, ..params(1) }).unwrap())
            .into();
        for (number, case) in cases().iter().enumerate() {
            let expected = case.expected(&reference);
            for context in &mut contexts {
                let difference = largest_difference(&replay(context, &[case])[0], &expected);
                assert!(difference <= EXACT, "case {number} of {blocks} blocks: {difference:e}");
                most = most.max(difference);
            }
        }
    }
    println!("largest difference from the definition: {most:e}");
}

#[test]
fn widths_of_any_proportion_are_computed_as_defined() {
    // Hidden layers narrower and much wider than the rest, and widths that are no multiples of 32.
    for (embedding_length, head_count, feed_forward_length) in [(64, 4, 8), (40, 5, 72), (64, 4, 1160)] {
        let widths = Config { embedding_length, feed_forward_length, ..config(3, head_count) };
        let reference = RandomModel::new(widths, 5);
        let mut context = context(&reference.open(), 1);
        for case in cases() {
            let expected = case.expected(&reference);
            let difference = largest_difference(&replay(&mut context, &[&case])[0], &expected);
            assert!(difference <= 1e-3, "{embedding_length}, {feed_forward_length}: {difference:e}");
        }
    }
}

#[test]
fn the_definition_notices_what_the_tolerance_must_not_hide() {
    // A wrong position, a wrong token before, a row more: each moves logits by far more than the tolerance.
    let reference = model();
    let rows = [(3, 0), (50, 4), (7, 2), (MASK, 1)];
    let last = |rows: &[(u32, u32)]| vec![reference.logits(rows).pop().unwrap()];
    for other in [
        &[(3, 0), (50, 5), (7, 2), (MASK, 1)][..],
        &[(3, 0), (51, 4), (7, 2), (MASK, 1)],
        &[(3, 0), (50, 4), (MASK, 1)],
    ] {
        assert!(largest_difference(&last(&rows), &last(other)) > 1000.0 * EXACT);
    }
}

#[test]
fn a_ragged_batch_equals_its_sequences_one_by_one() {
    let model = model().open();
    let cases = cases();
    let all: Vec<&Case> = cases.iter().collect();
    let mut single = context(&model, 1);
    let alone: Vec<_> = all.iter().map(|case| replay(&mut single, &[case]).remove(0)).collect();
    let mut most: f64 = 0.0;
    for pass_rows in [0, 7] {
        let params = ContextParams { pass_rows, ..params(all.len()) };
        let mut batch = Context::new(&model, &params).unwrap();
        let mut check = |numbers: &[usize]| {
            let together: Vec<&Case> = numbers.iter().map(|&n| all[n]).collect();
            for (logits, &number) in replay(&mut batch, &together).iter().zip(numbers) {
                let difference = largest_difference(logits, &alone[number]);
                assert!(difference <= SAME, "sequence {number} of {numbers:?}: {difference:e}");
                most = most.max(difference);
            }
        };
        check(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        // Smaller batches in the same context, after larger ones.
        check(&[8, 3]);
        check(&[5]);
        check(&[2, 2, 7]);
    }
    println!("largest difference between batch and single: {most:e}");
}

/// Runs a generation to its end. The steps' updates.
fn finish(context: &mut Context) -> Vec<Vec<Update>> {
    let mut steps = Vec::new();
    while let Some(step) = context.step().unwrap() {
        assert_eq!(step.index, steps.len());
        steps.push(step.updates.to_vec());
    }
    let (done, total) = context.progress();
    assert_eq!((done, total), (steps.len(), steps.len()));
    steps
}

fn text(context: &mut Context, prompts: &[Prompt], params: &GenerateParams) -> Vec<Vec<u32>> {
    context.begin(prompts, params).unwrap();
    finish(context);
    (0..prompts.len()).map(|n| context.tokens(n).unwrap().to_vec()).collect()
}

fn generation(seed: u64) -> GenerateParams<'static> {
    GenerateParams { alpha_0: 0.5, steps: 6, seed, ..GenerateParams::default() }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    // Little work: threads that wait spin, and here there may be more of them than cores.
    let model = model().open();
    let mut random = Random(6);
    let cases = [Case::new(&mut random, 3, &[9, 1, 4]), Case::new(&mut random, 0, &[2, 12])];
    let some: Vec<&Case> = cases.iter().collect();
    let generation = GenerateParams { length: 16, steps: 3, alpha_0: 0.9, ..generation(5) };
    let run = |threads| {
        let mut context = Context::new(&model, &ContextParams { threads, ..params(2) }).unwrap();
        assert_eq!(context.threads(), threads);
        let logits = replay(&mut context, &some);
        (logits, text(&mut context, &vec![Prompt::default(); 2], &generation))
    };
    let one = run(1);
    for threads in [2, 3] {
        let more = run(threads);
        assert!(more.0 == one.0, "{threads} threads: the logits differ");
        assert_eq!(more.1, one.1, "{threads} threads");
    }
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let model = model().open();
    let mut context = context(&model, 2);
    let prompts = vec![Prompt::default(); 2];
    let first = text(&mut context, &prompts, &generation(1));
    assert_eq!(text(&mut context, &prompts, &generation(1)), first);
    assert_eq!(text(&mut self::context(&model, 2), &prompts, &generation(1)), first, "a fresh context");
    assert_ne!(first[0], first[1], "sequences of one batch");
    for seed in 2..6 {
        let other = text(&mut context, &prompts, &generation(seed));
        assert!(first.iter().all(|text| !other.contains(text)), "seed {seed}");
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_neighbours() {
    let model = model().open();
    let mut context = context(&model, 3);
    let prompt = Prompt { known: vec![(3, 9), (40, 1)] };
    let alone = text(&mut context, std::slice::from_ref(&prompt), &generation(1));
    let other = Prompt::prefix(&(0..30).collect::<Vec<_>>());
    for neighbours in [[Prompt::default(), other.clone()], [other, Prompt { known: vec![(47, 3)] }]] {
        let [one, two] = neighbours;
        let together = text(&mut context, &[prompt.clone(), one, two], &generation(1));
        assert_eq!(together[0], alone[0]);
    }
}

#[test]
fn known_tokens_stay_wherever_they_are() {
    let model = model().open();
    let mut context = context(&model, 1);
    let mut random = Random(3);
    for case in 0..12 {
        let count = 1 + random.below(40);
        let mut known: Vec<(u32, u32)> = random.permutation(48)[..count]
            .iter()
            .map(|&position| (position, random.below(MASK as usize) as u32))
            .collect();
        context.begin(&[Prompt { known: known.clone() }], &generation(case)).unwrap();
        let mut written: Vec<u32> = finish(&mut context).concat().iter().map(|u| u.position).collect();
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
fn the_order_of_a_prompts_tokens_does_not_matter() {
    let model = model().open();
    let mut context = context(&model, 1);
    let mut known = vec![(30, 5), (2, 6), (11, 7)];
    let first = text(&mut context, &[Prompt { known: known.clone() }], &generation(1));
    known.reverse();
    assert_eq!(text(&mut context, &[Prompt { known }], &generation(1)), first);
}

#[test]
fn an_impossible_beginning_is_an_error_and_the_last_generation_goes_on() {
    let model = model().open();
    let mut context = context(&model, 2);
    let good = [Prompt::prefix(&[1, 2]), Prompt::default()];
    let whole = text(&mut context, &good, &generation(1));
    context.begin(&good, &generation(1)).unwrap();
    for _ in 0..3 {
        context.step().unwrap();
    }
    let before = (context.progress(), context.tokens(0).unwrap().to_vec(), context.sequences());
    let known = |known: &[(u32, u32)]| Prompt { known: known.to_vec() };
    let g = generation(1);
    let bad_params = [
        GenerateParams { length: 49, ..g },
        GenerateParams { steps: 0, ..g },
        GenerateParams { steps: usize::MAX, ..g },
        GenerateParams { alpha_0: 1.5, ..g },
        GenerateParams { alpha_0: -0.1, ..g },
        GenerateParams { alpha_0: f64::NAN, ..g },
        GenerateParams { sampling: Sampling { top_p: 0.0, ..Sampling::default() }, ..g },
        GenerateParams { sampling: Sampling { temperature: f32::NAN, ..Sampling::default() }, ..g },
    ];
    let bad_prompts = [
        (vec![known(&[(1, 2), (4, 5), (1, 3)])], "twice"),
        (vec![known(&[(48, 2)])], "beyond the length"),
        (vec![known(&[(u32::MAX, 2)])], "beyond the length"),
        (vec![known(&[(0, MASK)])], "no such token"),
        (vec![known(&[(0, 101)])], "no such token"),
        (vec![Prompt::default(), known(&[(0, u32::MAX)])], "prompt 1"),
        (vec![Prompt::default(); 3], "3 sequences"),
        (vec![], "0 sequences"),
    ];
    let mut refuse = |prompts: &[Prompt], params: &GenerateParams, says: &str| {
        let error = context.begin(prompts, params).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
        let now = (context.progress(), context.tokens(0).unwrap().to_vec(), context.sequences());
        assert_eq!(now, before, "{says}");
    };
    for params in &bad_params {
        refuse(&good, params, "");
    }
    for (prompts, says) in &bad_prompts {
        refuse(prompts, &g, says);
    }
    refuse(&[known(&[(10, 2)])], &GenerateParams { length: 10, ..g }, "beyond the length");
    while context.step().unwrap().is_some() {}
    assert_eq!([0, 1].map(|n| context.tokens(n).unwrap().to_vec()).as_slice(), whole);
}

#[test]
fn impossible_plans_are_errors() {
    let model = model().open();
    let mut context = context(&model, 1);
    let plan = |known: &[u32], order: &[u32], counts: &[u32]| Plan {
        known: known.to_vec(),
        order: order.to_vec(),
        counts: counts.to_vec(),
        diffusion: 0,
    };
    for bad in [
        plan(&[], &[0, 0, 1], &[3]),
        plan(&[], &[0, 1, 3], &[3]),
        plan(&[], &[], &[]),
        plan(&[], &[0, 1, 2], &[2]),
        plan(&[], &[0, 1, 2], &[2, 0, 1]),
        plan(&[], &[0, 1, 2], &[u32::MAX, 4]),
        plan(&[1, 2], &[0, 1, 2], &[2]),
        plan(&[1, 2, 3, 4], &[0, 1, 2], &[]),
        plan(&[MASK], &[0, 1, 2], &[2]),
        plan(&[], &(0..49).collect::<Vec<_>>(), &[49]),
    ] {
        let result = context.begin_planned(std::slice::from_ref(&bad), Sampling::default(), 0);
        assert!(matches!(result, Err(Error::InvalidArgument(_))), "{bad:?}");
    }
    let nothing = context.begin_planned(&[], Sampling::default(), 0);
    assert!(matches!(nothing, Err(Error::InvalidArgument(_))), "no plan");
}

#[test]
fn a_cancelled_generation_goes_on_as_if_it_had_not_been() {
    let model = model().open();
    for pass_rows in [0, 5] {
        let mut context = Context::new(&model, &ContextParams { pass_rows, ..params(2) }).unwrap();
        let prompts = [Prompt::prefix(&[4, 5, 6]), Prompt::default()];
        let whole = text(&mut context, &prompts, &generation(8));
        context.begin(&prompts, &generation(8)).unwrap();
        let token = context.cancel_token();
        loop {
            token.cancel();
            let (done, total) = context.progress();
            if done == total {
                assert!(context.step().unwrap().is_none(), "nothing is left to cancel");
                break;
            }
            for _ in 0..2 {
                assert!(matches!(context.step(), Err(Error::Cancelled)));
            }
            assert_eq!(context.progress().0, done);
            token.reset();
            context.step().unwrap().unwrap();
        }
        assert_eq!([0, 1].map(|n| context.tokens(n).unwrap().to_vec()).as_slice(), whole);
        token.reset();
        context.begin(&prompts, &generation(8)).unwrap();
        token.cancel();
        let refused = context.begin(&prompts, &generation(8));
        assert!(matches!(refused, Err(Error::Cancelled)), "a cancel before the beginning is not lost");
        assert!(matches!(context.step(), Err(Error::Cancelled)));
        token.reset();
        finish(&mut context);
    }
}

#[test]
fn a_callback_sees_what_each_step_wrote_and_can_stop() {
    let model = model().open();
    let mut context = context(&model, 2);
    let prompts = [Prompt::prefix(&[4, 5, 6]), Prompt::default()];
    let whole = text(&mut context, &prompts, &generation(8));
    let (_, steps) = context.progress();
    for stop_at in [0, 2, steps - 1] {
        let mut seen = [vec![MASK; 48], vec![MASK; 48]];
        seen[0][..3].copy_from_slice(&[4, 5, 6]);
        let mut calls = 0;
        let stopped = context.generate(&prompts, &generation(8), |step| {
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
        let written = [0, 1].map(|n| context.tokens(n).unwrap().to_vec());
        assert_eq!(written, seen, "what was written up to there, and no more");
        context.finish(|_| ControlFlow::Continue(())).unwrap();
        assert_eq!([0, 1].map(|n| context.tokens(n).unwrap().to_vec()).as_slice(), whole);
    }
}

#[test]
fn an_error_in_the_middle_of_a_step_undoes_the_step() {
    let model = model().open();
    for pass_rows in [0, 5] {
        let mut context = Context::new(&model, &ContextParams { pass_rows, ..params(2) }).unwrap();
        let prompts = [Prompt::prefix(&[4, 5, 6]), Prompt::default()];
        let whole = text(&mut context, &prompts, &generation(8));
        context.begin(&prompts, &generation(8)).unwrap();
        let mut random = Random(4);
        loop {
            let before = [0, 1].map(|n| context.tokens(n).unwrap().to_vec());
            // After some tokens the callback fails, chooses the mask, or a token that does not exist.
            let (fail_at, how) = (random.below(4), random.below(3));
            let mut calls = 0;
            let result = context.step_choosing(|_, _| {
                calls += 1;
                match (calls > fail_at, how) {
                    (false, _) => Ok(calls as u32),
                    (true, 0) => Err(Error::Busy),
                    (true, 1) => Ok(MASK),
                    (true, _) => Ok(u32::MAX),
                }
            });
            match result {
                Ok(None) => break,
                // Fewer tokens than that were due, so the step went through: begin again, up to it.
                Ok(Some(_)) => {
                    let (done, _) = context.progress();
                    context.begin(&prompts, &generation(8)).unwrap();
                    for _ in 1..done {
                        context.step().unwrap();
                    }
                }
                Err(error) => {
                    assert!(matches!(error, Error::Busy | Error::InvalidArgument(_)), "{error}");
                }
            }
            assert_eq!([0, 1].map(|n| context.tokens(n).unwrap().to_vec()), before);
            context.step().unwrap().unwrap();
        }
        assert_eq!([0, 1].map(|n| context.tokens(n).unwrap().to_vec()).as_slice(), whole);
    }
}

#[test]
fn memory_use_is_what_the_parameters_ask_for() {
    let model = model().open();
    let usage = |params: ContextParams| Context::memory_use(&model, &params).unwrap();
    for (kv_type, bytes) in [(KvType::F32, 4), (KvType::F16, 2)] {
        for sequences in [1, 3] {
            // Slots for the text and, in whole groups of 32, for as many masks or half of a pass.
            for (length, pass_rows, slots) in
                [(1, 0, 64), (32, 0, 64), (33, 0, 128), (48, 95, 128), (48, 64, 96), (48, 1, 96)]
            {
                let memory = usage(ContextParams { kv_type, length, pass_rows, ..params(sequences) });
                // Keys and values of 2 blocks, 64 wide.
                assert_eq!(memory.kv_cache, 2 * 2 * 64 * bytes * slots * sequences);
                let MemoryUse { weights, arena, kv_cache, compute } = memory;
                assert_eq!(weights, model.tensor_bytes());
                assert!(arena >= kv_cache + compute, "{memory:?}");
                assert!(arena < kv_cache + compute + (1 << 20), "{memory:?}");
            }
        }
    }
    let least = usage(ContextParams { pass_rows: 1, ..params(1) });
    assert!(least.compute < usage(params(1)).compute, "fewer rows need less");
    let too_long = ContextParams { length: 49, ..params(1) };
    assert!(matches!(Context::memory_use(&model, &too_long), Err(Error::InvalidArgument(_))));
    assert!(matches!(Context::new(&model, &too_long), Err(Error::InvalidArgument(_))));
    let absurd = ContextParams { sequences: usize::MAX, ..params(1) };
    assert!(matches!(Context::memory_use(&model, &absurd), Err(Error::InvalidArgument(_))));
    let absurd = ContextParams { pass_rows: usize::MAX, ..params(2) };
    assert_eq!(usage(absurd), usage(ContextParams { pass_rows: 2 * 128, ..params(2) }));
}

#[test]
fn a_prompt_without_holes_is_finished_at_once() {
    let model = model().open();
    let mut context = context(&model, 2);
    let full = Prompt::prefix(&(0..48).collect::<Vec<_>>());
    context.begin(std::slice::from_ref(&full), &generation(1)).unwrap();
    assert_eq!(context.progress(), (0, 0));
    assert_eq!(finish(&mut context), Vec::<Vec<Update>>::new());
    assert!(context.tokens(0).unwrap().iter().copied().eq(0..48));
    // Beside one with holes it is left alone.
    context.begin(&[full, Prompt::default()], &generation(1)).unwrap();
    let steps = finish(&mut context);
    assert!(steps.concat().iter().all(|update| update.sequence == 1));
    assert_eq!(steps.concat().len(), 48);
    assert!(context.tokens(0).unwrap().iter().copied().eq(0..48));
}

#[test]
fn without_diffusion_tokens_come_one_by_one_from_left_to_right() {
    let model = model().open();
    let mut context = context(&model, 1);
    let params = GenerateParams { alpha_0: 0.0, ..generation(1) };
    context.begin(&[Prompt::default()], &params).unwrap();
    let positions = |steps: Vec<Vec<Update>>| -> Vec<Vec<u32>> {
        steps.iter().map(|step| step.iter().map(|u| u.position).collect()).collect()
    };
    let expected: Vec<Vec<u32>> = (0..48).map(|p| vec![p]).collect();
    assert_eq!(positions(finish(&mut context)), expected);
    let prompt = Prompt { known: vec![(1, 7), (40, 8)] };
    context.begin(&[prompt], &params).unwrap();
    let expected: Vec<Vec<u32>> = (0..48).filter(|p| ![1, 40].contains(p)).map(|p| vec![p]).collect();
    assert_eq!(positions(finish(&mut context)), expected);
}

#[test]
fn one_step_of_pure_diffusion_writes_everything() {
    let model = model().open();
    let mut context = context(&model, 2);
    let params = GenerateParams { alpha_0: 1.0, steps: 1, ..generation(1) };
    context.begin(&[Prompt::default(), Prompt::prefix(&[1])], &params).unwrap();
    let steps = finish(&mut context);
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].len(), 48 + 47);
    assert!(!context.tokens(0).unwrap().contains(&MASK));
}

#[test]
fn shorter_texts_than_the_contexts_are_written() {
    let model = model().open();
    let mut context = context(&model, 1);
    for length in [1, 31, 32, 33, 48] {
        let texts = text(&mut context, &[Prompt::default()], &GenerateParams { length, ..generation(1) });
        assert_eq!(texts[0].len(), length);
        assert!(!texts[0].contains(&MASK));
    }
}

#[test]
fn damaged_weights_are_an_error_and_the_context_can_begin_again() {
    // Only token 7's embedding is damaged, and its bias keeps it from being drawn.
    let mut damaged = model();
    damaged.tensors.get_mut("output.bias").unwrap()[7] = -1e4;
    let sound = text(&mut context(&damaged.open(), 1), &[Prompt::default()], &generation(2));
    for value in [f32::NAN, f32::INFINITY] {
        damaged.tensors.get_mut("token_embd.weight").unwrap()[7 * 64 + 3] = value;
        let mut context = context(&damaged.open(), 1);
        for _ in 0..2 {
            context.begin(&[Prompt { known: vec![(20, 7)] }], &generation(2)).unwrap();
            for _ in 0..2 {
                assert!(matches!(context.step(), Err(Error::NotFinite(_))));
            }
            assert_eq!(context.progress().0, 0);
            assert_eq!(text(&mut context, &[Prompt::default()], &generation(2)), sound);
        }
    }
    for name in ["blk.1.ffn_up.weight", "blk.0.attn_qkv.weight", "output.bias", "output_norm.weight"] {
        let mut damaged = model();
        damaged.tensors.get_mut(name).unwrap()[5] = f32::NAN;
        let mut context = context(&damaged.open(), 1);
        for sampling in [Sampling::default(), Sampling { temperature: 0.0, ..Sampling::default() }] {
            let params = GenerateParams { sampling, ..generation(2) };
            context.begin(&[Prompt::default()], &params).unwrap();
            assert!(matches!(context.step(), Err(Error::NotFinite(_))), "{name}");
        }
    }
}
