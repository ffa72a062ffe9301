//! What a caller asks for: known tokens, parameters, or a whole plan.

use crate::config::{Config, Variant};
use crate::error::{Error, Result};
use crate::sampler::Sampling;

/// The known tokens of one sequence, at any positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Positions and their tokens, in any order, no position twice.
    pub known: Vec<(u32, u32)>,
}

impl Prompt {
    /// `tokens` at the positions from 0 on.
    pub fn prefix(tokens: &[u32]) -> Self {
        Self { known: (0..).zip(tokens.iter().copied()).collect() }
    }
}

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateParams {
    /// Tokens of a sequence, prompt included; 0 is the context's length.
    pub length: usize,
    /// Share of the unknown tokens that diffusion writes, in parallel; the rest is written one by one, left to
    /// right. 1 is all diffusion, 0 plain autoregression. (MDLM always diffuses everything, an autoregressive model
    /// nothing.)
    pub alpha_0: f64,
    /// Steps of the diffusion phase (T); steps that happen to write nothing are left out.
    pub steps: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The same seed, parameters and prompts give the same text. A sequence's random numbers depend on the seed
    /// and on its number in the batch only.
    pub seed: u64,
}

impl GenerateParams {
    /// Checks the ranges, but for the length, which is the context's to judge.
    pub(crate) fn validate(&self) -> Result<()> {
        self.sampling.validate()?;
        if !(0.0..=1.0).contains(&self.alpha_0) {
            return Err(Error::invalid(format!("alpha_0 is {}, not in 0..=1", self.alpha_0)));
        }
        if self.steps == 0 || self.steps > 1 << 20 {
            return Err(Error::invalid(format!("{} steps, not 1 to {}", self.steps, 1 << 20)));
        }
        Ok(())
    }
}

impl Default for GenerateParams {
    fn default() -> Self {
        Self { length: 0, alpha_0: 1.0, steps: 128, sampling: Sampling::default(), seed: 0 }
    }
}

/// A sequence's way through generation, given outright instead of drawn: for replaying a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Tokens at the first positions of `order`: those known beforehand.
    pub known: Vec<u32>,
    /// Every position once, in generation order, those of `known` first.
    pub order: Vec<u32>,
    /// Tokens written by each step; with those known beforehand they add up to the length.
    pub counts: Vec<u32>,
    /// How many of these tokens the diffusion phase writes; whole steps, the first ones. It makes a difference to
    /// Eso-LM (A) alone, whose phases differ.
    pub diffusion: usize,
}

impl Plan {
    /// Checks that the order is a permutation, the schedule adds up and the tokens are the model's.
    pub(crate) fn validate(&self, config: &Config) -> Result<()> {
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.order.len() as u32) {
            return Err(Error::invalid("an order must name every position once"));
        }
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
        if config.variant == Variant::Ar && !(self.order.is_sorted() && self.counts.iter().all(|&c| c == 1)) {
            return Err(Error::invalid("an autoregressive model writes one by one, from left to right"));
        }
        let outside = |&&t: &&u32| t as usize >= config.vocab_size || t == config.mask_token_id;
        if let Some(token) = self.known.iter().find(outside) {
            return Err(Error::invalid(format!("there is no token {token}")));
        }
        Ok(())
    }
}
