//! BD3-LM against the authors' code (`tests/golden/bd3lm-tiny`), and small ones against the reference network.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use esolm::convert::Options;
use esolm::{
    Adaptive, Confidence, Config, Context, ContextParams, Error, GenerateParams, Model, Order, Plan, Prompt,
    SamplingParams, Schedule, ScoreParams, Variant,
};

use crate::golden::{self, EXACT, Golden};
use crate::reference::{Attention, LENGTH, MASK, Network, Random, config};
use crate::replay::step_of_text;
use crate::runs::{context, everywhere, finish, params, texts, there, tokens};

const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };
/// The authors' model's tokens, and a block of the random ones.
const VOCAB: usize = 98;
const BLOCK: usize = 6;

fn largest_difference(found: &[f32], expected: impl Iterator<Item = f32>) -> f32 {
    found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()))
}

/// The plan that writes the masked positions of a text block by block, some of a block in each step.
fn plan(text: &[u32], masked: &[bool], block: usize, at_once: usize) -> Plan {
    let (known, unknown): (Vec<u32>, Vec<u32>) =
        (0..text.len() as u32).partition(|&position| !masked[position as usize]);
    let blocks = unknown.chunk_by(|a, b| *a as usize / block == *b as usize / block);
    let counts = blocks.flat_map(|block| block.chunks(at_once).map(|step| step.len() as u32)).collect();
    Plan {
        known: known.iter().map(|&position| text[position as usize]).collect(),
        order: known.iter().chain(&unknown).copied().collect(),
        counts,
        diffusion: 0,
    }
}

/// The authors' model, and what they have of it.
fn authors_model() -> (Golden, Model) {
    let model = there(&golden::converted(&golden::path("bd3lm-tiny"), &Options::default()));
    assert_eq!((model.config().variant, model.config().block_length), (Variant::Bd3Lm, 4));
    assert_eq!(model.config().vocab_size, VOCAB);
    (Golden::open("bd3lm-tiny"), model)
}

#[test]
fn logits_match_the_reference() {
    let (golden, model) = authors_model();
    let [x0, xt] = ["fwd.x0", "fwd.xt"].map(|name| golden.ints(name));
    let expected = golden.floats("fwd.logits");
    for context in &mut everywhere(&model, 1) {
        let (mut most, mut rows) = (0f32, 0);
        for (text, (x0, xt)) in x0.chunks(32).zip(xt.chunks(32)).enumerate() {
            let masked: Vec<bool> = xt.iter().map(|&token| token == 97).collect();
            context.begin_with_plans(&[plan(x0, &masked, 4, 4)], GREEDY, 0).unwrap();
            while context
                .step_with_tokens(|_, row| {
                    let place = row.position as usize;
                    let expected = &expected[(text * 32 + place) * VOCAB..][..VOCAB];
                    most = most.max(largest_difference(row.logits, expected.iter().copied()));
                    rows += 1;
                    Ok(x0[place])
                })
                .unwrap()
                .is_some()
            {}
        }
        println!("BD3-LM: {most:e} in {rows} rows");
        assert!(most <= EXACT && rows > 20, "{most}, {rows} rows");
    }
}

#[test]
fn the_reference_s_text_is_written() {
    let (golden, model) = authors_model();
    let (order, tokens) = (golden.ints("traj.order"), golden.ints("traj.tokens"));
    let logits = golden.floats("traj.block_logits");
    let plan = Plan {
        known: vec![tokens[0]],
        order: [0].into_iter().chain(order.iter().copied()).collect(),
        counts: vec![1; 31],
        diffusion: 0,
    };
    for context in &mut everywhere(&model, 1) {
        context.begin_with_plans(std::slice::from_ref(&plan), GREEDY, 0).unwrap();
        for (step, &position) in order.iter().enumerate() {
            let expected = &logits[(step * 4 + position as usize % 4) * VOCAB..][..VOCAB];
            let mut found = f32::NAN;
            context
                .step_with_logits(|row, _| {
                    assert_eq!(row.position, position);
                    found = largest_difference(row.logits, expected.iter().copied());
                    Ok(())
                })
                .unwrap();
            assert!(found <= EXACT, "step {step}: {found}");
        }
        assert_eq!(context.tokens(0).unwrap(), tokens);
    }
}

