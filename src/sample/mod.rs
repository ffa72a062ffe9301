//! Logits to a token: constraints, then temperature, top-k and nucleus, then a draw.

mod constraints;
mod logits;
mod params;
mod sampler;

pub use constraints::Constraints;
pub(crate) use constraints::{LogitsFn, LogitsProcessor};
pub use logits::LogitsRow;
#[cfg(feature = "convert")]
pub(crate) use logits::argmax;
#[cfg(feature = "convert")]
pub(crate) use logits::log_sum;
pub(crate) use logits::{log_probability, without_mask};
pub use params::SamplingParams;
pub use sampler::Sampler;
