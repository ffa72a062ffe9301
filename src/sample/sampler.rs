//! The sampler: a row of logits to a token, in a few passes over the vocabulary and without sorting it.

use super::filters::{keep_min_p, keep_top_k, keep_top_n_sigma, keep_typical};
use super::logits::{TokenLogProb, argmax, largest, most_likely};
use super::params::SamplingParams;
use super::weights::{RUN, cut, exponentials, exponentials_of_kept, mass_above};
use crate::error::{Error, Result};
use crate::memory::{filled, with_room};
use crate::model::{Config, Defaults, Variant};
use crate::simd::LANES;

/// A sampler for one vocabulary. Allocates nothing after it is made.
#[derive(Debug)]
pub struct Sampler {
    /// Unnormalised probabilities; 0 for excluded tokens and for padding.
    pub(super) weights: Vec<[f32; LANES]>,
    /// The least likely tokens of the nucleus and the next ones; all tokens for typical sampling.
    pub(super) edge: Vec<(f32, u32)>,
    /// Copies for the top-k selection.
    sorted: Vec<f32>,
    vocab_size: usize,
    mask: u32,
    /// Whether the temperature acts on what the filters leave, and not before them.
    temperature_last: bool,
}

impl Sampler {
    /// A sampler for `vocab_size` tokens that never draws `mask`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(vocab_size: usize, mask: u32) -> Result<Self> {
        let vectors = vocab_size.div_ceil(LANES);
        Ok(Self {
            weights: filled(vectors, [0.0; LANES])?,
            edge: with_room(vocab_size)?,
            sorted: with_room(vectors.saturating_mul(LANES))?,
            vocab_size,
            mask,
            temperature_last: false,
        })
    }

    /// A sampler of a model, in the order of its authors: WeDLM's has the filters before the temperature.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn of_model(config: &Config) -> Result<Self> {
        let temperature_last = config.variant == Variant::WeDlm;
        Ok(Self { temperature_last, ..Self::new(config.vocab_size, config.mask_token_id)? })
    }

    /// Samples a token with the random number `uniform` in [0, 1).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for parameters out of range; [`Error::NotFinite`] if a logit is NaN or infinity;
    /// [`Error::Internal`] if their number is not the vocabulary's size.
    pub fn draw(&mut self, logits: &[f32], sampling: &SamplingParams, uniform: f64) -> Result<u32> {
        let sampling = &sampling.resolved(&Defaults::NONE);
        if sampling.temperature == 0.0 {
            return self.greedy(logits, sampling);
        }
        self.weigh(logits, sampling)?;
        Ok(self.pick(uniform))
    }

    /// The token that the random number `uniform` in [0, 1) falls on, by the weights.
    pub(super) fn pick(&self, uniform: f64) -> u32 {
        let target = uniform * self.total();
        // The run of tokens in which the running sum passes the target, and then the token.
        let (mut cumulative, mut chosen) = (0.0, (0, &[][..], 0.0));
        for (number, run) in self.weights.chunks(RUN).enumerate() {
            let [mass] = mass_above(run, [0.0]);
            if mass > 0.0 {
                chosen = (number, run, cumulative);
                cumulative += mass;
                if cumulative > target {
                    break;
                }
            }
        }
        let (number, run, mut cumulative) = chosen;
        let mut last = 0;
        for (place, &weight) in run.as_flattened().iter().enumerate() {
            if weight > 0.0 {
                cumulative += f64::from(weight);
                last = number * RUN * LANES + place;
                if cumulative > target {
                    break;
                }
            }
        }
        last as u32
    }

    /// Samples as the reference does: Gumbel-max with noise -log(-log u) from one uniform number per token. Used to
    /// replay the reference's runs.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn draw_gumbel(
        &mut self,
        logits: &[f32],
        sampling: &SamplingParams,
        uniforms: &[f64],
    ) -> Result<u32> {
        if uniforms.len() != self.vocab_size {
            let (given, tokens) = (uniforms.len(), self.vocab_size);
            return Err(Error::invalid(format!("{given} uniform numbers for {tokens} tokens")));
        }
        let sampling = &sampling.resolved(&Defaults::NONE);
        if sampling.temperature == 0.0 {
            return self.greedy(logits, sampling);
        }
        let weights = self.weigh(logits, sampling)?;
        let temperature = f64::from(sampling.temperature);
        let mut best = (f64::NEG_INFINITY, 0);
        for (token, ((&weight, &logit), &u)) in weights.iter().zip(logits).zip(uniforms).enumerate() {
            let score = f64::from(logit) / temperature - (-u.ln()).ln();
            if weight > 0.0 && score > best.0 {
                best = (score, token as u32);
            }
        }
        Ok(best.1)
    }

    /// The most likely token.
    pub(super) fn greedy(&self, logits: &[f32], sampling: &SamplingParams) -> Result<u32> {
        self.check(logits, sampling)?;
        argmax(logits, self.mask)
    }

    /// See [`most_likely`].
    pub(crate) fn most_likely(
        &mut self,
        logits: &[f32],
        log_sum: f64,
        count: usize,
        to: &mut Vec<TokenLogProb>,
    ) {
        most_likely(logits, self.mask, log_sum, count, &mut self.edge, to);
    }

    fn check(&self, logits: &[f32], sampling: &SamplingParams) -> Result<()> {
        sampling.validate()?;
        if logits.len() != self.vocab_size {
            return Err(Error::internal(format!("{} logits for {} tokens", logits.len(), self.vocab_size)));
        }
        Ok(())
    }

    /// The weights of all tokens after the temperature and the filters of `sampling`: proportional to their
    /// probabilities, 0 for excluded ones.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn filter(&mut self, logits: &[f32], sampling: &SamplingParams) -> Result<&[f32]> {
        self.weigh(logits, &sampling.resolved(&Defaults::NONE))
    }

    /// As [`Sampler::filter`], with parameters that are resolved.
    pub(super) fn weigh(&mut self, logits: &[f32], sampling: &SamplingParams) -> Result<&[f32]> {
        if sampling.temperature == 0.0 {
            return Err(Error::invalid("a temperature of 0 has no distribution"));
        }
        self.check(logits, sampling)?;
        let first = if self.temperature_last { 1.0 } else { sampling.temperature };
        let max = self.exponentiate(logits, first)?;
        if sampling.top_n_sigma > 0.0 {
            keep_top_n_sigma(self.weights.as_flattened_mut(), logits, self.mask, sampling.top_n_sigma);
        }
        if sampling.top_k > 0 {
            let k = (sampling.top_k as usize).min(self.vocab_size);
            keep_top_k(self.weights.as_flattened_mut(), &mut self.sorted, k);
        }
        if sampling.typical_p < 1.0 {
            keep_typical(self.weights.as_flattened_mut(), &mut self.edge, sampling.typical_p);
        }
        if sampling.top_p < 1.0 {
            self.keep_nucleus(f64::from(sampling.top_p));
        }
        if sampling.min_p > 0.0 {
            keep_min_p(self.weights.as_flattened_mut(), sampling.min_p);
        }
        if first != sampling.temperature {
            // Typical sampling may leave the most likely one out, beside which the others' vanish.
            let max = if sampling.typical_p < 1.0 { self.largest_kept(logits) } else { max };
            exponentials_of_kept(logits, max, inverse_of(sampling.temperature), &mut self.weights);
        }
        let weights = self.weights.as_flattened().get(..self.vocab_size);
        weights.ok_or_else(|| Error::internal("fewer weights than tokens"))
    }

    /// The largest logit of a token that is kept.
    fn largest_kept(&self, logits: &[f32]) -> f32 {
        let kept = logits.iter().zip(self.weights.as_flattened()).filter(|(_, weight)| **weight > 0.0);
        kept.fold(f32::NEG_INFINITY, |most, (&logit, _)| most.max(logit))
    }

    /// weights = exp((logits - max) / temperature), the mask's 0. Returns max, the largest logit but the mask's.
    fn exponentiate(&mut self, logits: &[f32], temperature: f32) -> Result<f32> {
        let max = largest(logits, self.mask);
        if !max.is_finite() {
            return Err(Error::logits_not_finite());
        }
        let sum = exponentials(logits, max, inverse_of(temperature), &mut self.weights);
        if let Some(weight) = self.weights.as_flattened_mut().get_mut(self.mask as usize) {
            *weight = 0.0;
        }
        // A NaN anywhere shows in the sum, wherever the maximum was.
        if sum.is_finite() { Ok(max) } else { Err(Error::logits_not_finite()) }
    }

    /// Keeps a token if the tokens before it, from the most likely on, have together at most `p`.
    fn keep_nucleus(&mut self, p: f64) {
        /// Positive floats are ordered as their bits are: this many values apart is less than 0.2 %.
        const NARROW: u32 = 1 << 14;
        let [total] = mass_above(&self.weights, [0.0]);
        let limit = p * total;
        // Instead of sorting: the mass above some thresholds says between which of them the nucleus ends, until
        // few tokens lie between `low`, above which there is more than the limit, and `high`, above which there
        // is `before`. No weight is above 1, and tokens below the first threshold cannot make up the tail.
        let mut before = 0.0;
        let mut low = ((1.0 - p) * total / (2 * self.vocab_size) as f64) as f32;
        let mut high = 1.0f32;
        while high.to_bits() - low.to_bits() > NARROW {
            let quarter = (high.to_bits() - low.to_bits()) / 4;
            let thresholds = [1, 2, 3].map(|i| f32::from_bits(low.to_bits() + i * quarter));
            for (threshold, mass) in thresholds.into_iter().zip(mass_above(&self.weights, thresholds)) {
                if mass > limit {
                    low = threshold;
                } else {
                    (high, before) = (threshold, mass);
                    break;
                }
            }
        }
        self.edge.clear();
        cut(&mut self.weights, low, high, &mut self.edge);
        self.edge.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(weight, token) in &self.edge {
            if before > limit {
                break;
            }
            before += f64::from(weight);
            if let Some(slot) = self.weights.as_flattened_mut().get_mut(token as usize) {
                *slot = weight;
            }
        }
    }
}

