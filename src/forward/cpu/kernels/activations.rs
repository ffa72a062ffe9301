//! Rows of activations as bytes, for products with quantized weights.
//!
//! A quantized weight has 2 to 8 bits and a scale that it shares with 15 to 255 others. The activations that it is
//! multiplied with are rounded to 8 bits, with a scale for each 32 of them, as ggml does: a number moves by a 254th of
//! the largest of these at most. (`tests/rounding.rs` says what that does to predictions.)

use super::panel::Kind;
use crate::simd::{F32x8, LANES};

/// Columns that are rounded together.
pub(crate) const BLOCK: usize = 32;

/// 32 numbers of a row, each `values` times `unit`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Rounded {
    pub(crate) values: [[i8; 4]; BLOCK / 4],
    /// Not a number if one of the 32 was none, or infinite.
    pub(crate) unit: f32,
    /// What is due where weights have a least value: the sum of all 32 numbers, rounded, or of each half of them where
    /// weights have scales of 16.
    pub(crate) totals: [f32; 2],
    /// What is due where weights are stored with a constant added: as many sums of `values`, times that, less than 0.
    pub(crate) starts: [i32; 2],
}

/// Rounds a row for a product with weights of this kind.
pub(crate) fn round_row(x: &[f32], kind: Kind, to: &mut [Rounded]) {
    for (x, to) in x.as_chunks::<LANES>().0.as_chunks().0.iter().zip(to) {
        *to = round(x, kind);
    }
}

/// Rounds a block.
#[inline(always)]
fn round(x: &[[f32; LANES]; BLOCK / LANES], kind: Kind) -> Rounded {
    /// The largest whole number.
    const MOST: f32 = 127.0;
    let x = x.each_ref().map(F32x8::load);
    let zero = F32x8::zero();
    let peak = x.iter().fold(zero, |peak, x| x.abs().max(peak)).largest();
    let sum = x.iter().fold(zero, |sum, x| sum.add(x.abs())).sum();
    // Below this, the inverse would be infinite.
    let inverse = if peak > f32::MIN_POSITIVE * MOST { MOST / peak } else { 0.0 };
    let mut to = Rounded { unit: if sum.is_finite() { peak / MOST } else { f32::NAN }, ..Rounded::default() };
    let whole = x.map(|x| x.mul(F32x8::splat(inverse)).nearest());
    for (whole, to) in whole.iter().zip(to.values.as_chunks_mut::<2>().0) {
        to.as_flattened_mut().copy_from_slice(&whole.bytes());
    }
    let [a, b, c, d] = F32x8::sums(whole);
    let (first, second) = ((a + b) as i32, (c + d) as i32);
    let sums = if kind.sixteen() { [first, second] } else { [first + second, 0] };
    to.totals = sums.map(|sum| to.unit * sum as f32);
    to.starts = sums.map(|sum| -kind.offset() * sum);
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::testing::noise;

    #[test]
    fn rows_are_rounded_to_the_nearest_in_each_block() {
        for (kind, halves, offset) in [
            (Kind::Signed, false, 128),
            (Kind::Least15, false, 0),
            (Kind::Least31, false, 0),
            (Kind::Sixteen63, true, 32),
            (Kind::Sixteen7, true, 4),
            (Kind::SixteenLeast3, true, 0),
        ] {
            for blocks in [1, 3, 24] {
                let x = noise(blocks * BLOCK, 3);
                let mut rounded = vec![Rounded::default(); blocks];
                round_row(&x, kind, &mut rounded);
                for (x, rounded) in x.chunks_exact(BLOCK).zip(&rounded) {
                    let values = rounded.values.as_flattened();
                    for (&x, &r) in x.iter().zip(values) {
                        assert!((x - f32::from(r) * rounded.unit).abs() <= 0.501 * rounded.unit, "{x} {r}");
                    }
                    assert_eq!(values.iter().map(|r| r.unsigned_abs()).max(), Some(127));
                    let sum = |part: &[i8]| part.iter().map(|&x| i32::from(x)).sum::<i32>();
                    let (first, second) = values.split_at(BLOCK / 2);
                    let sums = if halves { [sum(first), sum(second)] } else { [sum(values), 0] };
                    assert_eq!(rounded.starts, sums.map(|sum| -offset * sum));
                    assert_eq!(rounded.totals, sums.map(|sum| rounded.unit * sum as f32));
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_shows_in_the_unit() {
        let round = |x: &[f32; BLOCK]| {
            let mut to = [Rounded::default()];
            round_row(x, Kind::Signed, &mut to);
            to[0]
        };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 31] {
                let mut x = [1.0; BLOCK];
                x[at] = bad;
                assert!(round(&x).unit.is_nan(), "{bad} at {at}");
            }
        }
        let nothing = round(&[0.0; BLOCK]);
        assert_eq!((nothing.unit, nothing.totals, nothing.values), (0.0, [0.0; 2], Default::default()));
    }
}
