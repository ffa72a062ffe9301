//! Orders and schedules: what is written when, and that the cache holds whatever the order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod random_model;

use esolm::config::Variant;
use esolm::{Context, ContextParams, Error, GenerateParams, KvType, Model, Order, Prompt, Schedule};
use random_model::{Random, RandomModel, config};

/// Against the definition in f64, as in `properties.rs`.
const EXACT: f64 = 1e-4;
/// Between a log-probability reported and one scored. Measured 4e-6.
const SAME: f64 = 1e-4;
const LENGTH: usize = 48;
const MASK: u32 = 100;

fn reference(variant: Variant) -> RandomModel {
    RandomModel::new(esolm::config::Config { variant, ..config(2, 4) }, 1)
}

fn context(model: &Model, sequences: usize) -> Context {
    let params = ContextParams { sequences, threads: 1, kv_type: KvType::F32, ..ContextParams::default() };
    Context::new(model, &params).unwrap()
}

fn orders(given: &[u32]) -> Vec<Order<'_>> {
    vec![
        Order::Random,
        Order::LeftToRight,
        Order::Strided { stride: 8, shuffle: false },
        Order::Strided { stride: 7, shuffle: true },
        Order::Strided { stride: 48, shuffle: true },
        Order::Strided { stride: 1, shuffle: false },
        Order::Blocks { size: 16 },
        Order::Blocks { size: 5 },
        Order::Blocks { size: usize::MAX },
        Order::Given(given),
    ]
}

fn schedules() -> [Schedule<'static>; 4] {
    [Schedule::Reference, Schedule::Given(&[1]), Schedule::Given(&[4, 1, 7]), Schedule::Given(&[u32::MAX])]
}

/// No prompt, a prefix, and tokens here and there.
fn prompts() -> [Prompt; 3] {
    let scattered = Random(9).permutation(LENGTH)[..11].iter().map(|&p| (p, p * 2)).collect();
    [Prompt::default(), Prompt::prefix(&[4, 5, 6, 7, 8]), Prompt { known: scattered }]
}

/// Runs a generation to its end. The positions that each step wrote, by sequence.
fn steps(context: &mut Context, prompts: &[Prompt], params: &GenerateParams) -> Vec<Vec<Vec<u32>>> {
    context.begin(prompts, params).unwrap();
    let mut all = vec![vec![]; prompts.len()];
    while let Some(step) = context.step().unwrap() {
        for (sequence, steps) in all.iter_mut().enumerate() {
            let own = step.updates.iter().filter(|u| u.sequence as usize == sequence);
            steps.push(own.map(|u| u.position).collect::<Vec<_>>());
        }
    }
    all.iter_mut().for_each(|steps| steps.retain(|step| !step.is_empty()));
    all
}

fn ascending(positions: &[u32]) -> bool {
    positions.is_sorted_by(|a, b| a < b)
}

/// What has to hold for one sequence of unknown positions, whatever the order.
fn check_order(order: Order<'_>, schedule: Schedule<'_>, alpha_0: f64, steps: &[Vec<u32>]) {
    let written = steps.concat();
    match order {
        Order::LeftToRight => assert!(ascending(&written)),
        Order::Given(given) => {
            let expected: Vec<u32> = given.iter().copied().filter(|p| written.contains(p)).collect();
            assert_eq!(written, expected);
        }
        Order::Strided { stride, shuffle } => {
            if schedule == Schedule::Reference && alpha_0 == 1.0 {
                assert!(
                    steps
                        .iter()
                        .all(|step| step.iter().all(|p| *p as usize % stride == step[0] as usize % stride))
                );
                assert!(
                    shuffle
                        || steps.iter().all(|step| ascending(step))
                            && steps.is_sorted_by_key(|s| s[0] as usize % stride)
                );
            }
        }
        Order::Blocks { size } => assert!(written.is_sorted_by_key(|p| *p as usize / size)),
        Order::Random => (),
    }
    if let Schedule::Given(counts) = schedule
        && alpha_0 == 1.0
        && !matches!(order, Order::Blocks { .. })
    {
        let mut left = written.len();
        for (i, step) in steps.iter().enumerate() {
            let due = (*counts.get(i).unwrap_or(counts.last().unwrap()) as usize).min(left);
            assert_eq!(step.len(), due);
            left -= due;
        }
    }
    if alpha_0 == 0.0 {
        assert!(steps.iter().all(|step| step.len() == 1));
        assert!(ascending(&written) || matches!(order, Order::Given(_)));
    }
}

