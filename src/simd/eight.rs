//! Eight single-precision numbers, and what is computed with them. Every implementation gives the same bits.

use half::f16;

/// Lanes of a vector.
pub(crate) const LANES: usize = 8;

/// A vector of [`LANES`] numbers. Functions on it are generic and are declared with [`wide`](super::wide), which chooses.
pub(crate) trait F32x8: Copy {
    fn splat(x: f32) -> Self;

    fn load(x: &[f32; LANES]) -> Self;

    /// Little-endian numbers.
    fn load_bytes(x: &[u8; 4 * LANES]) -> Self;

    fn store(self, to: &mut [f32; LANES]);

    /// In half precision, rounded to nearest, halves to even.
    fn halves(self) -> [f16; LANES];

    /// Little-endian f16 numbers.
    fn load_f16_bytes(x: &[u8; 2 * LANES]) -> Self;

    /// Little-endian bf16 numbers.
    fn load_bf16_bytes(x: &[u8; 2 * LANES]) -> Self;

    /// Signed bytes.
    fn load_i8(x: &[u8; LANES]) -> Self;

    /// Bytes.
    fn load_u8(x: &[u8; LANES]) -> Self;

    /// The low nibbles of bytes, and the high ones.
    fn load_nibbles(x: &[u8; LANES]) -> (Self, Self);

    fn add(self, b: Self) -> Self;

    fn sub(self, b: Self) -> Self;

    fn mul(self, b: Self) -> Self;

    fn div(self, b: Self) -> Self;

    /// self * b + c, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;

    fn abs(self) -> Self;

    /// The larger of each two; `b` where one is NaN.
    fn max(self, b: Self) -> Self;

    /// The smaller of each two; `b` where one is NaN.
    fn min(self, b: Self) -> Self;

    /// Each number that is above its `limit` or NaN, and 0 for the others.
    fn above(self, limit: Self) -> Self;

    /// `b` where `sign` is negative, `self` elsewhere.
    fn or_where_negative(self, b: Self, sign: Self) -> Self;

    /// Whether any two differ.
    fn differs(self, b: Self) -> bool;

    /// Rounds to the nearest integers, halves to even.
    fn nearest(self) -> Self;

    /// Integers that fit in an i8 as such.
    fn bytes(self) -> [i8; LANES];

    /// 2^n, with n the integer in the lowest bits of each number.
    fn power_of_two(self) -> Self;

    /// The largest of all lanes. (Any of them if one is NaN.)
    fn largest(self) -> f32;

    /// The sum of the lanes of each of four vectors.
    fn sums(x: [Self; 4]) -> [f32; 4];

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The sum of all lanes.
    #[inline(always)]
    fn sum(self) -> f32 {
        Self::sums([self, Self::zero(), Self::zero(), Self::zero()])[0]
    }

    /// e^x of numbers up to 0, within 2 units in the last place; 0 below -87.7. (Cephes' polynomial.)
    #[inline(always)]
    fn exp(self) -> Self {
        /// 1.5 * 2^23: adding it rounds to an integer, which is then in the lowest bits.
        const MAGIC: f32 = 12_582_912.0;
        const SERIES: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
        // A NaN stays one. From -88 down, the result is 0: all bits of its exponent are.
        let x = Self::splat(-88.0).max(self);
        let shifted = x.mul_add(Self::splat(std::f32::consts::LOG2_E), Self::splat(MAGIC));
        let n = shifted.sub(Self::splat(MAGIC));
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        let mut series = Self::splat(1.987_569_1e-4);
        for c in SERIES {
            series = series.mul_add(r, Self::splat(c));
        }
        let value = series.mul_add(r.mul(r), r).add(Self::splat(1.0));
        value.mul(shifted.power_of_two())
    }
}
