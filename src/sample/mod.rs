//! Logits to a token: penalties and other constraints, then temperature and filters, then a draw.

mod constraints;
mod filters;
mod grammar;
mod logits;
mod params;
mod penalties;
mod proposal;
mod sampler;
mod weights;

pub use constraints::Constraints;
pub(crate) use constraints::{LogitsFn, LogitsProcessor};
pub use grammar::Grammar;
pub(crate) use grammar::{GrammarState, Grammars};
#[cfg(feature = "convert")]
pub(crate) use logits::argmax;
pub use logits::{LogitsRow, TokenLogProb};
pub(crate) use logits::{has_nan_or_infinity, log_probability, log_sum, without_mask};
pub use params::SamplingParams;
pub use penalties::Dry;
pub(crate) use proposal::Proposal;
pub use sampler::Sampler;