pub fn network(seed: u64) -> Network {
    Network::random(Config { variant: Variant::Bd3Lm, block_length: BLOCK, ..config(3, 4) }, seed)
}

/// The logits at a position of a text, of which the first `end` are fed.
fn from_scratch(network: &Network, tokens: &[u32], end: usize, asked: &[u32]) -> Vec<Vec<f64>> {
    let rows: Vec<(u32, u32)> = tokens[..end].iter().copied().zip(0..).collect();
    let logits = network.logits(&rows, Attention::Blocks(BLOCK));
    asked.iter().map(|&position| logits[position as usize].clone()).collect()
}

#[test]
fn cached_blocks_equal_a_network_from_scratch() {
    let network = network(1);
    let text = Random(2).text(LENGTH);
    // Known tokens at the beginning, in the middle of blocks and behind, and a whole block.
    let masked: Vec<bool> =
        (0..LENGTH).map(|p| p > 7 && ![10, 11, 23, 40].contains(&p) && !(24..30).contains(&p)).collect();
    for at_once in [1, 2, 6] {
        for context in &mut everywhere(&there(&network.to_gguf()), 1) {
            context.begin_with_plans(&[plan(&text, &masked, BLOCK, at_once)], GREEDY, 0).unwrap();
            loop {
                let before = context.tokens(0).unwrap().to_vec();
                let seen = step_of_text(context, &text);
                if seen.is_empty() {
                    break;
                }
                let asked: Vec<u32> = seen.iter().map(|(position, _)| *position).collect();
                let end = ((asked[0] as usize / BLOCK + 1) * BLOCK).min(LENGTH);
                let expected = from_scratch(&network, &before, end, &asked);
                for ((position, found), expected) in seen.iter().zip(&expected) {
                    let most = largest_difference(found, expected.iter().map(|&x| x as f32));
                    assert!(most <= EXACT, "{at_once} at once, position {position}: {most}");
                }
            }
            assert_eq!(context.tokens(0).unwrap(), text);
        }
    }
}

#[test]
fn logits_on_demand_are_those_of_the_current_block() {
    let network = network(3);
    let text = Random(4).text(LENGTH);
    for context in &mut everywhere(&there(&network.to_gguf()), 1) {
        context.begin(&[Prompt::prefix(&text[..15]).unwrap()], &GenerateParams::DEFAULT).unwrap();
        let tokens = context.tokens(0).unwrap().to_vec();
        let expected = from_scratch(&network, &tokens, 18, &[17, 15]);
        let mut found = vec![0.0; 2 * 101];
        context.logits(0, &[17, 15], &mut found).unwrap();
        for (found, expected) in found.chunks(101).zip(expected) {
            assert!(largest_difference(found, expected.iter().map(|&x| x as f32)) <= EXACT);
        }
        let error = context.logits(0, &[18], &mut found[..101]).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(what) if what.contains("12 to 17")), "{error}");
    }
}

/// The ways to write: one at a time, in steps for each block, so many at a time, what the model is certain of.
fn ways() -> [GenerateParams<'static>; 4] {
    let default = GenerateParams { sampling: GREEDY, ..GenerateParams::DEFAULT };
    let adaptive =
        Adaptive { confidence: Confidence::Margin, threshold: 0.02, window: 9, ..Adaptive::default() };
    [
        default,
        GenerateParams { steps: 3, ..default },
        GenerateParams { schedule: Schedule::Custom(&[2]), ..default },
        GenerateParams { adaptive: Some(adaptive), ..default },
    ]
}

