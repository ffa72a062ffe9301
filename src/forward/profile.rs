//! Where a generation's time goes.

use std::time::Duration;

/// The time of a generation's steps so far, by part of the work. Waiting for other threads counts as the part that they
/// do. Measuring costs about 30 ns per operation; a block has about ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Profile {
    /// Products with the matrices of the blocks.
    pub blocks: Duration,
    /// Attention: queries over keys and values in the cache.
    pub attention: Duration,
    /// Products with the vocabulary's matrix.
    pub vocabulary: Duration,
    /// From logits to tokens: constraints, filters, draws.
    pub sampling: Duration,
    /// Everything else: embedding, norms, rotations, writing the cache, rounding, and the session's own work.
    pub rest: Duration,
}

impl Profile {
    /// The time of all steps.
    pub fn total(&self) -> Duration {
        self.blocks + self.attention + self.vocabulary + self.sampling + self.rest
    }
}
