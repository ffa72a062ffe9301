//! The micro-kernel in single precision, for weights that are not quantized.

use std::ops::Range;

use super::macro_kernel::{Ahead, MicroKernel, Store, multiply_all};
use super::weights::Matrix;
use crate::forward::cpu::threads::team::WorkPieces;
use crate::simd::{LANES, wide};

/// Weight rows that are multiplied together.
pub(super) const ROWS: usize = 8;
/// Columns that are unpacked at once: those of as many rows take half of the L1 cache.
const FLOATS: usize = 512;
/// Weight rows whose sums are in registers together.
const TILE: usize = 4;

/// Multiplies with single-precision activations `x`.
pub(super) fn multiply(pieces: &mut WorkPieces<'_>, w: Matrix<'_>, x: &[f32], rows: usize, store: Store<'_>) {
    let weights = [[[0.0; LANES]; FLOATS / LANES]; ROWS];
    let mut kernel = FloatKernel { w, x: x.as_chunks().0, weights };
    multiply_all(&mut kernel, pieces, ROWS, w, rows, store);
}

struct FloatKernel<'a> {
    w: Matrix<'a>,
    x: &'a [[f32; LANES]],
    weights: [[[f32; LANES]; FLOATS / LANES]; ROWS],
}

impl MicroKernel<ROWS> for FloatKernel<'_> {
    /// As many as there are registers for their sums.
    fn together(&self) -> usize {
        3
    }

    fn columns(&self) -> usize {
        FLOATS
    }

    fn advances(&self, _: usize, _: bool) -> usize {
        self.w.columns.div_ceil(FLOATS) * ROWS
    }

    #[inline(always)]
    fn pack(&mut self, rows: Range<usize>, columns: Range<usize>, ahead: &mut Ahead<'_>) {
        for (row, to) in rows.zip(&mut self.weights) {
            self.w.dequantize(row, columns.start, &mut to[..columns.len() / LANES]);
            ahead.advance();
        }
    }

    #[inline(always)]
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; ROWS]], _: &mut Ahead<'_>) {
        let row = |i: usize| {
            &self.x[((first + i) * self.w.columns + columns.start) / LANES..][..columns.len() / LANES]
        };
        let mut i = 0;
        while i + 3 <= sums.len() {
            self.add([row(i), row(i + 1), row(i + 2)], &mut sums[i..]);
            i += 3;
        }
        match sums.len() - i {
            2 => self.add([row(i), row(i + 1)], &mut sums[i..]),
            1 => self.add([row(i)], &mut sums[i..]),
            _ => (),
        }
    }
}

impl FloatKernel<'_> {
    #[inline(always)]
    fn add<const M: usize>(&self, rows: [&[[f32; LANES]]; M], sums: &mut [[f32; ROWS]]) {
        for (t, tile) in self.weights.as_chunks::<TILE>().0.iter().enumerate() {
            let products = dot([&tile[0][..], &tile[1], &tile[2], &tile[3]], rows);
            for m in 0..M {
                for j in 0..TILE {
                    sums[m][t * TILE + j] += products[m][j];
                }
            }
        }
    }
}

wide! {
    /// The products of M rows of activations with a tile of weights.
    fn dot<V, const M: usize>(tile: [&[[f32; LANES]]; TILE], rows: [&[[f32; LANES]]; M]) -> [[f32; TILE]; M] {
        let len = rows[0].len();
        // One length for all lets the compiler see that every index is in bounds.
        let (mut tile, mut rows) = (tile, rows);
        for j in 0..TILE {
            tile[j] = &tile[j][..len];
        }
        for m in 0..M {
            rows[m] = &rows[m][..len];
        }
        let mut sums = [[V::zero(); TILE]; M];
        for i in 0..len {
            // The activations stay in registers, the weights come one vector at a time: 12 sums, 3 rows and 1 weight are
            // all 16 registers.
            let mut x = [V::zero(); M];
            for m in 0..M {
                x[m] = V::load(&rows[m][i]);
            }
            for j in 0..TILE {
                let w = V::load(&tile[j][i]);
                for m in 0..M {
                    sums[m][j] = x[m].mul_add(w, sums[m][j]);
                }
            }
        }
        let mut products = [[0.0; TILE]; M];
        for m in 0..M {
            products[m] = V::sums(sums[m]);
        }
        products
    }
}