/// 1 / temperature, finite.
fn inverse_of(temperature: f32) -> f32 {
    (1.0 / temperature).min(f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: sort, then add up in f64.
    fn nucleus_by_sorting(logits: &[f32], mask: usize, p: f64) -> Vec<bool> {
        let max = logits.iter().cloned().fold(f32::MIN, f32::max);
        let mut order: Vec<usize> = (0..logits.len()).filter(|&i| i != mask).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let weight = |i: usize| f64::from(logits[i] - max).exp();
        let total: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut keep = vec![false; logits.len()];
        let mut before = 0.0;
        for i in order {
            if before > p * total {
                break;
            }
            keep[i] = true;
            before += weight(i);
        }
        keep
    }

    #[test]
    fn tokens_that_typical_sampling_keeps_are_drawn_at_any_temperature() {
        // The likeliest one is left out.
        let probabilities: Vec<f32> = [0.0f32, 0.4].into_iter().chain([0.06; 10]).collect();
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln().max(-1e30)).chain([0.0]).collect();
        let sampling = SamplingParams { typical_p: 0.5, ..SamplingParams::FULL };
        for temperature_last in [false, true] {
            for temperature in [2.0, 1.0, 0.3, 0.02] {
                let mut sampler = Sampler { temperature_last, ..Sampler::new(13, 12).unwrap() };
                let sampling = SamplingParams { temperature, ..sampling };
                let weights = sampler.filter(&logits, &sampling).unwrap();
                let kept = weights.iter().filter(|&&weight| weight > 0.0).count();
                assert!(kept > 0 && weights[0] == 0.0, "{temperature_last} {temperature}: {weights:?}");
                if temperature_last {
                    // Equally likely ones, and not the likeliest.
                    let equal = weights[2..].iter().all(|&w| w == 0.0 || (w > 0.1 && w <= 1.0));
                    assert!(weights[1] == 0.0 && equal, "{temperature}: {weights:?}");
                }
            }
        }
    }

    #[test]
    fn nucleus_keeps_the_same_tokens_as_sorting() {
        let mut rng = crate::rng::Rng::new(7, 0, crate::rng::Purpose::Token);
        for case in 0..if cfg!(miri) { 4 } else { 200 } {
            let spread = [0.1, 1.0, 4.0, 30.0][case % 4];
            let logits: Vec<f32> = (0..997).map(|_| ((rng.uniform() - 0.5) * spread * 6.0) as f32).collect();
            let p = 0.05 + 0.9 * rng.uniform();
            let mut sampler = Sampler::new(997, 996).unwrap();
            let sampling = SamplingParams { top_p: p as f32, ..SamplingParams::FULL };
            let kept: Vec<bool> =
                sampler.filter(&logits, &sampling).unwrap().iter().map(|&w| w > 0.0).collect();
            let expected = nucleus_by_sorting(&logits, 996, f64::from(p as f32));
            let differing = kept.iter().zip(&expected).filter(|(a, b)| a != b).count();
            // Rounding can move the limit across one token where the sum falls on it.
            assert!(differing <= 1, "case {case}: {differing} differ");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        // Chi-square with 4 degrees of freedom; 18.47 is its 99.9th percentile, and the seed is fixed.
        let logits = [1.0f32, 0.0, -1.0, 0.5, -0.5, 3.0];
        let mut sampler = Sampler::new(6, 5).unwrap();
        let mut rng = crate::rng::Rng::new(1, 0, crate::rng::Purpose::Token);
        let n = 50_000;
        let mut counts = [0usize; 6];
        for _ in 0..n {
            counts[sampler.draw(&logits, &SamplingParams::FULL, rng.uniform()).unwrap() as usize] += 1;
        }
        assert_eq!(counts[5], 0, "the mask was drawn");
        let total: f64 = logits[..5].iter().map(|&l| f64::from(l).exp()).sum();
        let chi: f64 = (0..5)
            .map(|i| {
                let expected = f64::from(logits[i]).exp() / total * n as f64;
                (counts[i] as f64 - expected).powi(2) / expected
            })
            .sum();
        assert!(chi < 18.47, "chi-square {chi}");
    }

    #[test]
    fn logits_that_are_not_finite_are_errors() {
        let mut sampler = Sampler::new(4, 3).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            for at in 0..3 {
                let mut logits = [0.0f32; 4];
                logits[at] = bad;
                for temperature in [0.0, 1.0] {
                    let sampling = SamplingParams { temperature, ..SamplingParams::FULL };
                    assert!(matches!(sampler.draw(&logits, &sampling, 0.5), Err(Error::NotFinite(_))));
                }
            }
        }
    }

    #[test]
    fn lowest_temperatures_take_the_most_likely_token() {
        for temperature in [1e-30, f32::MIN_POSITIVE, f32::from_bits(1)] {
            let sampling = SamplingParams { temperature, ..SamplingParams::FULL };
            let mut sampler = Sampler::new(4, 3).unwrap();
            assert_eq!(sampler.draw(&[0.5, 1.5, f32::NEG_INFINITY, 2.5], &sampling, 0.9).unwrap(), 1);
        }
    }

    #[test]
    fn what_cannot_be_sampled_from_is_refused() {
        let mut sampler = Sampler::new(4, 3).unwrap();
        let logits = [0.5, 1.5, f32::NEG_INFINITY, 2.5];
        let good = SamplingParams::FULL;
        for bad in [
            SamplingParams { temperature: f32::NAN, ..good },
            SamplingParams { temperature: -0.5, ..good },
            SamplingParams { top_p: f32::NAN, ..good },
        ] {
            assert!(matches!(sampler.draw(&logits, &bad, 0.5), Err(Error::InvalidArgument(_))), "{bad:?}");
        }
        let greedy = SamplingParams { temperature: 0.0, ..good };
        for sampling in [good, greedy] {
            assert!(matches!(sampler.draw(&logits[..3], &sampling, 0.5), Err(Error::Internal(_))));
            assert!(matches!(
                sampler.draw_gumbel(&logits, &sampling, &[0.5; 3]),
                Err(Error::InvalidArgument(_))
            ));
        }
    }

    #[test]
    fn top_k_keeps_ties() {
        let mut sampler = Sampler::new(5, 4).unwrap();
        let kept =
            sampler.filter(&[2.0, 1.0, 1.0, 0.0, 9.0], &SamplingParams { top_k: 2, ..SamplingParams::FULL });
        assert_eq!(
            kept.unwrap().iter().map(|&w| w > 0.0).collect::<Vec<_>>(),
            [true, true, true, false, false]
        );
    }
}
