//! Parameters of sampling.

use crate::error::{Error, Result};
use crate::model::{Defaults, check_range};

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
    /// In a field: what the model's file says ([`Defaults`]), or [`SamplingParams::LIBRARY`] where it says nothing; with WeDLM
    /// [`Defaults::WEDLM`].
    pub const AUTO: f32 = -1.0;
    /// The same for [`SamplingParams::top_k`].
    pub const TOP_K_AUTO: u32 = u32::MAX;
    /// The default of the library, its bindings and the command line: all fields [`SamplingParams::AUTO`].
    pub const DEFAULT: Self = Self {
        temperature: Self::AUTO,
        top_k: Self::TOP_K_AUTO,
        top_p: Self::AUTO,
        min_p: Self::AUTO,
        typical_p: Self::AUTO,
        top_n_sigma: Self::AUTO,
    };
    /// What is meant by default with a file that says nothing: `docs/samples.md` says why.
    pub const LIBRARY: Self = Self { top_p: 0.9, ..Self::FULL };
    /// The model's own distribution: temperature 1, all tokens.
    pub const FULL: Self =
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, typical_p: 1.0, top_n_sigma: 0.0 };

    /// What is meant with a model that has these defaults ([`Config::generation_defaults`](crate::Config::generation_defaults)).
    pub fn resolved(&self, defaults: &Defaults) -> Self {
        let pick = |given: f32, file: Option<f32>, library: f32| match given {
            Self::AUTO => file.unwrap_or(library),
            given => given,
        };
        let library = Self::LIBRARY;
        Self {
            temperature: pick(self.temperature, defaults.temperature, library.temperature),
            top_k: match self.top_k {
                Self::TOP_K_AUTO => defaults.top_k.unwrap_or(library.top_k),
                given => given,
            },
            top_p: pick(self.top_p, defaults.top_p, library.top_p),
            min_p: pick(self.min_p, defaults.min_p, library.min_p),
            typical_p: pick(self.typical_p, defaults.typical_p, library.typical_p),
            top_n_sigma: pick(self.top_n_sigma, defaults.top_n_sigma, library.top_n_sigma),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn validate(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, typical_p, top_n_sigma, .. } = self.resolved(&Defaults::NONE);
        let fields = [
            ("temperature", temperature),
            ("top_n_sigma", top_n_sigma),
            ("top_p", top_p),
            ("typical_p", typical_p),
            ("min_p", min_p),
        ];
        fields
            .into_iter()
            .try_for_each(|(name, value)| check_range(name, value).map_err(Error::InvalidArgument))
    }

    /// Whether anything but the temperature changes the distribution.
    pub(crate) fn has_filters(&self) -> bool {
        *self != Self { temperature: self.temperature, ..Self::FULL }
    }

    /// Whether nothing but temperature, top-k, top-p and min-p is asked for: what devices can draw with.
    pub(crate) fn is_basic(&self) -> bool {
        let Self { temperature, top_k, top_p, min_p, .. } = *self;
        *self == Self { temperature, top_k, top_p, min_p, ..Self::FULL }
    }
}