#[test]
fn every_way_writes_blocks_in_order_the_same_in_a_batch_and_alone() {
    let model = there(&network(5).to_gguf());
    let prompts = [2, 9, 6].map(|length| Prompt::prefix(&Random(length as u64).text(length)).unwrap());
    for (number, params) in ways().into_iter().enumerate() {
        let mut all = vec![];
        for mut contexts in beside_alone(&model, 3) {
            let [context, alone] = &mut contexts;
            context.begin(&prompts, &params).unwrap();
            let mut last = [0; 3];
            let mut steps = 0;
            while let Some(step) = context.step().unwrap() {
                steps += 1;
                for update in step.updates {
                    let block = update.position as usize / BLOCK;
                    assert!(block >= last[update.sequence as usize], "way {number}");
                    last[update.sequence as usize] = block;
                }
            }
            let most = if number == 0 { LENGTH - 2 } else { LENGTH - 3 };
            assert!((8..=most).contains(&steps), "way {number}: {steps} steps");
            all.push(tokens(context));
            // Orders and counts are drawn by the number of a sequence: the first one is the same alone.
            assert_eq!(texts(alone, &prompts[..1], &params)[0], all[0][0], "way {number}");
        }
        assert!(all.iter().all(|texts| *texts == all[0]), "way {number}: {all:?}");
    }
}

#[test]
fn a_text_goes_on_from_a_state() {
    let model = there(&network(6).to_gguf());
    for contexts in beside_alone(&model, 1) {
        goes_on(contexts);
    }
}

fn goes_on([mut context, mut other]: [Context; 2]) {
    let params = |length| GenerateParams { length, sampling: GREEDY, ..GenerateParams::DEFAULT };
    let prompt = [Prompt::prefix(&Random(7).text(8)).unwrap()];
    for length in [20, 24] {
        let first = texts(&mut context, &prompt, &params(length)).remove(0);
        let state = context.save().unwrap();
        let cached = context.cached_tokens(0).unwrap();
        assert!(cached.is_multiple_of(BLOCK) && cached + 2 * BLOCK > length, "{cached} of {length}");
        context.extend(&[Prompt::default()], &params(LENGTH)).unwrap();
        finish(&mut context);
        other.restore(&state).unwrap();
        other.extend(&[Prompt::default()], &params(LENGTH)).unwrap();
        finish(&mut other);
        assert_eq!(context.tokens(0).unwrap(), other.tokens(0).unwrap());
        let again = texts(&mut other, &[Prompt::prefix(&first).unwrap()], &params(LENGTH));
        assert_eq!(context.tokens(0).unwrap(), again[0]);
    }
}

fn drawn(seed: u64) -> GenerateParams<'static> {
    GenerateParams { seed, sampling: SamplingParams::FULL, ..GenerateParams::DEFAULT }
}

/// Adds a sequence, of which so many tokens are copied. Returns its number, and the text that the prompt gets alone.
fn add([context, alone]: &mut [Context; 2], prompt: &[u32], seed: u64, copied: usize) -> (usize, Vec<u32>) {
    let expected = texts(alone, &[Prompt::prefix(prompt).unwrap()], &drawn(seed)).remove(0);
    let number = context.add_sequence(&Prompt::prefix(prompt).unwrap(), &drawn(seed)).unwrap();
    assert_eq!(context.cached_tokens(number).unwrap(), copied, "seed {seed}");
    (number, expected)
}

/// Writes all texts to their end, which have to be these.
fn check<const N: usize>(context: &mut Context, expected: [(usize, Vec<u32>); N]) {
    finish(context);
    for (number, expected) in expected {
        assert_eq!(context.tokens(number).unwrap(), expected);
    }
}

/// Contexts of all kinds with so many sequences, each beside one of its kind for a single text.
fn beside_alone(model: &Model, sequences: usize) -> impl Iterator<Item = [Context; 2]> {
    everywhere(model, sequences).into_iter().zip(everywhere(model, 1)).map(|(many, alone)| [many, alone])
}

