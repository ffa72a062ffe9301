//! What a step did, as the caller sees it.

use crate::sample::TokenLogProb;

/// A token that a step wrote.
#[repr(C)] // The C boundary hands these out as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The sequence, by index.
    pub sequence: u32,
    /// Position in the text.
    pub position: u32,
    /// The token.
    pub token: u32,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Index of the step, from 0.
    pub index: usize,
    /// Number of steps of the whole generation (at most, where they are [`Adaptive`](crate::Adaptive)).
    pub total: usize,
    /// The tokens written, sequence by sequence, each in generation order.
    pub updates: &'a [Update],
    /// The log-probability (natural) of each token if [`GenerateParams::log_probs`](crate::GenerateParams) is set,
    /// otherwise empty: log-softmax of the network's logits without the mask token, before constraints, temperature and
    /// filters.
    pub log_probs: &'a [f64],
    /// The most likely tokens at the position of each update, the likeliest first:
    /// [`GenerateParams::top_log_probs`](crate::GenerateParams) of them for the first update, as many for the second and
    /// so on. The written token need not be among them.
    pub top_log_probs: &'a [TokenLogProb],
}
