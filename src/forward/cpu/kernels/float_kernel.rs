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

    fn advances(&self, _: usize) -> usize {
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
            let products = dot(tile.each_ref().map(|t| &t[..]), rows);
            for (sums, products) in sums.iter_mut().zip(products) {
                sums.iter_mut().skip(t * TILE).zip(products).for_each(|(sum, product)| *sum += product);
            }
        }
    }
}

wide! {
    /// The products of M rows of activations with a tile of weights.
    fn dot<V, const M: usize>(tile: [&[[f32; LANES]]; TILE], rows: [&[[f32; LANES]]; M]) -> [[f32; TILE]; M] {
        let len = rows[0].len();
        let (tile, rows) = (tile.map(|t| &t[..len]), rows.map(|r| &r[..len]));
        let mut sums = [[V::zero(); TILE]; M];
        for i in 0..len {
            // The activations stay in registers, the weights come one vector at a time: 12 sums, 3 rows and 1 weight are
            // all 16 registers.
            let mut x = [V::zero(); M];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = V::load(&row[i]);
            }
            for (j, tile) in tile.iter().enumerate() {
                let w = V::load(&tile[i]);
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[j] = x.mul_add(w, sums[j]);
                }
            }
        }
        let mut products = [[0.0; TILE]; M];
        for (products, sums) in products.iter_mut().zip(sums) {
            *products = V::sums(sums);
        }
        products
    }
}
