//! Products of a weight matrix with some rows.
//!
//! A few rows of the weights are unpacked into the first-level cache and multiplied with all rows of the pass there:
//! quantized ones as bytes (see `strip` and `rounded`), others as floats.

use std::ops::Range;

use super::activations::{BLOCK, Rounded};
use super::isa::{Isa, Machine, STRIP, Task};
use super::panel::{self, Kind, Strip};
use super::weights::Matrix;
use crate::forward::cpu::threads::pool::Worker;
use crate::simd::{F32x8, LANES, prefetch};

/// Weight rows whose products are stored together.
pub(crate) const GROUP: usize = 8;
/// Rows of the pass that are multiplied with weights before these are unpacked again.
const ROWS: usize = 128;

/// Some rows of a pass, all of the weights' columns long: as they are, and rounded if they are to be multiplied with
/// quantized weights.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) exact: &'a [f32],
    pub(crate) rounded: &'a [Rounded],
}

/// y = w x^T: `store` gets, for each row of `x`, the products with eight consecutive rows of `w`, as (row of x, first
/// row of w, products). Behind the last row of `w` they are no numbers that mean anything.
pub(crate) fn matmul(
    machine: Machine,
    worker: &Worker<'_>,
    w: Matrix<'_>,
    x: Rows<'_>,
    store: impl Fn(usize, usize, &[f32; GROUP]),
) {
    let rows = x.exact.len() / w.columns;
    // One call for all rows that were multiplied, so that kernels need not be compiled for each use.
    let store_all = |start: usize, group: Range<usize>, sums: &[[f32; GROUP]], per_row: usize| {
        for (i, sums) in sums.chunks_exact(per_row).enumerate() {
            for (first, sums) in group.clone().step_by(GROUP).zip(sums) {
                store(start + i, first, sums);
            }
        }
    };
    if w.ty.is_quantized() {
        machine.run(Whole { worker, w, x: x.rounded, rows, store: &store_all });
    } else {
        in_floats(worker, w, x.exact, rows, &store_all);
    }
}

/// Has the weights brought nearer that this thread multiplies first in a product that is to come.
pub(crate) fn prepare(worker: &Worker<'_>, w: Matrix<'_>) {
    let group = if w.ty.is_quantized() { STRIP } else { GROUP };
    if let Some(first) = worker.first_share(w.rows.div_ceil(group)) {
        prefetch(w.rows_bytes(first * group..w.rows.min((first + 1) * group)));
    }
}

/// What takes products: of all rows from one on with a group of weight rows, so many eights per row.
type Store<'a> = &'a dyn Fn(usize, Range<usize>, &[[f32; GROUP]], usize);

/// Columns after which there is a moment for something else.
const UNPACKED: usize = 32;

/// A way to multiply G rows of weights at a time.
trait Kernel<const G: usize> {
    /// Most columns at once.
    const COLUMNS: usize;
    /// Rows of the pass that are multiplied together.
    const TOGETHER: usize;

    /// Unpacks some columns of some rows of `w`, G at most. `meanwhile` is called for each [`UNPACKED`] columns.
    fn unpack(&mut self, w: Matrix<'_>, rows: Range<usize>, columns: Range<usize>, meanwhile: impl FnMut());

    /// Adds the products of the unpacked weights with the same columns of the rows of x from `first` on to `sums`.
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; G]]);
}

#[inline(always)]
fn multiply_all<const G: usize, K: Kernel<G>>(
    kernel: &mut K,
    worker: &Worker<'_>,
    w: Matrix<'_>,
    rows: usize,
    store: Store<'_>,
) {
    let mut sums = [[0.0; G]; ROWS];
    let groups = |share: Range<usize>| share.map(|i| i * G..w.rows.min((i + 1) * G));
    let mut groups = worker.shares(w.rows.div_ceil(G)).flat_map(groups).peekable();
    while let Some(group) = groups.next() {
        for start in (0..rows).step_by(ROWS) {
            let sums = &mut sums[..ROWS.min(rows - start)];
            sums.fill([0.0; G]);
            // The next weights come from memory meanwhile, in the order in which they lie there: some each time columns
            // have been unpacked, or with each slice of the pass's rows where these are many.
            let next = groups.peek().map_or(&[][..], |group| w.rows_bytes(group.clone()));
            let slice = sums.len().div_ceil(G).next_multiple_of(K::TOGETHER);
            let slices = sums.len().div_ceil(slice);
            let few = slices < 4;
            let times =
                if few { w.columns.div_ceil(UNPACKED) } else { w.columns.div_ceil(K::COLUMNS) * slices };
            let mut next = next.chunks(next.len().div_ceil(times).next_multiple_of(64).max(64));
            for column in (0..w.columns).step_by(K::COLUMNS) {
                let columns = column..w.columns.min(column + K::COLUMNS);
                kernel.unpack(w, group.clone(), columns.clone(), || {
                    if few {
                        next.next().map(prefetch);
                    }
                });
                for (i, sums) in sums.chunks_mut(slice).enumerate() {
                    if !few {
                        next.next().map(prefetch);
                    }
                    kernel.multiply(start + i * slice, columns.clone(), sums);
                }
            }
            store(start, group.clone(), sums.as_flattened().as_chunks().0, G / GROUP);
        }
    }
}

