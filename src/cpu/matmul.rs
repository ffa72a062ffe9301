//! Products of a weight matrix with some rows.
//!
//! A few rows of the weights are unpacked into the first-level cache and multiplied with all rows of the pass there:
//! quantized ones as whole numbers (see `rounded`), others as floats.

use std::ops::Range;

use super::pool::Worker;
use super::rounded::{CHUNK, WIDE};
use super::simd::{F32x8, I16x16, I32x8, LANES};
use super::unpack::Matrix;

/// Weight rows that are unpacked together, and of these, those that are multiplied together.
pub(super) const GROUP: usize = 8;
const TILE: usize = 4;
/// Weight rows of one piece of work.
const PIECE: usize = 16;
/// Columns of floats unpacked at once. (A group of them, as of whole numbers, is half of the first-level cache.)
const FLOATS: usize = 512;
/// Rows of the pass that are multiplied with a group before it is unpacked again.
const ROWS: usize = 128;

/// Some rows of a pass, all of the weights' columns long: as they are, and rounded if they are to be multiplied with
/// quantized weights, with a scale for each chunk.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) exact: &'a [f32],
    pub(super) rounded: &'a [i16],
    pub(super) scales: &'a [f32],
}

/// y = w x^T: `store` gets, for each row of `x`, the products with eight consecutive rows of `w`, as (row of x, first
/// row of w, products). Behind the last row of `w` they are no numbers that mean anything.
pub(super) fn matmul(
    worker: &Worker<'_>,
    w: Matrix<'_>,
    x: Rows<'_>,
    store: impl Fn(usize, usize, &[f32; GROUP]),
) {
    if w.ty.is_quantized() {
        let mut kernel = Rounded {
            x: x.rounded.as_chunks().0,
            scales: x.scales,
            columns: w.columns,
            tile: [[[0; WIDE]; CHUNK / WIDE]; GROUP],
            tile_scales: [0.0; GROUP],
        };
        multiply_all(&mut kernel, worker, w, x.exact.len() / w.columns, store);
    } else {
        let x = x.exact.as_chunks().0;
        let mut kernel = Exact { x, columns: w.columns, tile: [[[0.0; LANES]; FLOATS / LANES]; GROUP] };
        multiply_all(&mut kernel, worker, w, x.len() * LANES / w.columns, store);
    }
}

/// A way to multiply.
trait Kernel {
    /// Most columns at once.
    const COLUMNS: usize;

    /// Unpacks some columns of a row of `w` as row `i` of the group.
    fn unpack(&mut self, i: usize, w: Matrix<'_>, row: usize, range: Range<usize>);

    /// Adds the products of the group with the columns `range` of the rows of x from `first` on to `sums`.
    fn multiply(&self, first: usize, range: Range<usize>, sums: &mut [[f32; GROUP]]);
}

#[inline(always)]
fn multiply_all<K: Kernel>(
    kernel: &mut K,
    worker: &Worker<'_>,
    w: Matrix<'_>,
    rows: usize,
    store: impl Fn(usize, usize, &[f32; GROUP]),
) {
    let mut sums = [[0.0; GROUP]; ROWS];
    let groups = |piece: Range<usize>| piece.clone().step_by(GROUP).map(move |i| i..piece.end.min(i + GROUP));
    let mut groups = worker.ranges(w.rows, PIECE).flat_map(groups).peekable();
    while let Some(group) = groups.next() {
        for start in (0..rows).step_by(ROWS) {
            let sums = &mut sums[..ROWS.min(rows - start)];
            sums.fill([0.0; GROUP]);
            for column in (0..w.columns).step_by(K::COLUMNS) {
                let columns = |from: usize| from..w.columns.min(from + K::COLUMNS);
                for (i, row) in group.clone().enumerate() {
                    kernel.unpack(i, w, row, columns(column));
                }
                // What is unpacked next comes from memory meanwhile, a share with each slice of the rows.
                let (next, from) = match column + K::COLUMNS < w.columns {
                    true => (Some(&group), column + K::COLUMNS),
                    false => (groups.peek(), 0),
                };
                let mut next = next.cloned().unwrap_or(0..0);
                let slice = sums.len().div_ceil(GROUP).next_multiple_of(6);
                let share = GROUP.div_ceil(sums.len().div_ceil(slice));
                for (i, sums) in sums.chunks_mut(slice).enumerate() {
                    for row in next.by_ref().take(share) {
                        w.prefetch(row, columns(from));
                    }
                    kernel.multiply(start + i * slice, columns(column), sums);
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                store(start + i, group.start, sums);
            }
        }
    }
}

/// In floats.
struct Exact<'a> {
    x: &'a [[f32; LANES]],
    columns: usize,
    tile: [[[f32; LANES]; FLOATS / LANES]; GROUP],
}

impl Kernel for Exact<'_> {
    const COLUMNS: usize = FLOATS;

