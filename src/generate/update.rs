//! What a step did, as the caller sees it.

/// A token that a step wrote.
#[repr(C)] // The C boundary hands these out as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The sequence's number in the batch.
    pub sequence: u32,
    /// Where in the text.
    pub position: u32,
    /// What.
    pub token: u32,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The step's number, from 0.
    pub index: usize,
    /// Steps of the whole generation (at most, where they are [`Adaptive`](crate::Adaptive)).
    pub total: usize,
    /// The tokens written: sequence by sequence, and in each in generation order.
    pub updates: &'a [Update],
    /// The logarithm (natural) of each token's probability under the model, if asked for: softmax of the network's
    /// logits without the mask token, before constraints, temperature, top-k and nucleus. Otherwise empty.
    pub log_probs: &'a [f64],
}
