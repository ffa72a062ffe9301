//! Parameters of sampling.

use crate::error::{Error, Result};

/// Parameters of sampling. They are applied in the order temperature, top-n-sigma, top-k, typical, top-p, min-p, after
/// [`Constraints`](crate::Constraints) and a function on the logits; then a token is drawn from those that are left. (That is
/// llama.cpp's order, except that the temperature comes first, as in transformers and in the code of the models' authors.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits. 1 is the model's own distribution, 0 is greedy: always the most likely token.
    pub temperature: f32,
    /// Keeps only the `top_k` most likely tokens (and ties with the last); 0 is off.
    pub top_k: u32,
    /// Nucleus sampling: keeps the smallest set of most likely tokens whose probabilities sum to more than this,
    /// including the token that crosses it; 1 is off.
    pub top_p: f32,
    /// Keeps the tokens whose probability is at least this fraction of the most likely one's (arXiv 2407.01082); 0 is off.
    pub min_p: f32,
    /// Locally typical sampling (arXiv 2202.00666): keeps the tokens whose information content is nearest to the entropy
    /// and whose probabilities sum to more than this, including the token that crosses it; 1 is off.
    pub typical_p: f32,
    /// Keeps the tokens whose logit is at most this many standard deviations of all logits below the largest
    /// (arXiv 2411.07641); 0 is off.
    pub top_n_sigma: f32,
}

impl Default for SamplingParams {
    /// [`SamplingParams::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl SamplingParams {
    /// The default of the library, its bindings and the command line: `docs/samples.md` says why.
    pub const DEFAULT: Self = Self { top_p: 0.9, ..Self::FULL };
    /// The model's own distribution: temperature 1, all tokens.
    pub const FULL: Self =
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, typical_p: 1.0, top_n_sigma: 0.0 };

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn validate(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, typical_p, top_n_sigma, .. } = *self;
        for (name, value) in [("temperature", temperature), ("top_n_sigma", top_n_sigma)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!("{name} is {value}, not a number from 0")));
            }
        }
        for (name, value) in [("top_p", top_p), ("typical_p", typical_p)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(Error::invalid(format!("{name} is {value}, not in 0 < {name} <= 1")));
            }
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(Error::invalid(format!("min_p is {min_p}, not in 0..=1")));
        }
        Ok(())
    }

    /// Whether nothing but temperature, top-k and top-p is asked for: what devices can draw with.
    pub(crate) fn is_basic(&self) -> bool {
        let Self { temperature, top_k, top_p, .. } = *self;
        *self == Self { temperature, top_k, top_p, ..Self::FULL }
    }
}