#[test]
fn every_order_writes_each_position_once_and_keeps_what_is_known() {
    let given = Random(5).permutation(LENGTH);
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm] {
        let model = reference(variant).open();
        let (mut batch, mut single) = (context(&model, 3), context(&model, 1));
        for order in orders(&given) {
            for schedule in schedules() {
                for alpha_0 in [1.0, 0.4, 0.0] {
                    if variant == Variant::EsoA && alpha_0 == 0.4 && matches!(order, Order::Blocks { .. }) {
                        continue;
                    }
                    let what = format!("{variant:?} {order:?} {schedule:?} {alpha_0}");
                    let params = GenerateParams {
                        order,
                        schedule,
                        alpha_0,
                        steps: 9,
                        seed: 3,
                        ..GenerateParams::default()
                    };
                    let prompts = prompts();
                    let all = steps(&mut batch, &prompts, &params);
                    for (number, (steps, prompt)) in all.iter().zip(&prompts).enumerate() {
                        let tokens = batch.tokens(number).unwrap();
                        assert!(prompt.known.iter().all(|&(p, t)| tokens[p as usize] == t), "{what}");
                        assert!(!tokens.contains(&MASK), "{what}");
                        // The order is the known positions, ascending, and then what the steps wrote.
                        let mut known: Vec<u32> = prompt.known.iter().map(|&(p, _)| p).collect();
                        known.sort_unstable();
                        let whole = [known, steps.concat()].concat();
                        assert_eq!(batch.order(number).unwrap(), whole, "{what}");
                        let mut sorted = whole.clone();
                        sorted.sort_unstable();
                        assert!(sorted.into_iter().eq(0..LENGTH as u32), "{what}");
                        let share = if variant == Variant::Mdlm { 1.0 } else { alpha_0 };
                        check_order(order, schedule, share, steps);
                    }
                    let texts: Vec<_> = (0..3).map(|n| batch.tokens(n).unwrap().to_vec()).collect();
                    if variant == Variant::EsoB {
                        assert_eq!(steps(&mut batch, &prompts, &params), all, "{what}: the same seed");
                        assert_eq!(steps(&mut single, &prompts[..1], &params)[0], all[0], "{what}: alone");
                        assert_eq!(single.tokens(0).unwrap(), texts[0], "{what}: alone");
                    }
                }
            }
        }
    }
}

#[test]
fn another_seed_gives_another_order_where_chance_has_a_say() {
    let model = reference(Variant::EsoB).open();
    let mut context = context(&model, 1);
    let given = Random(5).permutation(LENGTH);
    for order in orders(&given) {
        let mut run = |seed| {
            let params =
                GenerateParams { order, schedule: Schedule::Given(&[3]), seed, ..GenerateParams::default() };
            steps(&mut context, &[Prompt::default()], &params)
        };
        let random = match order {
            Order::Strided { shuffle, .. } => shuffle,
            Order::LeftToRight | Order::Given(_) => false,
            Order::Random | Order::Blocks { .. } => true,
        };
        assert_eq!(run(1) != run(2), random, "{order:?}");
    }
}

#[test]
fn cached_equals_recomputed_in_every_order() {
    let reference = reference(Variant::EsoB);
    let model = reference.open();
    let given = Random(6).permutation(LENGTH);
    let mut context = context(&model, 1);
    let mut most: f64 = 0.0;
    for order in orders(&given) {
        for schedule in [Schedule::Reference, Schedule::Given(&[5, 2, 9])] {
            let params = GenerateParams {
                order,
                schedule,
                alpha_0: 0.7,
                steps: 9,
                seed: 4,
                ..GenerateParams::default()
            };
            let prompt = &prompts()[2];
            context.begin(std::slice::from_ref(prompt), &params).unwrap();
            let mut known: Vec<(u32, u32)> = prompt.known.clone();
            known.sort_unstable();
            let mut rows: Vec<(u32, u32)> = known.into_iter().map(|(p, t)| (t, p)).collect();
            let mut logits: Vec<Vec<f32>> = vec![];
            while let Some(step) = context
                .step_editing(|choice, _| {
                    logits.push(choice.logits.to_vec());
                    Ok(())
                })
                .unwrap()
            {
                let masks = step.updates.iter().map(|u| (MASK, u.position));
                let all: Vec<(u32, u32)> = rows.iter().copied().chain(masks).collect();
                let expected = reference.logits(&all);
                for (found, expected) in logits.drain(..).zip(&expected[rows.len()..]) {
                    for (a, b) in found.iter().zip(expected) {
                        most = most.max((f64::from(*a) - b).abs());
                    }
                }
                rows.extend(step.updates.iter().map(|u| (u.token, u.position)));
            }
            assert!(most <= EXACT, "{order:?} {schedule:?}: {most:e}");
        }
    }
    println!("largest difference from the definition: {most:e}");
}