/// Of a prompt that begins as another text does, whole blocks are copied; the text is the one that it is alone.
#[test]
fn the_same_beginning_is_computed_once() {
    let long = Random(13).text(LENGTH);
    let mut other = long.clone();
    other[15] = (other[15] + 1) % MASK;
    for mut contexts in beside_alone(&there(&network(12).to_gguf()), 3) {
        let first = add(&mut contexts, &long[..20], 1, 0);
        contexts[0].step().unwrap();
        // From one that is being written, whose fourth block is not complete; from one that differs in the third.
        let second = add(&mut contexts, &long[..29], 2, 18);
        let third = add(&mut contexts, &other[..20], 3, 12);
        check(&mut contexts[0], [first, second, third]);
        // From what was written, in whatever order; of a prompt that ends within a block the blocks before.
        let written = contexts[0].tokens(1).unwrap().to_vec();
        for number in 0..3 {
            contexts[0].remove_sequence(number).unwrap();
        }
        let fourth = add(&mut contexts, &written[..LENGTH - 9], 4, (LENGTH - 9) / BLOCK * BLOCK);
        check(&mut contexts[0], [fourth]);
    }
}

/// The same from a text that was cut and goes on otherwise: what stayed is copied, and not what it was.
#[test]
fn a_text_that_goes_on_otherwise_is_copied_as_it_is_now() {
    let behind = Random(14).text(9);
    for mut contexts in beside_alone(&there(&network(15).to_gguf()), 3) {
        let first = add(&mut contexts, &Random(16).text(26), 1, 0);
        let (number, before) = first.clone();
        check(&mut contexts[0], [first]);
        contexts[0].append_sequence(number, Some(20), &Prompt::prefix(&behind).unwrap(), &drawn(2)).unwrap();
        assert_eq!(contexts[0].cached_tokens(number).unwrap(), 18);
        // While its new end is not computed yet, and when it is.
        let second = add(&mut contexts, &before[..33], 3, 18);
        contexts[0].step().unwrap();
        let prompt = [&before[..20], &behind].concat();
        let third = add(&mut contexts, &prompt, 4, 24);
        let anew = texts(&mut contexts[1], &[Prompt::prefix(&prompt).unwrap()], &drawn(2)).remove(0);
        check(&mut contexts[0], [(number, anew.clone()), second, third]);
        // In the place that it leaves itself.
        contexts[0].remove_sequence(number).unwrap();
        let again = add(&mut contexts, &anew[..39], 5, 36);
        assert_eq!(again.0, number);
        check(&mut contexts[0], [again]);
    }
}

/// Long prompts are fed in parts of whole blocks, beside those that are written and before those that begin together.
#[test]
fn a_long_prompt_is_fed_block_by_block() {
    let model = network(21).model();
    let prompt = Prompt::prefix(&Random(22).text(LENGTH)[..40]).unwrap();
    // Fewer rows than a block, which is fed all the same, a block, and no whole number of them.
    for (prompt_rows, fed) in [(1, BLOCK), (BLOCK, BLOCK), (2 * BLOCK + 1, 2 * BLOCK)] {
        let limits = ContextParams { batch_rows: 8, prompt_rows, ..params(2) };
        let mut context = Context::new(&model, &limits).unwrap();
        for params in ways() {
            let whole = texts(&mut self::context(&model, 2), &[Prompt::default(), prompt.clone()], &params);
            let alone =
                texts(&mut self::context(&model, 1), std::slice::from_ref(&prompt), &params).remove(0);
            context.reset();
            context.begin(&[Prompt::default()], &params).unwrap();
            context.step().unwrap();
            let joined = context.add_sequence(&prompt, &params).unwrap();
            let mut cached = 0;
            while context.step().unwrap().unwrap().updates.iter().all(|update| update.sequence == 0) {
                cached += fed;
                assert_eq!(context.cached_tokens(joined).unwrap(), cached);
            }
            // Six blocks are complete; the last of them go with the first token.
            assert_eq!(cached, (6 * BLOCK).next_multiple_of(fed) - fed);
            finish(&mut context);
            assert_eq!(tokens(&context), [whole[0].clone(), alone]);
            // Those that begin write nothing before it is read. They are fed a batch at least, which is a multiple of eight.
            context.begin(&[Prompt::default(), prompt.clone()], &params).unwrap();
            let (_, all) = context.progress();
            let mut steps = 0;
            let mut first = vec![];
            while let Some(step) = context.step().unwrap() {
                steps += 1;
                if first.is_empty() {
                    first.extend(step.updates.iter().map(|update| update.sequence));
                }
                assert!(step.total <= all);
            }
            first.dedup();
            assert_eq!((tokens(&context), first), (whole.clone(), vec![0, 1]));
            assert!(steps > 1 && context.progress().0 == steps);
        }
    }
}

