//! Which sequences begin or go on.

/// Which sequences begin, and with what.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// The number of the sequence that the first prompt is for; the others follow.
    pub(super) first: usize,
    /// Whether they go on from what is known of them.
    pub(super) resume: bool,
    /// How many of their first positions they go on from, if not from all that is known.
    pub(super) keep: Option<usize>,
    /// Whether the other sequences stay.
    pub(super) beside: bool,
}
