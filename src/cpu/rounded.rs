//! Numbers rounded to whole ones of 13 bits with a common scale, for products in whole numbers: twice as many at
//! once as in floats.
//!
//! A quantized weight has 2 to 8 bits and a scale that it shares with 15 to 255 others. Here all weights of a chunk
//! of a row get one scale, and so do the activations they are multiplied with. What rounding adds is a 16384th of
//! the chunk's largest number at most, a 32nd of what the activations lose where they are rounded to 8 bits
//! (as ggml does): on models/fairy-q8_0.gguf logits move by 0.004 at most, of a deviation of 3. So it has
//! no switch; f32, f16 and bf16 weights are multiplied in floats.

use std::ops::Range;

use super::simd::{F32x8, I16x16, LANES};
use super::unpack::{Matrix, half, q4_k_factors};
use crate::gguf::TensorType;

/// Columns that share a scale.
pub(super) const CHUNK: usize = 1024;
/// The largest whole number: a lane's share of a chunk's products, 128 of up to 4095 * 4096, is below 2^31.
const MOST: f32 = 4095.0;

/// Whole numbers of a vector.
pub(super) const WIDE: usize = 2 * LANES;

/// Rounds a row, chunk by chunk.
pub(super) fn round_row(x: &[f32], to: &mut [i16], scales: &mut [f32]) {
    for ((x, to), scale) in x.chunks(CHUNK).zip(to.chunks_mut(CHUNK)).zip(scales) {
        *scale = round(x.as_chunks().0, to.as_chunks_mut().0, MOST);
    }
}

/// Rounds numbers to -most..=most times the scale that is returned, which is not a number if one of them is none.
#[inline(always)]
fn round(x: &[[f32; LANES]], to: &mut [[i16; WIDE]], most: f32) -> f32 {
    let (mut peak, mut sum) = (F32x8::zero(), F32x8::zero());
    for x in x {
        let x = F32x8::load(x).abs();
        (peak, sum) = (peak.max(x), sum.add(x));
    }
    let peak = peak.largest();
    let factor = F32x8::splat(if peak > f32::MIN_POSITIVE * MOST { most / peak } else { 0.0 });
    for ([low, high], to) in x.as_chunks().0.iter().zip(to) {
        I16x16::round(F32x8::load(low).mul(factor), F32x8::load(high).mul(factor)).store(to);
    }
    if sum.sum().is_finite() { peak / most } else { f32::NAN }
}

impl Matrix<'_> {
    /// Rounds columns of a row, at most a chunk of them, and returns their scale. `range` begins at a chunk's
    /// beginning.
    pub(super) fn round(&self, row: usize, range: Range<usize>, to: &mut [[i16; WIDE]]) -> f32 {
        let bytes = self.columns_bytes(row, range.clone());
        match self.ty {
            TensorType::Q8_0 => q8_0(bytes, to),
            TensorType::Q4_0 => q4_0(bytes, to),
            TensorType::Q4K => q4_k(bytes, to),
            TensorType::Q6K => q6_k(bytes, to),
            _ => {
                let mut floats = [[0.0; LANES]; CHUNK / LANES];
                let floats = &mut floats[..range.len() / LANES];
                self.unpack(row, range.start, floats);
                round(floats, to, MOST)
            }
        }
    }
}

/// The scales of a chunk's parts as factors of 2^15 for [`I16x16::scale`], and what they are to be multiplied with.
#[inline(always)]
fn factors<const N: usize>(scales: impl Iterator<Item = f32>) -> ([i16; N], f32) {
    let (mut all, mut rounded) = ([0.0; N], [0; N]);
    all.iter_mut().zip(scales).for_each(|(to, scale)| *to = scale);
    let unit = round(all.as_chunks().0, rounded.as_chunks_mut().0, 32767.0);
    (rounded, unit)
}

/// See [`Matrix::unpack`] for the blocks. -128 becomes -4096 at most.
fn q8_0(bytes: &[u8], to: &mut [[i16; WIDE]]) -> f32 {
    let blocks = bytes.as_chunks::<34>().0;
    let (factors, unit) = factors::<{ CHUNK / 32 }>(blocks.iter().map(|block| half(block)));
    for ((to, block), &factor) in to.as_chunks_mut::<2>().0.iter_mut().zip(blocks).zip(&factors) {
        let factor = I16x16::splat(factor);
        for (to, from) in to.iter_mut().zip(block[2..].as_chunks().0) {
            I16x16::from_i8(from).shift_left::<5>().scale(factor).store(to);
        }
    }
    unit * (1 << 10) as f32
}

