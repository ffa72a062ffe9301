//! Tokens that are drawn before their distribution is known, from a guess of it, and what becomes of them once it is known:
//! speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). A token that was drawn with
//! probability q and should have had p stays with probability min(1, p/q); otherwise another one is drawn from what p has above
//! q. So the token has the distribution p, whatever q was.

use super::params::SamplingParams;
use super::sampler::Sampler;
use super::weights::mass_above;
use crate::error::{Error, Result};
use crate::memory::with_room;

/// Most tokens of a guess. (The guess is free, and the others would hardly ever be drawn.)
const MOST: usize = 256;
/// The weight of the least likely token of a guess, with 1 for the most likely one.
const LEAST: f32 = 1.0 / 16384.0;

/// A token, and the distribution that it was drawn from.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) token: u32,
    /// The tokens that it might have been, in ascending order, with weights that are proportional to their probabilities. Empty
    /// if it was the most likely one by itself.
    weights: Vec<(f32, u32)>,
}

impl Proposal {
    /// One with memory for any guess.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn with_capacity() -> Result<Self> {
        Ok(Self { token: 0, weights: with_room(MOST)? })
    }

    /// The sum of the weights.
    fn total(&self) -> f64 {
        self.weights.iter().map(|&(weight, _)| f64::from(weight)).sum()
    }

    /// The weight of its token.
    fn weight(&self) -> f64 {
        let place = self.weights.binary_search_by_key(&self.token, |&(_, token)| token);
        place.ok().and_then(|place| self.weights.get(place)).map_or(0.0, |&(weight, _)| f64::from(weight))
    }

    /// Draws its token with the random number `uniform` in [0, 1).
    fn pick(&mut self, uniform: f64) {
        let target = uniform * self.total();
        let mut cumulative = 0.0;
        for &(weight, token) in &self.weights {
            cumulative += f64::from(weight);
            self.token = token;
            if cumulative > target {
                break;
            }
        }
    }
}

impl Sampler {
    /// The sum of all weights.
    pub(super) fn total(&self) -> f64 {
        let [total] = mass_above(&self.weights, [0.0]);
        total
    }

