//! Activations quantized to 8 bits, for products with quantized weights.
//!
//! A quantized weight has 2 to 8 bits and a scale that it shares with 15 to 255 others. The activations that it is
//! multiplied with are quantized to 8 bits with a scale for each 32 of them, as ggml does (q8_0). The error of each is at
//! most a 254th of the largest of its 32. (`tests/integration/rounding.rs` measures what that does to predictions.)

use super::weights::ByteFormat;
use crate::simd::{F32x8, LANES, wide};

/// Columns of a block.
pub(crate) const BLOCK: usize = 32;

/// 32 activations of a row, each `values` times `scale`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct ActivationBlock {
    pub(crate) values: [[i8; 4]; BLOCK / 4],
    /// NaN if one of the 32 is NaN or infinite.
    pub(crate) scale: f32,
    /// What the weights' min is multiplied with: `scale` times the sum of `values`, or of each half of them if the weights
    /// have groups of 16.
    pub(crate) sums: [f32; 2],
    /// What the offset of the weights' bytes contributes, to be added: -offset times the sum of `values`, or of each half
    /// of them.
    pub(crate) zero_points: [i32; 2],
}

wide! {
    /// Quantizes a row for a product with weights of this format.
    pub(crate) fn quantize_row<V>(x: &[f32], format: ByteFormat, to: &mut [ActivationBlock]) {
        for (x, to) in x.as_chunks::<LANES>().0.as_chunks().0.iter().zip(to) {
            *to = quantize::<V>(x, format);
        }
    }
}

/// The largest value.
pub(super) const MAX: f32 = 127.0;

/// Numbers rounded to whole ones from -[`MAX`] to it, as ggml's q8_0, and what these are to be multiplied with: NaN if one of them is NaN
/// or infinite.
#[inline(always)]
pub(super) fn round<V: F32x8>(x: &[[f32; LANES]; BLOCK / LANES]) -> (f32, [V; BLOCK / LANES]) {
    let (mut max, mut sum) = (V::zero(), V::zero());
    for x in x {
        let x = V::load(x).abs();
        (max, sum) = (x.max(max), sum.add(x));
    }
    let (max, sum) = (max.largest(), sum.sum());
    // Below this, the inverse would be infinite.
    let inverse = if max > f32::MIN_POSITIVE * MAX { MAX / max } else { 0.0 };
    let mut values = [V::zero(); BLOCK / LANES];
    for i in 0..BLOCK / LANES {
        values[i] = V::load(&x[i]).mul(V::splat(inverse)).nearest();
    }
    (if sum.is_finite() { max / MAX } else { f32::NAN }, values)
}

#[inline(always)]
fn quantize<V: F32x8>(x: &[[f32; LANES]; BLOCK / LANES], format: ByteFormat) -> ActivationBlock {
    let (scale, values) = round::<V>(x);
    let mut to = ActivationBlock { scale, ..ActivationBlock::default() };
    for i in 0..BLOCK / LANES {
        let [a, b, c, d, e, f, g, h] = values[i].bytes();
        (to.values[2 * i], to.values[2 * i + 1]) = ([a, b, c, d], [e, f, g, h]);
    }
    let [a, b, c, d] = V::sums(values);
    let (first, second) = ((a + b) as i32, (c + d) as i32);
    let sums = if format.group == BLOCK / 2 { [first, second] } else { [first + second, 0] };
    to.sums = [scale * sums[0] as f32, scale * sums[1] as f32];
    to.zero_points = [-format.offset * sums[0], -format.offset * sums[1]];
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::testing::noise;
    use crate::gguf::TensorType;

    #[test]
    fn activations_round_to_nearest_in_each_block() {
        for (ty, halves, offset) in [
            (TensorType::Q8_0, false, 128),
            (TensorType::Q4K, false, 0),
            (TensorType::Q5K, false, 0),
            (TensorType::Q6K, true, 32),
            (TensorType::Q3K, true, 4),
            (TensorType::Q2K, true, 0),
        ] {
            for count in [1, 3, 24] {
                let x = noise(count * BLOCK, 3);
                let mut blocks = vec![ActivationBlock::default(); count];
                quantize_row(&x, ByteFormat::of(ty), &mut blocks);
                for (x, block) in x.chunks_exact(BLOCK).zip(&blocks) {
                    let values = block.values.as_flattened();
                    for (&x, &r) in x.iter().zip(values) {
                        assert!((x - f32::from(r) * block.scale).abs() <= 0.501 * block.scale, "{x} {r}");
                    }
                    assert_eq!(values.iter().map(|r| r.unsigned_abs()).max(), Some(127));
                    let sum = |part: &[i8]| part.iter().map(|&x| i32::from(x)).sum::<i32>();
                    let (first, second) = values.split_at(BLOCK / 2);
                    let sums = if halves { [sum(first), sum(second)] } else { [sum(values), 0] };
                    assert_eq!(block.zero_points, sums.map(|sum| -offset * sum));
                    assert_eq!(block.sums, sums.map(|sum| block.scale * sum as f32));
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_make_the_scale_nan() {
        let quantize = |x: &[f32; BLOCK]| {
            let mut to = [ActivationBlock::default()];
            quantize_row(x, ByteFormat::of(TensorType::Q8_0), &mut to);
            to[0]
        };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 31] {
                let mut x = [1.0; BLOCK];
                x[at] = bad;
                assert!(quantize(&x).scale.is_nan(), "{bad} at {at}");
            }
        }
        let zeros = quantize(&[0.0; BLOCK]);
        assert_eq!((zeros.scale, zeros.sums, zeros.values), (0.0, [0.0; 2], Default::default()));
    }
}
