//! How likely a text is: the log-probabilities of its tokens, and bounds made of them.

mod bound;
mod likelihood;

pub use bound::{Bound, Estimate, ScoreParams, TextScore};
pub(crate) use likelihood::Scorer;
