//! Adaptive steps: only tokens that the model is confident of are accepted.

use crate::error::{Error, Result};

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
    /// Number of positions proposed in a step, at least 1. More rows cost more time.
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
    pub(crate) fn confidence(&self, logits: [&[f32]; 2]) -> f32 {
        let logits = || logits.into_iter().flatten().copied();
        let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for logit in logits() {
            second = second.max(logit.min(first));
            first = first.max(logit);
        }
        // With w = exp(logit - first): p = w / sum w, and the entropy is log(sum w) - sum(w log w) / sum w.
        let (mut sum, mut moment) = (0.0, 0.0);
        for logit in logits() {
            let below = (logit - first).max(-87.0);
            let weight = below.exp();
            sum += f64::from(weight);
            moment += f64::from(weight * below);
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
