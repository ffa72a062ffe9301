//! Arrays, which the compiler vectorizes.

use half::{bf16, f16};

use super::{F32x8, mul_add};

/// Eight single-precision numbers.
#[derive(Clone, Copy)]
pub(crate) struct Eight([f32; 8]);

/// An array of eight by an expression of the index.
macro_rules! eight {
    ($zero:expr, |$i:ident| $value:expr) => {{
        let mut to = [$zero; 8];
        for $i in 0..8 {
            to[$i] = $value;
        }
        to
    }};
}

impl F32x8 for Eight {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn load_bytes(x: &[u8; 32]) -> Self {
        let (numbers, _) = x.as_chunks::<4>();
        Self(eight!(0.0, |i| f32::from_le_bytes(numbers[i])))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 8]) {
        *to = self.0;
    }

    #[inline(always)]
    fn halves(self) -> [f16; 8] {
        eight!(f16::ZERO, |i| f16::from_f32(self.0[i]))
    }

    #[inline(always)]
    fn load_f16_bytes(x: &[u8; 16]) -> Self {
        let (numbers, _) = x.as_chunks::<2>();
        Self(eight!(0.0, |i| f16::from_le_bytes(numbers[i]).to_f32()))
    }

    #[inline(always)]
    fn load_bf16_bytes(x: &[u8; 16]) -> Self {
        let (numbers, _) = x.as_chunks::<2>();
        Self(eight!(0.0, |i| bf16::from_le_bytes(numbers[i]).to_f32()))
    }

    #[inline(always)]
    fn load_i8(x: &[u8; 8]) -> Self {
        Self(eight!(0.0, |i| f32::from(x[i] as i8)))
    }

    #[inline(always)]
    fn load_u8(x: &[u8; 8]) -> Self {
        Self(eight!(0.0, |i| f32::from(x[i])))
    }

    #[inline(always)]
    fn load_nibbles(x: &[u8; 8]) -> (Self, Self) {
        (Self(eight!(0.0, |i| f32::from(x[i] & 15))), Self(eight!(0.0, |i| f32::from(x[i] >> 4))))
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(eight!(0.0, |i| self.0[i] + b.0[i]))
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Self(eight!(0.0, |i| self.0[i] * b.0[i]))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(eight!(0.0, |i| mul_add(self.0[i], b.0[i], c.0[i])))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let mut largest = f32::NEG_INFINITY;
        for x in self.0 {
            largest = if x > largest { x } else { largest };
        }
        largest
    }

    #[inline(always)]
    fn sums(x: [Self; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        for i in 0..4 {
            let [a, b, c, d, e, f, g, h] = x[i].0;
            sums[i] = ((a + b) + (c + d)) + ((e + f) + (g + h));
        }
        sums
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Self(eight!(0.0, |i| self.0[i] - b.0[i]))
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        Self(eight!(0.0, |i| self.0[i].round_ties_even()))
    }

    #[inline(always)]
    fn bytes(self) -> [i8; 8] {
        /// 1.5 * 2^23: the sum has the integer in its lowest bits.
        const MAGIC: f32 = 12_582_912.0;
        eight!(0, |i| (self.0[i] + MAGIC).to_bits() as i8)
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(eight!(0.0, |i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(eight!(0.0, |i| if self.0[i] < b.0[i] { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Self(eight!(0.0, |i| self.0[i] / b.0[i]))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(eight!(0.0, |i| self.0[i].abs()))
    }

    #[inline(always)]
    fn above(self, limit: Self) -> Self {
        Self(eight!(0.0, |i| if self.0[i] <= limit.0[i] { 0.0 } else { self.0[i] }))
    }

    #[inline(always)]
    fn differs(self, b: Self) -> bool {
        self.0 != b.0
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(eight!(0.0, |i| f32::from_bits(self.0[i].to_bits().wrapping_add(127) << 23)))
    }

    #[inline(always)]
    fn or_where_negative(self, b: Self, sign: Self) -> Self {
        Self(eight!(0.0, |i| if sign.0[i].is_sign_negative() { b.0[i] } else { self.0[i] }))
    }
}