/// Columns of floats unpacked at once: of a group, half of the first-level cache.
const FLOATS: usize = 512;
/// Weight rows that are multiplied together in floats.
const TILE: usize = 4;

/// Products in floats.
fn in_floats(worker: &Worker<'_>, w: Matrix<'_>, x: &[f32], rows: usize, store: Store<'_>) {
    let tile = [[[0.0; LANES]; FLOATS / LANES]; GROUP];
    let mut kernel = InFloats { x: x.as_chunks().0, columns: w.columns, tile };
    multiply_all(&mut kernel, worker, w, rows, store);
}

struct InFloats<'a> {
    x: &'a [[f32; LANES]],
    columns: usize,
    tile: [[[f32; LANES]; FLOATS / LANES]; GROUP],
}

impl Kernel<GROUP> for InFloats<'_> {
    const COLUMNS: usize = FLOATS;
    /// As many as registers hold sums for.
    const TOGETHER: usize = 3;

    #[inline(always)]
    fn unpack(
        &mut self,
        w: Matrix<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        mut meanwhile: impl FnMut(),
    ) {
        for (row, to) in rows.zip(&mut self.tile) {
            w.unpack(row, columns.start, &mut to[..columns.len() / LANES]);
        }
        (0..columns.len()).step_by(UNPACKED).for_each(|_| meanwhile());
    }

    #[inline(always)]
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; GROUP]]) {
        let row = |i: usize| {
            &self.x[((first + i) * self.columns + columns.start) / LANES..][..columns.len() / LANES]
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

impl InFloats<'_> {
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
struct Whole<'a, 'w> {
    worker: &'a Worker<'w>,
    w: Matrix<'a>,
    x: &'a [Rounded],
    rows: usize,
    store: Store<'a>,
}

impl Task for Whole<'_, '_> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { worker, w, x, rows, store } = self;
        let mut kernel = InBytes { isa, x, columns: w.columns, kind: Kind::of(w.ty), strip: Strip::new() };
        multiply_all(&mut kernel, worker, w, rows, store);
    }
}

struct InBytes<'a, I> {
    isa: I,
    x: &'a [Rounded],
    columns: usize,
    kind: Kind,
    strip: Strip,
}

