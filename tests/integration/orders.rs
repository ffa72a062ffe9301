//! Orders and schedules: what is written when, and that the cache is exact in any order.

use esolm::{Context, Error, GenerateParams, Order, Prompt, Schedule, Variant};

use crate::reference::{LENGTH, MASK, Network, Random};
use crate::replay::check_steps;
use crate::runs::{context, diffusion, tokens};

pub fn orders(given: &[u32]) -> Vec<Order<'_>> {
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
        Order::Custom(given),
    ]
}

fn schedules() -> [Schedule<'static>; 4] {
    [Schedule::Reference, Schedule::Custom(&[1]), Schedule::Custom(&[4, 1, 7]), Schedule::Custom(&[u32::MAX])]
}

/// No prompt, a prefix, and tokens here and there.
pub fn prompts() -> [Prompt; 3] {
    let scattered = Random(9).permutation(LENGTH)[..11].iter().map(|&p| (p, p * 2)).collect();
    [Prompt::default(), Prompt::prefix(&[4, 5, 6, 7, 8]).unwrap(), Prompt { known: scattered }]
}

/// Runs a generation to its end. Returns the positions that each step wrote, by sequence.
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
        Order::Custom(given) => {
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
    if let Schedule::Custom(counts) = schedule
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
        assert!(ascending(&written) || matches!(order, Order::Custom(_)));
    }
}

#[test]
fn every_order_writes_each_position_once_and_keeps_known_tokens() {
    let given = Random(5).permutation(LENGTH);
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm] {
        let model = Network::small(variant, 1).model();
        let (mut batch, mut single) = (context(&model, 3), context(&model, 1));
        for order in orders(&given) {
            for schedule in schedules() {
                for alpha_0 in [1.0, 0.4, 0.0] {
                    if variant == Variant::EsoA && alpha_0 == 0.4 && matches!(order, Order::Blocks { .. }) {
                        continue;
                    }
                    let what = format!("{variant:?} {order:?} {schedule:?} {alpha_0}");
                    let params =
                        GenerateParams { order, schedule, alpha_0, steps: 9, seed: 3, ..diffusion() };
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
                    let texts = tokens(&batch);
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
fn seed_changes_random_orders_only() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let given = Random(5).permutation(LENGTH);
    for order in orders(&given) {
        let mut run = |seed| {
            let params = GenerateParams { order, schedule: Schedule::Custom(&[3]), seed, ..diffusion() };
            steps(&mut context, &[Prompt::default()], &params)
        };
        let random = match order {
            Order::Strided { shuffle, .. } => shuffle,
            Order::LeftToRight | Order::Custom(_) => false,
            Order::Random | Order::Blocks { .. } => true,
        };
        assert_eq!(run(1) != run(2), random, "{order:?}");
    }
}

#[test]
fn cached_logits_match_reference_network_in_every_order() {
    let network = Network::small(Variant::EsoB, 1);
    let mut context = context(&network.model(), 1);
    let given = Random(6).permutation(LENGTH);
    let mut largest: f64 = 0.0;
    for order in orders(&given) {
        for schedule in [Schedule::Reference, Schedule::Custom(&[5, 2, 9])] {
            let params = GenerateParams { order, schedule, alpha_0: 0.7, steps: 9, seed: 4, ..diffusion() };
            let prompt = &prompts()[2];
            context.begin(std::slice::from_ref(prompt), &params).unwrap();
            let difference = check_steps(&mut context, &network, prompt, |masks, written| {
                assert_eq!(masks, written, "{order:?} {schedule:?}");
            });
            largest = largest.max(difference);
        }
    }
    println!("largest difference from the reference network: {largest:e}");
}

fn refused(variant: Variant, params: GenerateParams<'_>, says: &str) {
    let model = Network::small(variant, 1).model();
    let mut context = context(&model, 2);
    let error = context.begin(&[Prompt::default()], &params).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
    assert_eq!(context.sequences(), 0);
}

#[test]
fn invalid_orders_and_schedules_are_refused() {
    fn with_order(order: Order<'_>) -> GenerateParams<'_> {
        GenerateParams { order, ..diffusion() }
    }
    fn with_schedule(schedule: Schedule<'_>) -> GenerateParams<'_> {
        GenerateParams { schedule, ..diffusion() }
    }
    let changed = |place: usize, position: u32| {
        let mut order: Vec<u32> = (0..48).collect();
        order[place] = position;
        order
    };
    refused(Variant::EsoB, with_order(Order::Custom(&changed(0, 0)[1..])), "47 positions");
    refused(Variant::EsoB, with_order(Order::Custom(&changed(7, 8))), "position 8 twice");
    refused(Variant::EsoB, with_order(Order::Custom(&changed(8, 48))), "48 at 8, beyond");
    for stride in [0, 49, usize::MAX] {
        refused(Variant::EsoB, with_order(Order::Strided { stride, shuffle: true }), "a stride of");
    }
    refused(Variant::EsoB, with_order(Order::Blocks { size: 0 }), "no positions");
    refused(Variant::EsoB, with_schedule(Schedule::Custom(&[])), "without steps");
    refused(Variant::EsoB, with_schedule(Schedule::Custom(&[1, 0])), "step 1 ");
    let backwards: Vec<u32> = (0..48).rev().collect();
    for order in
        [Order::Strided { stride: 8, shuffle: false }, Order::Blocks { size: 8 }, Order::Custom(&backwards)]
    {
        refused(Variant::Ar, with_order(order), "from left to right");
    }
    refused(Variant::Ar, with_schedule(Schedule::Custom(&[2])), "one by one");
    let blocks = GenerateParams { alpha_0: 0.5, ..with_order(Order::Blocks { size: 8 }) };
    refused(Variant::EsoA, blocks, "in blocks, alpha_0 is 0 or 1");
}
