//! Adaptive steps: only tokens that the model is confident of are accepted.

use crate::error::{Error, Result};
use crate::simd::{LANES, wide};

/// Confidence-based steps: each step proposes tokens for the next `window` positions of the order, accepts those at
/// positions where the model is confident, at least the one with the highest confidence, and leaves the other positions
/// for later steps. A rejected position costs a row and nothing else. (With blocks, a window may reach into the next
/// block.)
///
/// The order then depends on the tokens, so the text is not a sample of the model's distribution, not even with one
/// token per step: positions of high confidence come early.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// The measure of confidence.
    pub confidence: Confidence,
    /// The confidence from which a token is accepted.
    pub threshold: f32,
    /// Number of positions proposed in a step, at least 1. More rows cost more time. [`Adaptive::WINDOW_AUTO`] (with `in_order`): as
    /// many as pay, to 32, by those filled so far.
    pub window: usize,
    /// What is taken from the confidence for each position that one is behind the first of the step's, so that earlier ones
    /// come first (with [`Confidence::Entropy`], in nats). 0 is off.
    pub penalty: f32,
    /// Whether the window slides from left to right: accepted tokens stay, but are computed anew in each step, behind the
    /// known tokens and before the masks, until there is no unknown position before them. WeDLM always does; Eso-LM (B) can.
    pub in_order: bool,
}

/// A measure of the model's confidence at a position, from its own probabilities: before constraints, temperature,
/// top-k and nucleus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// The largest probability; accepted from the threshold on.
    Probability,
    /// The largest probability minus the second largest; accepted from the threshold on.
    Margin,
    /// The entropy in nats; accepted up to the threshold.
    Entropy,
}

/// Numbers whose sums are added up in single precision.
const RUN: usize = 1 << 10;

wide! {
    /// The sums of w = e^(x - first) and of w (x - first).
    fn moments<V>(values: &[f32], first: f32) -> [f64; 2] {
        // As good as zero.
        const LEAST: f32 = -87.0;
        let (shift, least) = (V::splat(-first), V::splat(LEAST));
        let mut sums = [0.0; 2];
        for run in values.chunks(RUN) {
            let (eights, rest) = run.as_chunks::<LANES>();
            let mut padded = [first + LEAST; LANES];
            padded.iter_mut().zip(rest).for_each(|(to, &x)| *to = x);
            let (mut sum, mut moment) = (V::zero(), V::zero());
            for x in eights.iter().chain([&padded]) {
                let below = V::load(x).add(shift).max(least);
                let weight = below.exp();
                sum = sum.add(weight);
                moment = weight.mul_add(below, moment);
            }
            sums = [sums[0] + f64::from(sum.sum()), sums[1] + f64::from(moment.sum())];
        }
        sums
    }
}

wide! {
    /// The largest number and the next one; minus infinity if there are none.
    fn largest_two<V>(values: &[f32]) -> [f32; 2] {
        let (eights, rest) = values.as_chunks::<LANES>();
        let lowest = V::splat(f32::NEG_INFINITY);
        let (mut first, mut second) = (lowest, lowest);
        for x in eights {
            let x = V::load(x);
            // The smaller one of x and the first, as minus the larger one of both negated.
            let smaller = V::zero().sub(V::zero().sub(x).max(V::zero().sub(first)));
            second = smaller.max(second);
            first = x.max(first);
        }
        let (mut lanes, mut seconds) = ([0.0; LANES], [0.0; LANES]);
        first.store(&mut lanes);
        second.store(&mut seconds);
        let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for &x in lanes.iter().chain(&seconds).chain(rest) {
            second = if x > first { first } else if x > second { x } else { second };
            first = if x > first { x } else { first };
        }
        [first, second]
    }
}

impl Default for Adaptive {
    /// Tokens of a probability of 0.9 in a window of 8, without penalty, in any order.
    fn default() -> Self {
        let (confidence, threshold) = (Confidence::Probability, 0.9);
        Self { confidence, threshold, window: 8, penalty: 0.0, in_order: false }
    }
}

impl Adaptive {
    /// The defaults of WeDLM's authors: a window of 16, an entropy of 0.4, a penalty of 0.02.
    pub const WEDLM: Self =
        Self { confidence: Confidence::Entropy, threshold: 0.4, window: 16, penalty: 0.02, in_order: true };

    /// For [`Adaptive::window`]: as many positions as pay. That is decided by those that were filled so far and by a fixed formula
    /// for the time of a pass, and not by a clock: the text depends on the size, and stays a function of the seed.
    pub const WINDOW_AUTO: usize = u32::MAX as usize;

    /// Most positions of such a window.
    pub const MOST_AUTO_WINDOW: usize = 32;