#[test]
fn bounds_are_sums_over_blocks() {
    let network = network(8);
    let text = Random(9).text(LENGTH);
    let mut random = Random(10);
    let order = random.permutation(LENGTH);
    let known = 17;
    let is_known = |position: &u32| order[..known].contains(position);
    for context in &mut everywhere(&there(&network.to_gguf()), 1) {
        let found = context.score_masked(&text, &order, known).unwrap();
        for (&position, found) in order[known..].iter().zip(found) {
            // The blocks before are clean, its own has the known tokens.
            let start = position as usize / BLOCK * BLOCK;
            let end = (start + BLOCK).min(LENGTH);
            let mut tokens = text.clone();
            for place in (start..end).filter(|&place| !is_known(&(place as u32))) {
                tokens[place] = MASK;
            }
            let logits = from_scratch(&network, &tokens, end, &[position]).remove(0);
            let logits = &logits[..MASK as usize];
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
            let expected = logits[text[position as usize] as usize] - max - sum.ln();
            assert!((found - expected).abs() < 2e-4, "position {position}: {found} {expected}");
        }
        let params = ScoreParams { orders: 0, draws: 4, ..ScoreParams::default() };
        let bound = context.score_text(&text, &params, |_, _| ControlFlow::Continue(())).unwrap().bound;
        assert!(bound.diffusion.mean > 0.0 && bound.sequential.mean == 0.0);
        let error = context.score_order(&text, &order, 0).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
    }
}

/// A short text has few masks, so that the average over all of them can be computed: of a block, and the beginning of the next.
#[test]
fn bound_equals_the_average_over_all_masks() {
    const SHORT: usize = 8;
    let model = network(17).model();
    let text = Random(18).text(SHORT);
    let mut context = everywhere(&model, 1).remove(0);
    // The mean loss with so many tokens known.
    let (mut losses, mut counts) = ([0.0; SHORT + 1], [0.0; SHORT + 1]);
    for known in 0..1u32 << SHORT {
        let (mut order, masked): (Vec<u32>, Vec<u32>) =
            (0..SHORT as u32).partition(|position| known >> position & 1 == 1);
        let count = order.len();
        order.extend(masked);
        losses[count] -= context.score_masked(&text, &order, count).unwrap().iter().sum::<f64>();
        counts[count] += 1.0;
    }
    // The integral over t by the middle of 2000 slices, with the weights of the log-linear schedule.
    let at = |t: f64| {
        let alpha = 1.0 - 0.999 * t;
        let mean = |known: usize| {
            let chance = alpha.powi(known as i32) * (1.0 - alpha).powi((SHORT - known) as i32);
            chance * losses[known]
        };
        0.999 / (1.0 - alpha) * (0..=SHORT).map(mean).sum::<f64>()
    };
    let expected = (0..2000).map(|i| at((f64::from(i) + 0.5) / 2000.0)).sum::<f64>() / 2000.0;
    assert_eq!(counts.iter().sum::<f64>(), 256.0);
    let params = ScoreParams { orders: 0, draws: 2000, seed: 3, ..ScoreParams::default() };
    let bound = context.score_text(&text, &params, |_, _| ControlFlow::Continue(())).unwrap().bound;
    let (found, off) = (bound.diffusion, (bound.diffusion.mean - expected).abs());
    assert!(off <= 4.0 * found.standard_error, "{found:?}, not {expected}");
    assert!(found.standard_error < 0.05 * expected, "{found:?} would let anything pass");
}