/// Filters and temperature, which do not change what is reported.
const FILTERED: esolm::Sampling = esolm::Sampling { temperature: 0.8, top_k: 0, top_p: 0.9 };

fn one_by_one(order: Order<'_>, alpha_0: f64) -> GenerateParams<'_> {
    GenerateParams {
        order,
        alpha_0,
        schedule: Schedule::Given(&[1]),
        log_probs: true,
        seed: 8,
        sampling: FILTERED,
        ..GenerateParams::default()
    }
}

/// Runs what has begun to its end, one token per step. The log-probabilities reported.
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
fn a_samples_score_in_its_order_is_the_sum_of_what_was_reported() {
    let given = Random(7).permutation(LENGTH);
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Ar] {
        let model = reference(variant).open();
        let mut context = context(&model, 1);
        for order in orders(&given) {
            // Phases make no difference to (B). The diffusion of (A) is below.
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
        // Nobody asked, nothing is said.
        context.begin(&[Prompt::default()], &GenerateParams::default()).unwrap();
        assert!(context.step().unwrap().unwrap().log_probs.is_empty());
    }
}

#[test]
fn a_longer_texts_score_is_the_sum_of_what_was_reported_of_it() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = reference(variant).open();
        let mut context = context(&model, 1);
        for order in [Order::Random, Order::LeftToRight] {
            let short = GenerateParams { length: 20, ..one_by_one(order, 0.5) };
            context.begin(&[Prompt::prefix(&[1, 2, 3])], &short).unwrap();
            let first = reported(&mut context);
            assert_eq!(first.len(), 17);
            let longer = GenerateParams { seed: 9, ..one_by_one(order, 0.5) };
            context.extend(&[Prompt::default()], &longer).unwrap();
            let whole = [first, reported(&mut context)].concat();
            check_sample(&mut context, &whole, &format!("{variant:?} {order:?}"));
        }
    }
}

/// Where nothing is cached, what a token was drawn from is one step of diffusion: its row is that of the first unknown
/// position.
#[test]
fn a_diffused_samples_score_is_the_sum_of_what_was_reported() {
    let given = Random(7).permutation(LENGTH);
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let model = reference(variant).open();
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

fn refused(variant: Variant, params: GenerateParams<'_>, says: &str) {
    let model = reference(variant).open();
    let mut context = context(&model, 2);
    let error = context.begin(&[Prompt::default()], &params).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
    assert_eq!(context.sequences(), 0);
}

#[test]
fn what_cannot_hold_is_refused() {
    fn with_order(order: Order<'_>) -> GenerateParams<'_> {
        GenerateParams { order, ..GenerateParams::default() }
    }
    fn with_schedule(schedule: Schedule<'_>) -> GenerateParams<'_> {
        GenerateParams { schedule, ..GenerateParams::default() }
    }
    let changed = |place: usize, position: u32| {
        let mut order: Vec<u32> = (0..48).collect();
        order[place] = position;
        order
    };
    refused(Variant::EsoB, with_order(Order::Given(&changed(0, 0)[1..])), "47 positions");
    refused(Variant::EsoB, with_order(Order::Given(&changed(7, 8))), "position 8 twice");
    refused(Variant::EsoB, with_order(Order::Given(&changed(8, 48))), "48 at 8, beyond");
    for stride in [0, 49, usize::MAX] {
        refused(Variant::EsoB, with_order(Order::Strided { stride, shuffle: true }), "a stride of");
    }
    refused(Variant::EsoB, with_order(Order::Blocks { size: 0 }), "no positions");
    refused(Variant::EsoB, with_schedule(Schedule::Given(&[])), "without steps");
    refused(Variant::EsoB, with_schedule(Schedule::Given(&[1, 0])), "step 1 ");
    let backwards: Vec<u32> = (0..48).rev().collect();
    for order in
        [Order::Strided { stride: 8, shuffle: false }, Order::Blocks { size: 8 }, Order::Given(&backwards)]
    {
        refused(Variant::Ar, with_order(order), "from left to right");
    }
    refused(Variant::Ar, with_schedule(Schedule::Given(&[2])), "one by one");
    let blocks = GenerateParams { alpha_0: 0.5, ..with_order(Order::Blocks { size: 8 }) };
    refused(Variant::EsoA, blocks, "in blocks, alpha_0 is 0 or 1");
}
