//! How the graph is made for a kind of device.

use crate::forward::layout::{Capacity, KvType, SLOT_GROUP};

/// Rows of a graph from which on cancelling takes effect between blocks: fewer are soon computed.
const CUT_ROWS: usize = 256;
/// Most rows of a graph that ggml may replay: they are multiplied without cuBLAS (docs/gpu.md says why).
const REPLAYED_ROWS: usize = 8;

/// What suits host memory or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) struct Style {
    pub(super) on_host: bool,
    /// Whether attention is one operation. Otherwise scores are in memory.
    pub(super) flash: bool,
    /// Whether products are asked for in single precision, and GELU is computed in it.
    pub(super) exact: bool,
    /// Attention looks at a multiple of so many slots.
    pub(super) seen_group: usize,
    /// Sequences of at most so many rows are attended to together, filled up with rows that nobody reads.
    pub(super) few: usize,
}

impl Style {
    /// For ggml's kernels on the CPU: nothing is computed in vain. Attention in one operation is exact there.
    pub(in crate::forward) const HOST: Self =
        Self { on_host: true, flash: true, exact: true, seen_group: SLOT_GROUP, few: 0 };

    /// For other devices: so that graphs recur, which can then be kept and replayed; CUDA's kernel for single rows wants
    /// whole groups of slots, and matrix units take 16 rows at once anyway.
    pub(in crate::forward) const fn device(flash: bool) -> Self {
        Self { on_host: false, flash, exact: !flash, seen_group: 256, few: 16 }
    }

    /// Whether a device's attention in one operation is wanted: it takes keys and values in half precision.
    pub(in crate::forward) fn wants_flash(capacity: &Capacity) -> bool {
        capacity.kv == KvType::F16
    }

    /// How many of the `rows` rows of each of so many sequences are one operation of attention: CUDA has a kernel for one
    /// row of one text that takes a third of the time of the one for up to eight.
    pub(super) fn rows_together(&self, rows: usize, sequences: usize) -> usize {
        if !self.on_host && rows == 2 && sequences == 1 { 1 } else { rows }
    }

    /// The rows that a graph has for `n`. On a device these are not many different numbers and, from 24 on, less than twice as
    /// many: what is too much is fed token 0, and its keys and values go to a slot that nobody sees.
    pub(super) fn bucket(&self, n: usize) -> usize {
        match n {
            _ if self.on_host => n,
            0..=2 => n,
            // CUDA multiplies 4 to 16 rows of f32 in TF32, and more with cuBLAS, which can be told not to.
            3..=24 if self.exact => 24,
            3..=4 => 4,
            5..=64 => n.next_multiple_of(8),
            65..=512 => n.next_multiple_of(32),
            _ => n.next_multiple_of(128),
        }
    }

    /// Rows of the sequences that are attended to together, at most, for so many rows of so many sequences.
    pub(super) fn most_padded(&self, rows: usize, sequences: usize) -> usize {
        // Three rows are where a sequence is filled up most.
        let few = self.few.max(self.bucket(3));
        if self.on_host { rows } else { 2 * rows + few * sequences.min(rows) }
    }

    /// Whether a graph of `rows` rows is computed in parts.
    pub(super) fn cuts(&self, rows: usize) -> bool {
        !self.on_host && rows >= CUT_ROWS
    }

    /// Whether a graph of `rows` rows may be replayed.
    pub(super) fn replays(rows: usize) -> bool {
        rows <= REPLAYED_ROWS
    }
}