    #[inline(always)]
    fn unpack(&mut self, i: usize, w: Matrix<'_>, row: usize, range: Range<usize>) {
        w.unpack(row, range.start, &mut self.tile[i][..range.len() / LANES]);
    }

    #[inline(always)]
    fn multiply(&self, first: usize, range: Range<usize>, sums: &mut [[f32; GROUP]]) {
        let row =
            |i: usize| &self.x[((first + i) * self.columns + range.start) / LANES..][..range.len() / LANES];
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

impl Exact<'_> {
    /// 3 rows are as many as registers hold sums for.
    #[inline(always)]
    fn add<const M: usize>(&self, rows: [&[[f32; LANES]]; M], sums: &mut [[f32; GROUP]]) {
        for (t, tile) in self.tile.as_chunks::<TILE>().0.iter().enumerate() {
            let products = dot(tile.each_ref().map(|t| &t[..]), rows);
            for (sums, products) in sums.iter_mut().zip(products) {
                sums.iter_mut().skip(t * TILE).zip(products).for_each(|(sum, product)| *sum += product);
            }
        }
    }
}

/// The products of M rows with a tile.
#[inline(always)]
fn dot<const M: usize>(tile: [&[[f32; LANES]]; TILE], rows: [&[[f32; LANES]]; M]) -> [[f32; TILE]; M] {
    let len = rows[0].len();
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

/// In whole numbers.
struct Rounded<'a> {
    x: &'a [[i16; WIDE]],
    /// Of each row of x, chunk by chunk.
    scales: &'a [f32],
    columns: usize,
    tile: [[[i16; WIDE]; CHUNK / WIDE]; GROUP],
    tile_scales: [f32; GROUP],
}

impl Kernel for Rounded<'_> {
    const COLUMNS: usize = CHUNK;

    #[inline(always)]
    fn unpack(&mut self, i: usize, w: Matrix<'_>, row: usize, range: Range<usize>) {
        let len = range.len() / WIDE;
        self.tile_scales[i] = w.round(row, range, &mut self.tile[i][..len]);
    }

    #[inline(always)]
    fn multiply(&self, first: usize, range: Range<usize>, sums: &mut [[f32; GROUP]]) {
        let row =
            |i: usize| &self.x[((first + i) * self.columns + range.start) / WIDE..][..range.len() / WIDE];
        let (chunk, chunks) = (range.start / CHUNK, self.columns.div_ceil(CHUNK));
        let scale = |i: usize| self.scales[(first + i) * chunks + chunk];
        let (pairs, last) = sums.as_chunks_mut::<2>();
        for (i, sums) in pairs.iter_mut().enumerate() {
            self.add([row(2 * i), row(2 * i + 1)], [scale(2 * i), scale(2 * i + 1)], sums);
        }
        let i = 2 * pairs.len();
        last.as_chunks_mut::<1>().0.iter_mut().for_each(|sums| self.add([row(i)], [scale(i)], sums));
    }
}

impl Rounded<'_> {
    #[inline(always)]
    fn add<const M: usize>(&self, rows: [&[[i16; WIDE]]; M], scales: [f32; M], sums: &mut [[f32; GROUP]; M]) {
        let tiles = self.tile.as_chunks::<TILE>().0.iter().zip(self.tile_scales.as_chunks::<TILE>().0);
        for (t, (tile, tile_scales)) in tiles.enumerate() {
            let products = whole_dot(tile.each_ref().map(|t| &t[..]), rows);
            for ((sums, products), scale) in sums.iter_mut().zip(products).zip(scales) {
                let sums = &mut sums.as_chunks_mut::<TILE>().0[t];
                for ((sum, product), tile_scale) in sums.iter_mut().zip(products).zip(tile_scales) {
                    *sum += product * (tile_scale * scale);
                }
            }
        }
    }
}