fn q4_0(bytes: &[u8], to: &mut [[i16; WIDE]]) -> f32 {
    let blocks = bytes.as_chunks::<18>().0;
    let (factors, unit) = factors::<{ CHUNK / 32 }>(blocks.iter().map(|block| half(block)));
    let (fifteen, eight) = (I16x16::splat(15), I16x16::splat(-8));
    for (([low, high], block), &factor) in to.as_chunks_mut().0.iter_mut().zip(blocks).zip(&factors) {
        let factor = I16x16::splat(factor);
        for from in block[2..].as_chunks().0 {
            let both = I16x16::from_u8(from);
            both.and(fifteen).add(eight).shift_left::<9>().scale(factor).store(low);
            both.shift_right::<4>().add(eight).shift_left::<9>().scale(factor).store(high);
        }
    }
    unit * (1 << 6) as f32
}

fn q4_k(bytes: &[u8], to: &mut [[i16; WIDE]]) -> f32 {
    /// Two roundings may go beyond.
    const MOST: f32 = self::MOST - 2.0;
    let blocks = bytes.as_chunks::<144>().0;
    let mut parts = [(F32x8::zero(), F32x8::zero()); CHUNK / 256];
    let (mut peak, mut sum) = (F32x8::zero(), F32x8::zero());
    for (part, block) in parts.iter_mut().zip(blocks) {
        let (scale, least) = q4_k_factors(block);
        let most = scale.mul_add(F32x8::splat(15.0), least).abs();
        peak = peak.max(least.abs()).max(most);
        sum = sum.add(least.abs()).add(most);
        *part = (scale, least);
    }
    let unit = peak.largest() / MOST;
    let inverse = F32x8::splat(if unit > f32::MIN_POSITIVE { 1.0 / unit } else { 0.0 });
    let fifteen = I16x16::splat(15);
    for ((to, block), (scale, least)) in to.as_chunks_mut::<16>().0.iter_mut().zip(blocks).zip(parts) {
        let mut factors = [0; WIDE];
        let scale = scale.mul(inverse).mul(F32x8::splat(16.0));
        I16x16::round(scale, least.mul(inverse)).store(&mut factors);
        let factor = |part: usize| (I16x16::splat(factors[part]), I16x16::splat(factors[LANES + part]));
        let pairs = to.as_chunks_mut::<4>().0.iter_mut().zip(block[16..].as_chunks::<32>().0);
        for (pair, (to, from)) in pairs.enumerate() {
            let (low, high) = (factor(2 * pair), factor(2 * pair + 1));
            for (i, from) in from.as_chunks().0.iter().enumerate() {
                let both = I16x16::from_u8(from);
                both.and(fifteen).shift_left::<11>().scale(low.0).add(low.1).store(&mut to[i]);
                both.shift_right::<4>().shift_left::<11>().scale(high.0).add(high.1).store(&mut to[2 + i]);
            }
        }
    }
    if sum.sum().is_finite() { unit } else { f32::NAN }
}