    /// Draws a token with the random number `uniform` in [0, 1), as [`Sampler::draw`] from logits that are a guess, and notes
    /// what it was drawn from.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub(crate) fn propose(
        &mut self,
        logits: &[f32],
        sampling: &SamplingParams,
        uniform: f64,
        to: &mut Proposal,
    ) -> Result<()> {
        to.weights.clear();
        if sampling.temperature == 0.0 {
            to.token = self.greedy(logits, sampling)?;
            return Ok(());
        }
        self.weigh(logits, sampling)?;
        self.list_above(LEAST);
        // The most likely tokens may have been filtered out.
        if self.edge.is_empty() {
            self.list_above(0.0);
        }
        if self.edge.len() > MOST {
            self.edge.select_nth_unstable_by(MOST, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.edge.truncate(MOST);
            self.edge.sort_unstable_by_key(|&(_, token)| token);
        }
        to.weights.extend_from_slice(&self.edge);
        to.pick(uniform);
        Ok(())
    }

    /// Lists the tokens of a weight above `least`, in ascending order.
    fn list_above(&mut self, least: f32) {
        let Self { weights, edge, .. } = self;
        edge.clear();
        for (eight, first) in
            weights.iter().zip((0..).step_by(weights.first().map_or(1, |eight| eight.len())))
        {
            if eight.iter().fold(false, |any, &weight| any | (weight > least)) {
                let above = eight.iter().zip(first..).filter(|&(&weight, _)| weight > least);
                edge.extend(above.map(|(&weight, token)| (weight, token)));
            }
        }
    }

    /// The token of a proposal's place, whose logits are known now, and whether it is the proposed one. `accept` and `redraw`
    /// are random numbers in [0, 1).
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub(crate) fn settle(
        &mut self,
        logits: &[f32],
        sampling: &SamplingParams,
        proposal: &Proposal,
        [accept, redraw]: [f64; 2],
    ) -> Result<(u32, bool)> {
        if sampling.temperature == 0.0 {
            let token = self.greedy(logits, sampling)?;
            return Ok((token, token == proposal.token));
        }
        self.weigh(logits, sampling)?;
        let scale = self.total() / proposal.total();
        let weights = self.weights.as_flattened_mut();
        let missing = || Error::internal("a proposed token outside the vocabulary");
        let weight = *weights.get(proposal.token as usize).ok_or_else(missing)?;
        if accept * proposal.weight() * scale < f64::from(weight) {
            return Ok((proposal.token, true));
        }
        for &(guessed, token) in &proposal.weights {
            if let Some(weight) = weights.get_mut(token as usize) {
                *weight = (f64::from(*weight) - f64::from(guessed) * scale).max(0.0) as f32;
            }
        }
        // Nothing is above the guess if the two are the same but for rounding.
        if self.total() > 0.0 { Ok((self.pick(redraw), false)) } else { Ok((proposal.token, true)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    const VOCAB: usize = 8;
    const MASK: u32 = 7;

    fn random_logits(rng: &mut Rng, spread: f64) -> Vec<f32> {
        (0..VOCAB).map(|_| ((rng.uniform() - 0.5) * spread) as f32).collect()
    }

    #[test]
    fn settled_tokens_have_the_distribution_whatever_was_proposed() {
        let mut rng = Rng::new(5, 0, Purpose::Token);
        let mut sampler = Sampler::new(VOCAB, MASK).unwrap();
        let mut proposal = Proposal::with_capacity().unwrap();
        let n = 20_000;
        let (mut kept, mut settings) = (0, 0);
        for sampling in [
            SamplingParams::FULL,
            SamplingParams { temperature: 0.6, ..SamplingParams::FULL },
            SamplingParams { top_p: 0.8, ..SamplingParams::FULL },
            SamplingParams { top_k: 3, ..SamplingParams::FULL },
            SamplingParams { min_p: 0.2, ..SamplingParams::FULL },
            SamplingParams { typical_p: 0.7, ..SamplingParams::FULL },
        ] {
            for spread in [0.5, 4.0, 12.0] {
                let (guess, exact) = (random_logits(&mut rng, spread), random_logits(&mut rng, spread));
                let weights = sampler.filter(&exact, &sampling).unwrap().to_vec();
                let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
                let mut counts = [0usize; VOCAB];
                for _ in 0..n {
                    sampler.propose(&guess, &sampling, rng.uniform(), &mut proposal).unwrap();
                    let uniforms = [rng.uniform(), rng.uniform()];
                    let (token, same) = sampler.settle(&exact, &sampling, &proposal, uniforms).unwrap();
                    counts[token as usize] += 1;
                    kept += usize::from(same);
                }
                let expected = |token: usize| f64::from(weights[token]) / total * n as f64;
                let chi: f64 = (0..VOCAB)
                    .filter(|&token| expected(token) > 0.0)
                    .map(|token| (counts[token] as f64 - expected(token)).powi(2) / expected(token))
                    .sum();
                // Six degrees of freedom at most; 27.86 is the 99.99th percentile, and the seed is fixed.
                assert!(chi < 27.86, "{sampling:?}, {spread}: {chi}, {counts:?}");
                let excluded = (0..VOCAB).filter(|&token| expected(token) == 0.0);
                assert_eq!(excluded.map(|token| counts[token]).sum::<usize>(), 0, "{sampling:?}, {spread}");
                settings += n;
            }
        }
        // Both happen often.
        assert!(kept > settings / 5 && kept < settings * 9 / 10, "{kept} of {settings}");
    }

    #[test]
    fn a_proposal_from_the_distribution_itself_stays() {
        let mut rng = Rng::new(6, 0, Purpose::Token);
        let mut sampler = Sampler::new(VOCAB, MASK).unwrap();
        let mut proposal = Proposal::with_capacity().unwrap();
        for case in 0..if cfg!(miri) { 20 } else { 1000 } {
            let logits = random_logits(&mut rng, 6.0);
            // Nothing is below the least weight of a guess.
            let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::FULL };
            sampler.propose(&logits, &sampling, rng.uniform(), &mut proposal).unwrap();
            let settled = sampler.settle(&logits, &sampling, &proposal, [0.999_999, rng.uniform()]).unwrap();
            assert_eq!(settled, (proposal.token, true), "case {case}");
        }
    }

    #[test]
    fn a_guess_of_a_large_vocabulary_keeps_its_most_likely_tokens() {
        let mut rng = Rng::new(7, 0, Purpose::Token);
        let vocab = 5000;
        let mut sampler = Sampler::new(vocab, 4999).unwrap();
        let mut proposal = Proposal::with_capacity().unwrap();
        let logits: Vec<f32> = (0..vocab).map(|_| (rng.uniform() * 2.0) as f32).collect();
        sampler.propose(&logits, &SamplingParams::FULL, 0.5, &mut proposal).unwrap();
        assert_eq!(proposal.weights.len(), MOST);
        assert!(proposal.weights.is_sorted_by_key(|&(_, token)| token));
        let least =
            proposal.weights.iter().map(|&(_, token)| logits[token as usize]).fold(f32::MAX, f32::min);
        let above = logits[..4999].iter().filter(|&&logit| logit > least).count();
        assert_eq!(above, MOST - 1);
    }

    #[test]
    fn greedy_proposals_stay_if_they_are_the_most_likely_token() {
        let mut sampler = Sampler::new(4, 3).unwrap();
        let mut proposal = Proposal::with_capacity().unwrap();
        let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };
        sampler.propose(&[0.0, 2.0, 1.0, 9.0], &sampling, 0.3, &mut proposal).unwrap();
        assert_eq!(proposal.token, 1);
        let settle = |sampler: &mut Sampler, logits: &[f32]| {
            sampler.settle(logits, &sampling, &proposal, [0.0, 0.0]).unwrap()
        };
        assert_eq!(settle(&mut sampler, &[0.0, 2.0, 1.0, 9.0]), (1, true));
        assert_eq!(settle(&mut sampler, &[0.0, 1.0, 2.0, 9.0]), (2, false));
    }
}