    /// Checks the ranges.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.window == 0 {
            return Err(Error::invalid("a window of no positions"));
        }
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            return Err(Error::invalid(format!("a penalty of {} is not a number from 0", self.penalty)));
        }
        if !(self.threshold.is_finite() && self.threshold >= 0.0) {
            return Err(Error::invalid(format!("a threshold of {} is not a number from 0", self.threshold)));
        }
        Ok(())
    }

    /// The confidence at a position, larger for more confident, from its logits in two parts (WeDLM's with the mask's,
    /// others' without).
    pub(crate) fn confidence(&self, logits_of: [&[f32]; 2]) -> f32 {
        let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for part in logits_of {
            let [first_of_part, second_of_part] = largest_two(part);
            second = second.max(first.min(first_of_part)).max(second_of_part);
            first = first.max(first_of_part);
        }
        // With w = exp(logit - first): p = w / sum w, and the entropy is log(sum w) - sum(w log w) / sum w.
        let (mut sum, mut moment) = (0.0, 0.0);
        for part in logits_of {
            let [of_part, moment_of_part] = moments(part, first);
            sum += of_part;
            moment += moment_of_part;
        }
        let confidence = match self.confidence {
            Confidence::Probability => 1.0 / sum,
            Confidence::Margin => (1.0 - f64::from((second - first).exp())) / sum,
            Confidence::Entropy => moment / sum - sum.ln(),
        };
        confidence as f32
    }

    /// Takes the penalty from the confidences of these positions.
    pub(crate) fn penalize(&self, confidences: &mut [f32], mut positions: impl Iterator<Item = u32> + Clone) {
        if let Some(first) = positions.clone().next().filter(|_| self.penalty > 0.0) {
            for (confidence, position) in confidences.iter_mut().zip(&mut positions) {
                *confidence -= self.penalty * position.abs_diff(first) as f32;
            }
        }
    }

    /// Appends to `accepted` whether each position is accepted; at least one is.
    pub(crate) fn accept(&self, confidences: &[f32], accepted: &mut Vec<bool>) {
        let min = match self.confidence {
            Confidence::Probability | Confidence::Margin => self.threshold,
            Confidence::Entropy => -self.threshold,
        };
        let best = confidences.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        let best = best.map(|(place, _)| place);
        accepted.extend(confidences.iter().enumerate().map(|(place, &c)| c >= min || Some(place) == best));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_matches_its_definitions() {
        let logits = [1.0f32, 0.25, -2.0, 9.0, 0.5];
        let weights = [0, 1, 2, 4].map(|token: usize| f64::from(logits[token]).exp());
        let sum: f64 = weights.iter().sum();
        let p = weights.map(|weight| weight / sum);
        let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
        for (confidence, expected) in [
            (Confidence::Probability, p[0]),
            (Confidence::Margin, p[0] - p[3]),
            (Confidence::Entropy, -entropy),
        ] {
            let found = Adaptive { confidence, threshold: 0.0, window: 1, penalty: 0.0, in_order: false }
                .confidence([&logits[..3], &logits[4..]]);
            assert!((f64::from(found) - expected).abs() < 1e-6, "{confidence:?}: {found} {expected}");
        }
    }

    #[test]
    fn sums_and_largest_numbers_of_any_length_match_their_definitions() {
        for len in [0usize, 1, 7, 8, 9, 1023, 1024, 5000] {
            let values: Vec<f32> = (0..len).map(|i| ((i * 7919) % 1000) as f32 / 90.0 - 5.0).collect();
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let at = |place: usize| sorted.get(place).copied().unwrap_or(f32::NEG_INFINITY);
            assert_eq!(largest_two(&values), [at(0), at(1)], "{len}");
            let first = 7.0;
            let below = |&x: &f32| f64::from(x - first);
            let expected: [f64; 2] = [
                values.iter().map(|x| below(x).exp()).sum(),
                values.iter().map(|x| below(x).exp() * below(x)).sum(),
            ];
            for (found, expected) in moments(&values, first).into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs() + 1e-30,
                    "{len}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn accepts_confident_tokens_and_always_the_most_confident() {
        let accept = |confidence, threshold, confidences: &[f32]| {
            let mut accepted = vec![];
            Adaptive { confidence, threshold, window: 1, penalty: 0.0, in_order: false }
                .accept(confidences, &mut accepted);
            accepted
        };
        let p = Confidence::Probability;
        assert_eq!(accept(p, 0.5, &[0.5, 0.4, 0.9]), [true, false, true]);
        assert_eq!(accept(p, 0.95, &[0.5, 0.9, 0.9]), [false, true, false]);
        assert_eq!(accept(Confidence::Entropy, 1.0, &[-0.5, -1.0, -1.5]), [true, true, false]);
        assert_eq!(accept(Confidence::Entropy, 0.1, &[-0.5]), [true]);
        assert!(accept(p, 0.0, &[]).is_empty());
    }
}