/// Blocks of 256 numbers: 128 bytes of lower halves, 64 bytes of upper quarters, 16 scales of 16 numbers each, and
/// one for all.
fn q6_k(bytes: &[u8], to: &mut [[i16; WIDE]]) -> f32 {
    let blocks = bytes.as_chunks::<210>().0;
    let scales = blocks.iter().flat_map(|block| {
        let all = half(&block[208..]);
        block[192..208].iter().map(move |&scale| all * f32::from(scale as i8))
    });
    let (factors, unit) = factors::<{ CHUNK / 16 }>(scales);
    let (fifteen, three, half) = (I16x16::splat(15), I16x16::splat(3), I16x16::splat(-32));
    let blocks = to.as_chunks_mut::<16>().0.iter_mut().zip(blocks).zip(factors.as_chunks::<16>().0);
    for ((to, block), factors) in blocks {
        let (lower, upper) = block[..192].split_at(128);
        let (lower, upper) = (lower.as_chunks::<16>().0, upper.as_chunks::<16>().0);
        for i in 0..4 {
            // The first 64 lower bytes and 32 upper ones make the first 128 numbers; i counts groups of 16 of the
            // upper ones.
            let (first, i) = (i / 2, i % 2);
            let upper = I16x16::from_u8(&upper[2 * first + i]);
            let quarters = [
                upper.and(three),
                upper.shift_right::<2>().and(three),
                upper.shift_right::<4>().and(three),
                upper.shift_right::<6>(),
            ];
            let lower = [0, 2].map(|k| I16x16::from_u8(&lower[4 * first + k + i]));
            let [a, b] = lower.map(|lower| lower.and(fifteen));
            let [c, d] = lower.map(|lower| lower.shift_right::<4>());
            for (k, (lower, upper)) in [a, b, c, d].into_iter().zip(quarters).enumerate() {
                let place = 8 * first + 2 * k + i;
                let number = lower.add(upper.shift_left::<4>()).add(half);
                number.shift_left::<7>().scale(I16x16::splat(factors[place])).store(&mut to[place]);
            }
        }
    }
    unit * (1 << 8) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{noise, packed};

    /// Rounding is to the nearest; a factor that was rounded before adds its own half.
    const TWO_ROUNDINGS: f32 = 1.6;

    #[test]
    fn weights_are_rounded_to_the_nearest_or_next() {
        for ty in TensorType::all().filter(|ty| ty.is_quantized()) {
            for blocks in [1, 3, 4, 5, 8] {
                let columns = 256 * blocks;
                // Parts of very different sizes, and one of nothing.
                let size = |i: usize| [1.0, 0.01, 3.0, 0.0, 0.2][i / 64 % 5];
                let values: Vec<f32> = (0..).zip(noise(2 * columns, 7)).map(|(i, x)| size(i) * x).collect();
                let packed = packed(ty, &values, columns);
                let matrix = packed.matrix();
                let (mut exact, mut rounded) = ([[0.0; LANES]; CHUNK / LANES], [[0; WIDE]; CHUNK / WIDE]);
                for (row, first) in (0..2).flat_map(|row| (0..columns).step_by(CHUNK).map(move |c| (row, c)))
                {
                    let range = first..columns.min(first + CHUNK);
                    let exact = &mut exact[..range.len() / LANES];
                    let rounded = &mut rounded[..range.len() / WIDE];
                    matrix.unpack(row, first, exact);
                    let scale = matrix.round(row, range, rounded);
                    for (&x, &r) in exact.as_flattened().iter().zip(rounded.as_flattened()) {
                        assert!((-4096..=4096).contains(&r), "{} {r}", ty.name());
                        let off = (x - f32::from(r) * scale).abs();
                        assert!(off <= TWO_ROUNDINGS * scale, "{}: {x} is {r} times {scale}", ty.name());
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_rounded_to_the_nearest_in_each_chunk() {
        for len in [WIDE, 5 * WIDE, CHUNK, CHUNK + WIDE, 3 * CHUNK] {
            let (x, chunks) = (noise(len, 3), len.div_ceil(CHUNK));
            let (mut rounded, mut scales) = (vec![0; len], vec![0.0; chunks]);
            round_row(&x, &mut rounded, &mut scales);
            for (i, (&x, &r)) in x.iter().zip(&rounded).enumerate() {
                let scale = scales[i / CHUNK];
                assert!((x - f32::from(r) * scale).abs() <= 0.501 * scale, "{len}, {i}: {x} {r} {scale}");
            }
        }
    }

    #[test]
    fn what_is_no_number_shows_in_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 31] {
                let (mut x, mut scales) = ([1.0; 32], [0.0]);
                x[at] = bad;
                round_row(&x, &mut [0; 32], &mut scales);
                assert!(scales[0].is_nan(), "{bad} at {at}");
            }
        }
        let mut scales = [1.0];
        round_row(&[0.0; 32], &mut [1; 32], &mut scales);
        assert_eq!(scales, [0.0]);
        let mut packed = packed(TensorType::Q8_0, &noise(64, 1), 64);
        packed.bytes[34..36].copy_from_slice(&half::f16::NAN.to_le_bytes());
        assert!(packed.matrix().round(0, 0..64, &mut [[0; WIDE]; 4]).is_nan());
    }
}
