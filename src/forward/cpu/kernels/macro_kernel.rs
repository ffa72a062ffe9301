//! The loop of a product around its micro-kernel: over groups of weight rows, which the threads share, over rows of
//! activations, and over columns.

use std::ops::Range;

use super::weights::Matrix;
use crate::forward::cpu::threads::team::WorkPieces;
use crate::simd::prefetch_to_l2;

/// Rows of activations that are multiplied with packed weights before these are packed again. (A thread's stack may be 128 KiB
/// in all.)
const ROWS: usize = 64;

/// Takes the products of a group of weight rows with some rows of activations: (first row of activations, weight rows, sums,
/// sums per row of activations, which may be more than the weight rows).
pub(super) type Store<'a> = &'a dyn Fn(usize, Range<usize>, &[f32], usize);

/// A way to multiply G rows of weights at a time.
pub(super) trait MicroKernel<const G: usize> {
    /// Rows of activations that are multiplied together.
    fn together(&self) -> usize;

    /// Most columns at once.
    fn columns(&self) -> usize;

    /// How often [`MicroKernel::pack`] and [`MicroKernel::multiply`] advance `ahead` for all columns and so many rows of
    /// activations; 0 if nothing is to be prefetched. (If it were less often, all would be prefetched in a part of that time, and the
    /// prefetches would wait for each other.)
    ///
    /// `in_order`: whether the weights that come next lie behind those at hand.
    fn advances(&self, rows: usize, in_order: bool) -> usize;

    /// Packs some columns of some rows, G at most.
    fn pack(&mut self, rows: Range<usize>, columns: Range<usize>, ahead: &mut Ahead<'_>);

    /// Adds the products of the packed weights with the same columns of the activations' rows from `first` on to `sums`.
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; G]], ahead: &mut Ahead<'_>);
}

/// The weights that come next, which are prefetched little by little: many at once would have to wait for each other. They go
/// into the L2 cache, as they would drive out of the L1 cache what is in use.
pub(super) struct Ahead<'a> {
    bytes: &'a [u8],
    /// Bytes that are prefetched together, whole cache lines.
    step: usize,
}

impl<'a> Ahead<'a> {
    fn new(bytes: &'a [u8], times: usize) -> Self {
        if times == 0 {
            return Self::none();
        }
        Self { bytes, step: bytes.len().div_ceil(times).next_multiple_of(64) }
    }

    /// Nothing to prefetch.
    pub(super) fn none() -> Self {
        Self { bytes: &[], step: 0 }
    }

    /// Prefetches some more.
    #[inline(always)]
    pub(super) fn advance(&mut self) {
        if let Some((now, rest)) = self.bytes.split_at_checked(self.step) {
            prefetch_to_l2(now);
            self.bytes = rest;
        }
    }
}

/// Multiplies rows of `w`, those of `pieces`, of which each has `piece_rows`, with `rows` rows of activations.
#[inline(always)]
pub(super) fn multiply_all<const G: usize, K: MicroKernel<G>>(
    kernel: &mut K,
    pieces: &mut WorkPieces<'_>,
    piece_rows: usize,
    w: Matrix<'_>,
    rows: usize,
    store: Store<'_>,
) {
    let mut sums = [[0.0; G]; ROWS];
    let groups = |piece: Range<usize>| {
        let end = w.rows.min(piece.end * piece_rows);
        (piece.start * piece_rows..end).step_by(G).map(move |first| first..end.min(first + G))
    };
    let mut groups = pieces.flat_map(groups).peekable();
    let together = kernel.columns();
    while let Some(group) = groups.next() {
        for start in (0..rows).step_by(ROWS) {
            let sums = &mut sums[..ROWS.min(rows - start)];
            sums.as_flattened_mut().fill(0.0);
            // Many rows come in slices, so that a slice's sums stay in the first cache beside the weights.
            let slice = sums.len().div_ceil(G).next_multiple_of(kernel.together());
            let mut ahead = groups.peek().map_or(Ahead::none(), |next| {
                Ahead::new(w.rows_bytes(next.clone()), kernel.advances(sums.len(), next.start == group.end))
            });
            for column in (0..w.columns).step_by(together) {
                let columns = column..w.columns.min(column + together);
                kernel.pack(group.clone(), columns.clone(), &mut ahead);
                for (i, sums) in sums.chunks_mut(slice).enumerate() {
                    kernel.multiply(start + i * slice, columns.clone(), sums, &mut ahead);
                }
            }
            store(start, group.clone(), sums.as_flattened(), G);
        }
    }
}
