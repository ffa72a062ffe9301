//! Products of a weight matrix with some rows of activations.
//!
//! A few rows of the weights are unpacked into the L1 cache and multiplied with all rows of activations there: quantized
//! ones as bytes, with activations that are quantized, too, and others in single precision.

use std::ops::Range;

use super::activations::ActivationBlock;
use super::byte_kernel::{ByteProduct, rows_of_piece};
use super::float_kernel;
use super::isa::Platform;
use super::weights::Matrix;
use crate::error::Result;
use crate::forward::cpu::threads::Grain;
use crate::forward::cpu::threads::crew::Crew;
use crate::simd::prefetch_to_l2;

/// Some rows of activations [columns, rows]: in single precision, and quantized if they are to be multiplied with
/// quantized weights.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a> {
    pub(crate) floats: &'a [f32],
    pub(crate) blocks: &'a [ActivationBlock],
}

/// y = w x^T for some rows of activations. `input` gives these to each thread that takes part. `store` is called with the
/// products of each row of `x` with some consecutive rows of `w`: (row of x, first row of w, products). These are 8, 16 or 32,
/// as many as are multiplied together, and at the end of `w` those that are left.
///
/// # Errors
/// Those of [`Crew::share`].
pub(crate) fn matmul<'x>(
    platform: Platform,
    crew: &Crew<'_>,
    w: Matrix<'_>,
    rows: usize,
    input: impl Fn(usize) -> Activations<'x> + Sync,
    store: impl Fn(usize, usize, &[f32]) + Sync,
) -> Result<()> {
    // One call for all rows that were multiplied together, so that the kernels are not compiled for each `store`.
    let store_all = |start: usize, group: Range<usize>, sums: &[f32], per_row: usize| {
        for (i, sums) in sums.chunks_exact(per_row).enumerate() {
            store(start + i, group.start, &sums[..group.len()]);
        }
    };
    let group = if w.ty.is_quantized() { rows_of_piece(rows) } else { float_kernel::ROWS };
    crew.share(w.rows.div_ceil(group), Grain::Guided, nanoseconds(w, rows), &|pieces| {
        // The first weights come while the input is made.
        if let Some(first) = pieces.peek() {
            prefetch_to_l2(w.rows_bytes(first.start * group..w.rows.min((first.start + 1) * group)));
        }
        let x = input(pieces.thread());
        if w.ty.is_quantized() {
            platform.run(ByteProduct { pieces, w, x: x.blocks, rows, store: &store_all });
        } else {
            float_kernel::multiply(pieces, w, x.floats, rows, &store_all);
        }
        Ok(())
    })
}

/// About what a product takes one thread: 16 bytes of weights in a nanosecond, or 64 products of bytes, or 16 of floats.
fn nanoseconds(w: Matrix<'_>, rows: usize) -> u64 {
    let (bytes, products) =
        (w.rows_bytes(0..w.rows).len(), w.rows.saturating_mul(w.columns).saturating_mul(rows));
    (bytes / 16 + products / if w.ty.is_quantized() { 64 } else { 16 }) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::forward::cpu::kernels::activations::{BLOCK, quantize_row};
    use crate::forward::cpu::kernels::testing::{Packed, noise, packed};
    use crate::forward::cpu::kernels::weights::ByteFormat;
    use crate::forward::cpu::threads::pool::{Pool, PoolOptions};
    use crate::gguf::TensorType;

    /// The quantized activations that are multiplied with `w`.
    fn quantized(w: &Packed, x: &[f32]) -> Vec<ActivationBlock> {
        let mut blocks = vec![ActivationBlock::default(); x.len() / BLOCK];
        if w.matrix().ty.is_quantized() {
            quantize_row(x, ByteFormat::of(w.matrix().ty), &mut blocks);
        }
        blocks
    }

    /// The products of every row of x with every row of w, with one instruction set.
    fn products_by(platform: Platform, w: &Packed, x: &[f32], threads: usize) -> Vec<f32> {
        let blocks = quantized(w, x);
        let w = w.matrix();
        let rows = x.len() / w.columns;
        let out = Mutex::new(vec![f32::NAN; rows * w.rows]);
        let x = Activations { floats: x, blocks: &blocks };
        let pool = Pool::new(&PoolOptions::new(threads)).unwrap();
        let store = |row: usize, first: usize, y: &[f32]| {
            for (i, &y) in (first..w.rows).zip(y) {
                out.lock().unwrap()[row * w.rows + i] = y;
            }
        };
        Crew::lead_all(&pool, threads, |crew| matmul(platform, crew, w, rows, |_| x, store)).unwrap();
        out.into_inner().unwrap()
    }

    fn products(w: &Packed, x: &[f32], threads: usize) -> Vec<f32> {
        products_by(Platform::detect(), w, x, threads)
    }

    /// The definition in f64, with the weights as ggml dequantizes them.
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
    fn matmul_matches_its_definition_for_every_shape_and_instruction_set() {
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
            // Every number of rows that is multiplied at once, and what is left when more are.
            let shapes = [(1, 1), (8, 2), (19, 3), (33, 7), (16, 15), (10, 131)];
            for (rows, count) in shapes.into_iter().chain([4, 5, 6, 8, 9, 10, 11].map(|count| (19, count))) {
                let w = packed(ty, &noise(rows * columns, 1), columns);
                let mut x = noise(count * columns, 2);
                let mut all: Vec<_> = Platform::all().map(|m| (m, products_by(m, &w, &x, 2))).collect();
                if ty.is_quantized() {
                    let panels = w.in_panels();
                    all.extend(Platform::all().map(|m| (m, products_by(m, &panels, &x, 2))));
                }
                for (platform, own) in &all {
                    assert!(*own == all[0].1, "{}: {platform:?}", ty.name());
                }
                if ty.is_quantized() {
                    let blocks = quantized(&w, &x);
                    for (x, block) in x.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
                        let values = block.values.as_flattened();
                        x.iter_mut().zip(values).for_each(|(x, &r)| *x = f32::from(r) * block.scale);
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
    fn matmul_of_the_largest_values_does_not_overflow() {
        // All values of a row as large as its largest: each rounds to 127.
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
    fn each_product_depends_only_on_its_two_rows() {
        for ty in TensorType::all() {
            // A whole chunk, and a part of the next one.
            let columns = 1024 + ty.block_len().max(8);
            let (w, x) = (packed(ty, &noise(21 * columns, 1), columns), noise(140 * columns, 2));
            let all = products(&w, &x, 1);
            let panels = ty.is_quantized().then(|| w.in_panels());
            if let Some(panels) = &panels {
                assert!(all == products(panels, &x, 2), "{}: panels", ty.name());
            }
            assert!(all == products(&w, &x, 3), "{}: threads", ty.name());
            for (first, count) in [(0, 1), (5, 2), (7, 5), (30, 8), (90, 10), (50, 11), (100, 40)] {
                let (x, all) = (&x[first * columns..][..count * columns], &all[first * 21..][..count * 21]);
                for w in panels.iter().chain([&w]) {
                    assert!(products(w, x, 2) == all, "{}: {count} rows", ty.name());
                }
            }
        }
    }
}
