//! The loop of a product around its micro-kernel: over groups of weight rows, which the threads share, over rows of
//! activations, and over columns.

use std::ops::Range;

use super::weights::Matrix;
use crate::forward::cpu::threads::team::WorkPieces;
use crate::simd::prefetch;

/// Weight rows whose products are stored together.
pub(crate) const GROUP: usize = 8;
/// Rows of activations that are multiplied with packed weights before these are packed again.
const ROWS: usize = 128;
/// Columns that are packed between two prefetches.
pub(super) const PREFETCH_COLUMNS: usize = 32;

/// Takes the products of a group of weight rows with some rows of activations: (first row of activations, weight rows,
/// sums, groups of [`GROUP`] sums per row of activations).
pub(super) type Store<'a> = &'a dyn Fn(usize, Range<usize>, &[[f32; GROUP]], usize);

/// A way to multiply G rows of weights at a time.
pub(super) trait MicroKernel<const G: usize> {
    /// Most columns at once.
    const COLUMNS: usize;
    /// Rows of activations that are multiplied together.
    const TOGETHER: usize;

    /// Packs some columns of some rows of `w`, G at most. `prefetch_next` is called for each [`PREFETCH_COLUMNS`]
    /// columns.
    fn pack(&mut self, w: Matrix<'_>, rows: Range<usize>, columns: Range<usize>, prefetch_next: impl FnMut());

    /// Adds the products of the packed weights with the same columns of the activations' rows from `first` on to `sums`.
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; G]]);
}

/// Multiplies groups of rows of `w`, those of `pieces`, with `rows` rows of activations.
#[inline(always)]
pub(super) fn multiply_all<const G: usize, K: MicroKernel<G>>(
    kernel: &mut K,
    pieces: &mut WorkPieces<'_>,
    w: Matrix<'_>,
    rows: usize,
    store: Store<'_>,
) {
    let mut sums = [[0.0; G]; ROWS];
    let groups = |piece: Range<usize>| piece.map(|i| i * G..w.rows.min((i + 1) * G));
    let mut groups = pieces.flat_map(groups).peekable();
    while let Some(group) = groups.next() {
        for start in (0..rows).step_by(ROWS) {
            let sums = &mut sums[..ROWS.min(rows - start)];
            sums.fill([0.0; G]);
            // The weights of the next group are prefetched in the order in which they lie in memory: a part of them each
            // time that columns have been packed, or with each slice of the activations if there are many slices.
            let next = groups.peek().map_or(&[][..], |group| w.rows_bytes(group.clone()));
            let slice = sums.len().div_ceil(G).next_multiple_of(K::TOGETHER);
            let slices = sums.len().div_ceil(slice);
            let few_slices = slices < 4;
            let times = if few_slices {
                w.columns.div_ceil(PREFETCH_COLUMNS)
            } else {
                w.columns.div_ceil(K::COLUMNS) * slices
            };
            let mut next = next.chunks(next.len().div_ceil(times).next_multiple_of(64).max(64));
            for column in (0..w.columns).step_by(K::COLUMNS) {
                let columns = column..w.columns.min(column + K::COLUMNS);
                kernel.pack(w, group.clone(), columns.clone(), || {
                    if few_slices {
                        next.next().map(prefetch);
                    }
                });
                for (i, sums) in sums.chunks_mut(slice).enumerate() {
                    if !few_slices {
                        next.next().map(prefetch);
                    }
                    kernel.multiply(start + i * slice, columns.clone(), sums);
                }
            }
            store(start, group.clone(), sums.as_flattened().as_chunks().0, G / GROUP);
        }
    }
}
