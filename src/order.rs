//! Which positions become known, in which order.

use crate::rng::Rng;

/// Puts the unknown positions `tail` into generation order: a random permutation whose first `diffusion`
/// entries are the diffusion phase; the others, the sequential phase, go left to right.
///
/// Source: the reference's `_sample_order` / `sort_idx` for random orders.
pub(crate) fn random(tail: &mut [u32], diffusion: usize, rng: &mut Rng) {
    // Fisher-Yates from the front, only as far as the diffusion phase goes.
    let len = tail.len();
    for i in 0..diffusion.min(len.saturating_sub(1)) {
        tail.swap(i, i + rng.below(len - i));
    }
    if let Some(sequential) = tail.get_mut(diffusion..) {
        sequential.sort_unstable();
    }
}
