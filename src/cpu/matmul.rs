//! Products of a weight matrix with some rows.

use super::pool::Worker;
use super::simd::{F32x8, LANES};
use super::unpack::Matrix;

/// Weight rows that are unpacked together.
const TILE: usize = 4;
/// Weight rows of one piece of work.
const PIECE: usize = 16;
/// Columns, in groups of eight, unpacked at once: a tile of them is half of the first-level cache.
const CHUNK: usize = 128;
/// Rows of the pass that are multiplied with a tile before it is unpacked again.
const ROWS: usize = 129;

/// y = w x^T: `store` gets, for each row of `x` (all of `w`'s columns long), the products with some consecutive
/// rows of `w`, as (row of x, first row of w, products).
pub(super) fn matmul(worker: &Worker<'_>, w: Matrix<'_>, x: &[f32], store: impl Fn(usize, usize, &[f32])) {
    let columns = w.columns / LANES;
    let x = x.as_chunks::<LANES>().0;
    let mut tile = [[[0.0; LANES]; CHUNK]; TILE];
    for piece in worker.ranges(w.rows, PIECE) {
        for first in piece.clone().step_by(TILE) {
            let n = TILE.min(piece.end - first);
            for (batch, rows) in x.chunks(ROWS * columns).enumerate() {
                let count = rows.len() / columns;
                let mut sums = [[0.0; TILE]; ROWS];
                for start in (0..columns).step_by(CHUNK) {
                    let len = CHUNK.min(columns - start);
                    for (i, tile) in tile.iter_mut().enumerate().take(n) {
                        w.unpack(first + i, start * LANES, &mut tile[..len]);
                    }
                    multiply(&tile, rows, columns, start..start + len, &mut sums[..count]);
                }
                for (i, sums) in sums.iter().enumerate().take(count) {
                    store(batch * ROWS + i, first, &sums[..n]);
                }
            }
        }
    }
}

/// Adds the products of `tile` with the columns `range` of each row to `sums`.
fn multiply(
    tile: &[[[f32; LANES]; CHUNK]; TILE],
    rows: &[[f32; LANES]],
    columns: usize,
    range: std::ops::Range<usize>,
    sums: &mut [[f32; TILE]],
) {
    let tile = tile.each_ref().map(|t| &t[..range.len()]);
    let row = |i: usize| &rows[i * columns..][range.clone()];
    let mut i = 0;
    while i + 3 <= sums.len() {
        add(&mut sums[i..], dot(tile, [row(i), row(i + 1), row(i + 2)]));
        i += 3;
    }
    match sums.len() - i {
        2 => add(&mut sums[i..], dot(tile, [row(i), row(i + 1)])),
        1 => add(&mut sums[i..], dot(tile, [row(i)])),
        _ => (),
    }
}

#[inline(always)]
fn add<const M: usize>(sums: &mut [[f32; TILE]], products: [[f32; TILE]; M]) {
    for (sums, products) in sums.iter_mut().zip(products) {
        for (sum, product) in sums.iter_mut().zip(products) {
            *sum += product;
        }
    }
}

/// The products of M rows with a tile. 3 rows are as many as registers hold sums for.
#[inline(always)]
fn dot<const M: usize>(tile: [&[[f32; LANES]]; TILE], rows: [&[[f32; LANES]]; M]) -> [[f32; TILE]; M] {
    let len = tile[0].len();
    let (tile, rows) = (tile.map(|t| &t[..len]), rows.map(|r| &r[..len]));
    let mut sums = [[F32x8::zero(); TILE]; M];
    for i in 0..len {
        // Rows stay in registers and the tile's numbers come one by one: 12 sums, 3 rows and 1 are all 16.
        let x = rows.map(|row| F32x8::load(&row[i]));
        for (j, tile) in tile.iter().enumerate() {
            let w = F32x8::load(&tile[i]);
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[j] = x.mul_add(w, sums[j]);
            }
        }
    }
    sums.map(F32x8::sums)
}