/// The products of M rows with a tile of whole numbers.
#[inline(always)]
fn whole_dot<const M: usize>(tile: [&[[i16; WIDE]]; TILE], rows: [&[[i16; WIDE]]; M]) -> [[f32; TILE]; M] {
    let len = rows[0].len();
    let (tile, rows) = (tile.map(|t| &t[..len]), rows.map(|r| &r[..len]));
    let mut sums = [[I32x8::zero(); TILE]; M];
    for i in 0..len {
        let x = rows.map(|row| I16x16::load(&row[i]));
        for (j, tile) in tile.iter().enumerate() {
            let w = I16x16::load(&tile[i]);
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[j] = sums[j].add_products(x, w);
            }
        }
    }
    sums.map(I32x8::sums)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::cpu::pool::Pool;
    use crate::cpu::rounded::round_row;
    use crate::cpu::testing::{Packed, noise, packed};
    use crate::gguf::TensorType;

    /// The products of every row of x with every row of w, by `threads`.
    fn products(w: &Packed, x: &[f32], threads: usize) -> Vec<f32> {
        let w = w.matrix();
        let (rows, chunks) = (x.len() / w.columns, w.columns.div_ceil(CHUNK));
        let (mut rounded, mut scales) = (vec![0; x.len()], vec![0.0; rows * chunks]);
        for (row, x) in x.chunks_exact(w.columns).enumerate() {
            let to = &mut rounded[row * w.columns..(row + 1) * w.columns];
            round_row(x, to, &mut scales[row * chunks..(row + 1) * chunks]);
        }
        let out = Mutex::new(vec![f32::NAN; rows * w.rows]);
        let x = Rows { exact: x, rounded: &rounded, scales: &scales };
        let work = |worker: &Worker<'_>| {
            matmul(worker, w, x, |row, first, y| {
                for (i, &y) in (first..w.rows).zip(y) {
                    out.lock().unwrap()[row * w.rows + i] = y;
                }
            });
            worker.wait()
        };
        Pool::new(threads).unwrap().run(&AtomicBool::new(false), &work).unwrap();
        out.into_inner().unwrap()
    }

    /// The plain definition, with the weights as they are unpacked.
    fn definition(w: &Packed, x: &[f32]) -> Vec<f64> {
        let w = w.matrix();
        let mut unpacked = vec![[0.0; LANES]; w.columns / LANES];
        let mut out = vec![0.0; x.len() / w.columns * w.rows];
        for row in 0..w.rows {
            w.unpack(row, 0, &mut unpacked);
            for (i, x) in x.chunks_exact(w.columns).enumerate() {
                let products = x.iter().zip(unpacked.as_flattened());
                out[i * w.rows + row] = products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            }
        }
        out
    }

    #[test]
    fn products_are_those_of_the_definition_for_any_shape() {
        // Sums of up to 3072 products of numbers below 1: a deviation of 0.58^2 sqrt(columns). Floats are exact to 7
        // digits, whole numbers to what rounding both by 1/8190 at most leaves: 0.24 / 4095 per product.
        for (ty, columns, per_product) in [
            (TensorType::F32, 8, 1e-7),
            (TensorType::F32, 520, 1e-7),
            (TensorType::F16, 1032, 1e-7),
            (TensorType::Q8_0, 32, 1e-4),
            (TensorType::Q8_0, 1024 + 96, 1e-4),
            (TensorType::Q4_0, 160, 1e-4),
            (TensorType::Q4K, 768, 2e-4),
            (TensorType::Q6K, 3072, 1e-4),
            (TensorType::Q5K, 1280, 1e-4),
        ] {
            for (rows, count) in [(1, 1), (8, 2), (19, 3), (33, 7), (10, 131)] {
                let w = packed(ty, &noise(rows * columns, 1), columns);
                let x = noise(count * columns, 2);
                let (own, exact) = (products(&w, &x, 2), definition(&w, &x));
                let tolerance = 4.0 * per_product * (columns as f64).sqrt();
                for (own, exact) in own.iter().zip(exact) {
                    let off = (f64::from(*own) - exact).abs();
                    assert!(off <= tolerance, "{} {columns} {rows} {count}: {own} {exact}", ty.name());
                }
            }
        }
    }

    #[test]
    fn the_largest_products_there_are_add_up() {
        // All numbers of a row as large as its largest: whole numbers of 4095 in every place.
        for ty in TensorType::all().filter(|ty| ty.is_quantized()) {
            for (columns, sign) in [(256, 1.0), (1024, -1.0), (3072, 1.0)] {
                let (w, x) = (packed(ty, &vec![1.0; 5 * columns], columns), vec![sign; 3 * columns]);
                let (own, exact) = (products(&w, &x, 1), definition(&w, &x));
                for (own, exact) in own.iter().zip(exact) {
                    let off = (f64::from(*own) / exact - 1.0).abs();
                    assert!(off < 2e-3, "{} {columns}: {own} {exact}", ty.name());
                }
            }
        }
    }

    #[test]
    fn a_product_depends_on_its_two_rows_alone() {
        for (ty, columns) in [(TensorType::F32, 1096), (TensorType::Q8_0, 1056), (TensorType::Q4K, 1280)] {
            let (w, x) = (packed(ty, &noise(21 * columns, 1), columns), noise(140 * columns, 2));
            let all = products(&w, &x, 1);
            assert!(all == products(&w, &x, 3), "{}: threads", ty.name());
            for (first, count) in [(0, 1), (5, 2), (100, 40)] {
                let some = products(&w, &x[first * columns..(first + count) * columns], 2);
                assert!(some == all[first * 21..(first + count) * 21], "{}: {count} rows", ty.name());
            }
        }
    }
}
