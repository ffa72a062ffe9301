//! Generations with a given plan and text, and their logits as computed by the library and by the reference network.

use esolm::{Context, Plan, Prompt, SamplingParams};

use crate::reference::{Attention, MASK, Network, Random, Row};

/// Against the reference network. Measured 6.6e-6 at most.
pub const EXACT: f64 = 1e-4;

/// A plan and, by position, the tokens that are written.
pub struct Case {
    pub plan: Plan,
    pub text: Vec<u32>,
}

impl Case {
    /// `counts` is the schedule of the tokens that are not among the `known`.
    pub fn new(random: &mut Random, known: usize, counts: &[u32]) -> Self {
        Self::in_phases(random, known, &[], counts)
    }

    /// With a diffusion phase and a sequential phase.
    pub fn in_phases(random: &mut Random, known: usize, diffused: &[u32], sequential: &[u32]) -> Self {
        let counts = [diffused, sequential].concat();
        let length = known + counts.iter().sum::<u32>() as usize;
        let text = random.text(length);
        let order = random.permutation(length);
        let known = order[..known].iter().map(|&p| text[p as usize]).collect();
        let diffusion = diffused.iter().sum::<u32>() as usize;
        Self { plan: Plan { known, order, counts, diffusion }, text }
    }

    /// Logits by place in the order. Those of each step are computed from scratch: from all tokens known before it
    /// and its masks.
    pub fn expected(&self, network: &Network) -> Vec<Vec<f64>> {
        let Plan { known, order, counts, diffusion } = &self.plan;
        let begun = known.len() + diffusion;
        let mut all = vec![vec![]; known.len()];
        for &count in counts {
            let (first, end) = (all.len(), all.len() + count as usize);
            let attention = Attention::of(&network.config, first, begun);
            // Bidirectional rows see all masks, also those of later steps.
            let fed = if matches!(attention, Attention::Bidirectional) { order.len() } else { end };
            let row = |(place, &position): (usize, &u32)| -> Row {
                (if place < first { self.text[position as usize] } else { MASK }, position)
            };
            let rows: Vec<Row> = order[..fed].iter().enumerate().map(row).collect();
            all.extend(network.logits(&rows, attention).drain(first..end));
        }
        all
    }
}

/// Schedules that have little in common: one by one, all at once, uneven, beyond a group of 32 cache slots.
pub fn cases() -> Vec<Case> {
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

/// Runs the plans side by side and writes the tokens of the texts. Returns logits by sequence and place in the order,
/// empty where known beforehand.
pub fn replay(context: &mut Context, plans: &[Plan], texts: &[&[u32]]) -> Vec<Vec<Vec<f32>>> {
    context.begin_with_plans(plans, SamplingParams::FULL, 0).unwrap();
    let mut all: Vec<_> = plans.iter().map(|plan| vec![vec![]; plan.order.len()]).collect();
    while context
        .step_with_tokens(|_, choice| {
            let order = &plans[choice.sequence].order;
            let place = order.iter().position(|&p| p == choice.position).unwrap();
            assert_eq!(choice.slot, place);
            all[choice.sequence][place] = choice.logits.to_vec();
            Ok(texts[choice.sequence][choice.position as usize])
        })
        .unwrap()
        .is_some()
    {}
    all
}

/// Runs one step, which writes tokens of `text`. Returns the positions that it asked for with their logits; none when all is
/// written.
pub fn step_of_text(context: &mut Context, text: &[u32]) -> Vec<(u32, Vec<f32>)> {
    let mut asked = vec![];
    let step = context.step_with_tokens(|_, row| {
        asked.push((row.position, row.logits.to_vec()));
        Ok(text[row.position as usize])
    });
    step.unwrap();
    asked
}

/// [`replay`] of one plan.
pub fn replay_one(context: &mut Context, plan: &Plan, text: &[u32]) -> Vec<Vec<f32>> {
    replay(context, std::slice::from_ref(plan), &[text]).remove(0)
}

/// [`replay`] of cases, which write all of their texts.
pub fn replay_cases(context: &mut Context, cases: &[&Case]) -> Vec<Vec<Vec<f32>>> {
    let plans: Vec<Plan> = cases.iter().map(|case| case.plan.clone()).collect();
    let texts: Vec<&[u32]> = cases.iter().map(|case| case.text.as_slice()).collect();
    let logits = replay(context, &plans, &texts);
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(context.tokens(number).unwrap(), *text);
    }
    logits
}

/// Runs the generation that has begun to its end, from `prompt`, and checks the logits of all masks of each step
/// against the reference network's. `look` is told how many masks a step had and how many tokens it wrote. Returns
/// the largest difference.
pub fn check_steps(
    context: &mut Context,
    network: &Network,
    prompt: &Prompt,
    mut look: impl FnMut(usize, usize),
) -> f64 {
    let mut known = prompt.known.clone();
    known.sort_unstable();
    let mut rows: Vec<Row> = known.into_iter().map(|(position, token)| (token, position)).collect();
    let (mut positions, mut logits) = (vec![], vec![]);
    let mut largest: f64 = 0.0;
    while let Some(step) = context
        .step_with_logits(|choice, _| {
            positions.push(choice.position);
            logits.push(choice.logits.to_vec());
            Ok(())
        })
        .unwrap()
    {
        look(positions.len(), step.updates.len());
        let masks = positions.drain(..).map(|position| (MASK, position));
        let all: Vec<Row> = rows.iter().copied().chain(masks).collect();
        let expected = network.logits(&all, Attention::Causal).split_off(rows.len());
        let difference = largest_difference(&logits, &expected);
        assert!(difference <= EXACT, "step {}: {difference:e}", step.index);
        largest = largest.max(difference);
        logits.clear();
        rows.extend(step.updates.iter().map(|u| (u.token, u.position)));
    }
    assert_eq!(rows.len(), context.length());
    largest
}

/// The largest absolute difference between two tables of numbers, NaN where there is one.
pub fn largest_difference<A, B>(a: &[Vec<A>], b: &[Vec<B>]) -> f64
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    assert_eq!(a.len(), b.len());
    let mut largest = 0.0;
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len());
        for (&a, &b) in a.iter().zip(b) {
            let difference = (a.into() - b.into()).abs();
            if difference > largest || difference.is_nan() {
                largest = difference;
            }
        }
    }
    largest
}
