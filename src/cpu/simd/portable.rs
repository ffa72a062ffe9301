//! Arrays that the compiler makes vectors of. Sums and products may round in other places than with AVX2.

use half::{bf16, f16};

/// Eight numbers.
#[derive(Clone, Copy)]
pub(crate) struct F32x8([f32; 8]);

impl F32x8 {
    #[inline(always)]
    pub(crate) fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    pub(crate) fn load(x: &[f32; 8]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    pub(crate) fn load_bytes(x: &[u8; 32]) -> Self {
        let (numbers, _) = x.as_chunks::<4>();
        Self(std::array::from_fn(|i| f32::from_le_bytes(numbers[i])))
    }

    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f32; 8]) {
        *to = self.0;
    }

    #[inline(always)]
    pub(crate) fn load_f16(x: &[f16; 8]) -> Self {
        Self(x.map(f16::to_f32))
    }

    #[inline(always)]
    pub(crate) fn load_f16_bytes(x: &[u8; 16]) -> Self {
        let (numbers, _) = x.as_chunks::<2>();
        Self(std::array::from_fn(|i| f16::from_le_bytes(numbers[i]).to_f32()))
    }

    #[inline(always)]
    pub(crate) fn load_bf16_bytes(x: &[u8; 16]) -> Self {
        let (numbers, _) = x.as_chunks::<2>();
        Self(std::array::from_fn(|i| bf16::from_le_bytes(numbers[i]).to_f32()))
    }

    #[inline(always)]
    pub(crate) fn load_i8(x: &[u8; 8]) -> Self {
        Self(x.map(|b| f32::from(b as i8)))
    }

    #[inline(always)]
    pub(crate) fn load_nibbles(x: &[u8; 8]) -> (Self, Self) {
        (Self(x.map(|b| f32::from(b & 15))), Self(x.map(|b| f32::from(b >> 4))))
    }

    #[inline(always)]
    pub(crate) fn store_f16(self, to: &mut [f16; 8]) {
        *to = self.0.map(f16::from_f32);
    }

    #[inline(always)]
    pub(crate) fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }

    #[inline(always)]
    pub(crate) fn mul(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
    }

    /// self * b + c.
    #[inline(always)]
    pub(crate) fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }

    /// The largest of all eight. (Of any, if one is not a number.)
    #[inline(always)]
    pub(crate) fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The sum of each of four.
    #[inline(always)]
    pub(crate) fn sums(x: [Self; 4]) -> [f32; 4] {
        x.map(|Self([a, b, c, d, e, f, g, h])| ((a + b) + (c + d)) + ((e + f) + (g + h)))
    }

    #[inline(always)]
    pub(crate) fn sub(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }

    /// The larger of each two; `b` where one is not a number.
    #[inline(always)]
    pub(crate) fn max(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }

    /// The smaller of each two; `b` where one is not a number.
    #[inline(always)]
    pub(crate) fn min(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < b.0[i] { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    pub(crate) fn div(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] / b.0[i]))
    }

    #[inline(always)]
    pub(crate) fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    /// Each number that is above its `limit` or is none, and 0 for the others.
    #[inline(always)]
    pub(crate) fn above(self, limit: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] <= limit.0[i] { 0.0 } else { self.0[i] }))
    }

    /// Whether any two differ.
    #[inline(always)]
    pub(crate) fn differs(self, b: Self) -> bool {
        self.0 != b.0
    }

    /// 2 to the power of the whole number in the lowest bits of each.
    #[inline(always)]
    pub(super) fn power_of_two(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(x.to_bits().wrapping_add(127) << 23)))
    }

    /// `b` where `sign` is negative.
    #[inline(always)]
    pub(crate) fn or_where_negative(self, b: Self, sign: Self) -> Self {
        let one = |i: usize| if sign.0[i].is_sign_negative() { b.0[i] } else { self.0[i] };
        Self(std::array::from_fn(one))
    }
}

/// Sixteen whole numbers of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct I16x16([i16; 16]);

/// Eight whole numbers of 32 bits.
#[derive(Clone, Copy)]
pub(crate) struct I32x8([i32; 8]);

impl I16x16 {
    #[inline(always)]
    pub(crate) fn splat(x: i16) -> Self {
        Self([x; 16])
    }

    #[inline(always)]
    pub(crate) fn load(x: &[i16; 16]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    pub(crate) fn store(self, to: &mut [i16; 16]) {
        *to = self.0;
    }

    /// Signed bytes.
    #[inline(always)]
    pub(crate) fn from_i8(x: &[u8; 16]) -> Self {
        Self(x.map(|b| i16::from(b as i8)))
    }

    #[inline(always)]
    pub(crate) fn from_u8(x: &[u8; 16]) -> Self {
        Self(x.map(i16::from))
    }

    /// The nearest whole numbers, even ones where two are as near; of numbers that fit.
    #[inline(always)]
    pub(crate) fn round(low: F32x8, high: F32x8) -> Self {
        Self(std::array::from_fn(|i| if i < 8 { low.0[i] } else { high.0[i - 8] }.round_ties_even() as i16))
    }

    #[inline(always)]
    pub(crate) fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].wrapping_add(b.0[i])))
    }

    #[inline(always)]
    pub(crate) fn and(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & b.0[i]))
    }

    #[inline(always)]
    pub(crate) fn shift_left<const N: i32>(self) -> Self {
        Self(self.0.map(|x| x << N))
    }

    /// Zeros come in from above.
    #[inline(always)]
    pub(crate) fn shift_right<const N: i32>(self) -> Self {
        Self(self.0.map(|x| (x as u16 >> N) as i16))
    }

    /// self * b / 2^15, rounded.
    #[inline(always)]
    pub(crate) fn scale(self, b: Self) -> Self {
        let one = |i: usize| (i32::from(self.0[i]) * i32::from(b.0[i]) + (1 << 14)) >> 15;
        Self(std::array::from_fn(|i| one(i) as i16))
    }
}

impl I32x8 {
    #[inline(always)]
    pub(crate) fn zero() -> Self {
        Self([0; 8])
    }

    /// self + a b, of which each two neighbours make one number.
    #[inline(always)]
    pub(crate) fn add_products(self, a: I16x16, b: I16x16) -> Self {
        let product = |i: usize| i32::from(a.0[i]) * i32::from(b.0[i]);
        let sum = |i: usize| self.0[i].wrapping_add(product(2 * i)).wrapping_add(product(2 * i + 1));
        Self(std::array::from_fn(sum))
    }

    /// The sum of each of four, in floats: eight of the numbers may be more than 32 bits hold.
    #[inline(always)]
    pub(crate) fn sums(x: [Self; 4]) -> [f32; 4] {
        F32x8::sums(x.map(|Self(x)| F32x8(x.map(|x| x as f32))))
    }
}

/// Where bytes could be brought nearer that will be read soon.
#[inline(always)]
pub(crate) fn prefetch(_: &[u8]) {}