impl<I: Isa> Kernel<STRIP> for InBytes<'_, I> {
    const COLUMNS: usize = panel::CHUNK;
    const TOGETHER: usize = I::ROWS;

    #[inline(always)]
    fn unpack(&mut self, w: Matrix<'_>, rows: Range<usize>, columns: Range<usize>, meanwhile: impl FnMut()) {
        self.strip.unpack(self.isa, w, rows.start, columns, meanwhile);
    }

    #[inline(always)]
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; STRIP]]) {
        let row = |i: usize| {
            &self.x[((first + i) * self.columns + columns.start) / BLOCK..][..columns.len() / BLOCK]
        };
        let (strip, mut sums, mut i) = (&self.strip, sums, 0);
        // As many together as registers hold sums for, and fewer at the end.
        macro_rules! together {
            ($($m:literal)*) => {$(
                if I::ROWS >= $m {
                    let (some, rest) = sums.as_chunks_mut::<$m>();
                    for sums in some {
                        strip.add::<_, $m>(self.isa, self.kind, std::array::from_fn(|k| row(i + k)), sums);
                        i += $m;
                    }
                    sums = rest;
                }
            )*};
        }
        together!(8 4 2 1);
        debug_assert!(sums.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::forward::cpu::kernels::activations::round_row;
    use crate::forward::cpu::kernels::testing::{Packed, noise, packed};
    use crate::forward::cpu::threads::pool::Pool;
    use crate::gguf::TensorType;

    /// Rows as they are multiplied with `w`.
    fn rounded(w: &Packed, x: &[f32]) -> Vec<Rounded> {
        let mut rounded = vec![Rounded::default(); x.len() / BLOCK];
        if w.matrix().ty.is_quantized() {
            round_row(x, Kind::of(w.matrix().ty), &mut rounded);
        }
        rounded
    }

    /// The products of every row of x with every row of w, by `threads` and some instructions.
    fn products_by(machine: Machine, w: &Packed, x: &[f32], threads: usize) -> Vec<f32> {
        let rounded = rounded(w, x);
        let w = w.matrix();
        let rows = x.len() / w.columns;
        let out = Mutex::new(vec![f32::NAN; rows * w.rows]);
        let x = Rows { exact: x, rounded: &rounded };
        let work = |worker: &Worker<'_>| {
            matmul(machine, worker, w, x, |row, first, y| {
                for (i, &y) in (first..w.rows).zip(y) {
                    out.lock().unwrap()[row * w.rows + i] = y;
                }
            });
            worker.wait()
        };
        Pool::new(threads).unwrap().run(&AtomicBool::new(false), &work).unwrap();
        out.into_inner().unwrap()
    }

    fn products(w: &Packed, x: &[f32], threads: usize) -> Vec<f32> {
        products_by(Machine::detect(), w, x, threads)
    }

    /// The plain definition, with the weights as ggml unpacks them.
    fn definition(w: &Packed, x: &[f32]) -> Vec<f64> {
        let w = w.matrix();
        let mut unpacked = vec![0.0; w.columns];
        let mut out = vec![0.0; x.len() / w.columns * w.rows];
        for row in 0..w.rows {
            crate::ggml::dequantize(w.ty, w.rows_bytes(row..row + 1), &mut unpacked).unwrap();
            for (i, x) in x.chunks_exact(w.columns).enumerate() {
                let products = x.iter().zip(&unpacked);
                out[i * w.rows + row] = products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            }
        }
        out
    }

    #[test]
    fn products_are_those_of_the_definition_for_any_shape_and_instructions() {
        // Sums of up to 3072 products of numbers below 1, exact to 7 digits once the rows are rounded.
        const PER_PRODUCT: f64 = 2e-7;
        for (ty, columns) in [
            (TensorType::F32, 8),
            (TensorType::F32, 520),
            (TensorType::F16, 1032),
            (TensorType::Q8_0, 32),
            (TensorType::Q8_0, 1024 + 96),
            (TensorType::Q5_0, 32),
            (TensorType::Q5_0, 544),
            (TensorType::Q5_1, 96),
            (TensorType::Q4_0, 160),
            (TensorType::Q4_1, 1024 + 32),
            (TensorType::Iq4Nl, 544),
            (TensorType::Q6K, 3072),
            (TensorType::Q5K, 1280),
            (TensorType::Q4K, 768),
            (TensorType::Q3K, 256),
            (TensorType::Q3K, 1280),
            (TensorType::Q2K, 256),
            (TensorType::Q2K, 768),
        ] {
            for (rows, count) in [(1, 1), (8, 2), (19, 3), (33, 7), (16, 15), (10, 131)] {
                let w = packed(ty, &noise(rows * columns, 1), columns);
                let mut x = noise(count * columns, 2);
                let all: Vec<_> = Machine::all().map(|m| (m, products_by(m, &w, &x, 2))).collect();
                for (machine, own) in all.iter().filter(|(machine, _)| machine.is_fused()) {
                    assert!(*own == all[0].1, "{}: {machine:?}", ty.name());
                }
                if ty.is_quantized() {
                    let rounded = rounded(&w, &x);
                    for (x, rounded) in x.as_chunks_mut::<BLOCK>().0.iter_mut().zip(rounded) {
                        let values = rounded.values.as_flattened();
                        x.iter_mut().zip(values).for_each(|(x, &r)| *x = f32::from(r) * rounded.unit);
                    }
                }
                let tolerance = 4.0 * PER_PRODUCT * (columns as f64).sqrt();
                let exact = definition(&w, &x);
                for (own, exact) in all.iter().flat_map(|(_, own)| own.iter().zip(&exact)) {
                    let off = (f64::from(*own) - exact).abs();
                    assert!(off <= tolerance, "{} {columns} {rows} {count}: {own} {exact}", ty.name());
                }
            }
        }
    }

    #[test]
    fn the_largest_products_there_are_add_up() {
        // All numbers of a row as large as its largest: whole numbers of 127 in every place.
        for ty in TensorType::all().filter(|ty| ty.is_quantized()) {
            for (columns, sign) in [(256, 1.0), (1024, -1.0), (3072, 1.0)] {
                let (w, x) = (packed(ty, &vec![1.0; 5 * columns], columns), vec![sign; 3 * columns]);
                let (own, exact) = (products(&w, &x, 1), definition(&w, &x));
                for (own, exact) in own.iter().zip(exact) {
                    let off = (f64::from(*own) / exact - 1.0).abs();
                    assert!(off < 1e-5, "{} {columns}: {own} {exact}", ty.name());
                }
            }
        }
    }

    #[test]
    fn a_product_depends_on_its_two_rows_alone() {
        for ty in TensorType::all() {
            // The end of a chunk, and a piece of the next one.
            let columns = 1024 + ty.block_len().max(8);
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
