//! Parameters of sampling.

use crate::error::{Error, Result};

/// Parameters of sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits. 1 is the model's own distribution, 0 is greedy.
    pub temperature: f32,
    /// Keeps only the `top_k` most likely tokens (and ties with the last); 0 is off.
    pub top_k: u32,
    /// Nucleus sampling: keeps the smallest set of most likely tokens whose probabilities sum to more than this,
    /// including the token that crosses it; 1 is off.
    pub top_p: f32,
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
    pub const FULL: Self = Self { temperature: 1.0, top_k: 0, top_p: 1.0 };

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::invalid(format!("temperature is {}, not a number from 0", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::invalid(format!("top_p is {}, not in 0 < top_p <= 1", self.top_p)));
        }
        Ok(())
    }
}
