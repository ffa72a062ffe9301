//! Which positions become known when: the order of the positions, and how many of them each step writes.

mod adaptive;
pub(crate) mod order;
mod schedule;

use crate::error::{Error, Result};
use crate::model::{Config, Variant};
use crate::rng::{Purpose, Rng};

pub use adaptive::{Adaptive, Confidence};
pub use order::Order;
pub(crate) use schedule::EPS;
pub use schedule::Schedule;

/// An explicit plan of one sequence: its known tokens, its order and the tokens of each step, instead of random ones.
/// Used to replay a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The known tokens, at the first positions of `order`.
    pub known: Vec<u32>,
    /// Every position once, in generation order, the known ones first.
    pub order: Vec<u32>,
    /// Number of tokens that each step writes. Together with the known tokens they add up to the length.
    pub counts: Vec<u32>,
    /// Number of tokens that the diffusion phase writes, the sum of the first steps' counts. Only for Eso-LM (A), whose
    /// attention differs between the phases.
    pub diffusion: usize,
}

impl Plan {
    /// Checks that the order is a permutation, the schedule adds up and the tokens are the model's.
    pub(crate) fn validate(&self, config: &Config) -> Result<()> {
        order::check_permutation(&self.order, self.order.len())?;
        let sum: u64 = self.counts.iter().map(|&c| u64::from(c)).sum();
        if sum + self.known.len() as u64 != self.order.len() as u64 || self.counts.contains(&0) {
            return Err(Error::invalid("a schedule's counts must add up to the unknown tokens"));
        }
        let ends = self.counts.iter().scan(0, |sum, &c| {
            *sum += c as usize;
            Some(*sum)
        });
        if self.diffusion != 0 && !ends.into_iter().any(|end| end == self.diffusion) {
            return Err(Error::invalid("the diffusion phase must be whole steps"));
        }
        if matches!(config.variant, Variant::Ar | Variant::WeDlm)
            && !(self.order.is_sorted() && self.counts.iter().all(|&c| c == 1))
        {
            return Err(Error::invalid("an autoregressive model writes one by one, from left to right"));
        }
        if config.variant == Variant::Bd3Lm && !self.is_block_by_block(config.block_length) {
            return Err(Error::invalid(
                "BD3-LM writes block by block: one block in each step, none after a later one",
            ));
        }
        if self.known.len() < config.given_tokens() {
            return Err(Error::invalid("the token at position 0 has to be given to this model"));
        }
        if config.diffusion_only && self.known.len() + self.diffusion != self.order.len() {
            return Err(Error::invalid(
                "this Eso-LM (A) was trained for the diffusion phase alone, which has to write all tokens",
            ));
        }
        if let Some(token) = self.known.iter().find(|&&token| !config.is_writable(token)) {
            return Err(Error::invalid(format!("there is no token {token}")));
        }
        Ok(())
    }

    /// Whether each step writes positions of one block, and no block comes after a later one.
    fn is_block_by_block(&self, block: usize) -> bool {
        let mut unknown = self.order.get(self.known.len()..).unwrap_or_default();
        let mut last = 0;
        self.counts.iter().all(|&count| {
            let (step, rest) = unknown.split_at(unknown.len().min(count as usize));
            unknown = rest;
            let now = step.first().map_or(last, |&position| position as usize / block.max(1));
            let in_order =
                now >= last && step.iter().all(|&position| position as usize / block.max(1) == now);
            last = now;
            in_order
        })
    }
}

/// The parameters of [`arrange`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlanParams<'a> {
    pub(crate) order: Order<'a>,
    pub(crate) schedule: Schedule<'a>,
    /// Fraction of the unknown tokens that the diffusion phase writes.
    pub(crate) alpha_0: f64,
    /// Steps of the diffusion phase, or of each block.
    pub(crate) steps: usize,
    pub(crate) steps_per_block: bool,
    pub(crate) seed: u64,
}

/// Sorts the unknown positions `tail` into generation order, and sets `counts` to the number of tokens of each step.
/// `tail` is ascending, or in the caller's order for a custom one. `rows` is scratch memory for as many numbers as the
/// text has positions. Returns the number of tokens that the diffusion phase writes.
pub(crate) fn arrange(
    params: &PlanParams<'_>,
    sequence: usize,
    tail: &mut [u32],
    counts: &mut Vec<u32>,
    rows: &mut Vec<u32>,
) -> usize {
    let &PlanParams { alpha_0, .. } = params;
    let mut order_rng = Rng::new(params.seed, sequence, Purpose::Order);
    let mut schedule_rng = Rng::new(params.seed, sequence, Purpose::Schedule);
    counts.clear();
    if let Order::Strided { stride, shuffle } = params.order {
        order::strided(tail, stride, shuffle, &mut order_rng, rows);
    }
    // Orders other than blocks are one block.
    let size = match params.order {
        Order::Blocks { size } => size,
        _ => usize::MAX,
    };
    let together = |a: &u32, b: &u32| *a as usize / size == *b as usize / size;
    let blocks = if params.steps_per_block { 1 } else { tail.chunk_by(together).count() };
    let steps = params.steps.div_ceil(blocks.max(1));
    let mut given = schedule::repeat_last(match params.schedule {
        Schedule::Custom(counts) => counts,
        Schedule::Reference => &[],
    });
    let mut diffusion = 0;
    for block in tail.chunk_by_mut(together) {
        let diffused = match (params.schedule, params.order) {
            (Schedule::Custom(_), _) => {
                let diffused = (block.len() as f64 * alpha_0) as usize;
                schedule::take(&mut given, diffused, block.len(), counts);
                diffused
            }
            (Schedule::Reference, Order::Strided { stride, .. }) => {
                schedule::rows(block, stride, (stride as f64 * alpha_0) as usize, counts)
            }
            (Schedule::Reference, _) => {
                schedule::draw(alpha_0, steps, block.len(), &mut schedule_rng, counts)
            }
        };
        match params.order {
            Order::Random | Order::Blocks { .. } => order::random(block, diffused, &mut order_rng),
            Order::Strided { .. } => order::sequential(block, diffused),
            Order::LeftToRight | Order::Custom(_) => (),
        }
        diffusion += diffused;
    }
    diffusion
}