/// With T steps a block each of its tokens is written in any of the T steps with the same probability, as the log-linear
/// schedule has it; steps that write nothing are left out. Chi-square over what a block's steps write, at a significance of 1e-6.
#[test]
fn each_block_has_steps_of_its_own() {
    const STEPS: usize = 3;
    const TEXTS: u64 = 400;
    let model = network(19).model();
    let mut context = everywhere(&model, 1).remove(0);
    let mut found = BTreeMap::<Vec<usize>, f64>::new();
    for seed in 0..TEXTS {
        let params = GenerateParams { steps: STEPS, seed, sampling: GREEDY, ..GenerateParams::DEFAULT };
        context.begin(&[Prompt::default()], &params).unwrap();
        let mut of_blocks = vec![vec![]; LENGTH / BLOCK];
        while let Some(step) = context.step().unwrap() {
            of_blocks[step.updates[0].position as usize / BLOCK].push(step.updates.len());
        }
        // The first block's first token may be given.
        for counts in of_blocks.split_off(1) {
            *found.entry(counts).or_default() += 1.0;
        }
    }
    let blocks = TEXTS as f64 * (LENGTH / BLOCK - 1) as f64;
    assert_eq!(found.values().sum::<f64>(), blocks);
    let mut expected = BTreeMap::<Vec<usize>, f64>::new();
    let ways = STEPS.pow(BLOCK as u32);
    for way in 0..ways {
        let mut counts = [0; STEPS];
        (0..BLOCK).for_each(|place| counts[way / STEPS.pow(place as u32) % STEPS] += 1);
        let counts = counts.into_iter().filter(|&count| count > 0).collect();
        *expected.entry(counts).or_default() += blocks / ways as f64;
    }
    assert!(found.keys().all(|counts| expected.contains_key(counts)), "{found:?}");
    let terms = expected.iter().map(|(counts, &expected)| {
        let found = found.get(counts).copied().unwrap_or_default();
        (found - expected).powi(2) / expected
    });
    // Of 15 degrees of freedom.
    assert_eq!(expected.len(), 16);
    let chi_square: f64 = terms.sum();
    assert!(chi_square < 56.5, "{chi_square}: {found:?}, not {expected:?}");
}

#[test]
fn what_bd3lm_cannot_do_is_refused() {
    let model = network(11).model();
    let mut context = everywhere(&model, 1).remove(0);
    let default = GenerateParams::DEFAULT;
    for (params, what) in [
        (GenerateParams { order: Order::LeftToRight, ..default }, "blocks from left to right"),
        (GenerateParams { order: Order::Blocks { size: 4 }, ..default }, "blocks from left to right"),
        (GenerateParams { lookahead: 2, ..default }, "lookahead"),
    ] {
        let error = context.begin(&[Prompt::default()], &params).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    // Masks would be left where a plan goes back to an earlier block, or writes several in a step.
    let block = model.config().block_length as u32;
    let ones = vec![1; 2 * block as usize];
    let back: Vec<u32> = (block..2 * block).chain(0..block).collect();
    for (order, counts) in [(back, ones.clone()), ((0..2 * block).collect(), vec![block + 1, block - 1])] {
        let plan = Plan { known: vec![], order, counts, diffusion: 0 };
        let error = context.begin_with_plans(&[plan], SamplingParams::FULL, 0).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("block by block")), "{error}");
    }
    let order = (0..block).rev().chain((block..2 * block).rev()).collect();
    let within = Plan { known: vec![], order, counts: ones, diffusion: 0 };
    context.begin_with_plans(&[within], SamplingParams::FULL, 0).unwrap();
    finish(&mut context);
    assert!(!context.tokens(0).unwrap().contains(&model.config().mask_token_id));
}
