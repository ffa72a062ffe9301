//! Arrays, which the compiler vectorizes. Sums and products may round in other places than with AVX2.

use half::{bf16, f16};

/// Eight single-precision numbers.
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
    pub(crate) fn load_u8(x: &[u8; 8]) -> Self {
        Self(x.map(f32::from))
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

    /// self * b + c, rounded twice.
    #[inline(always)]
    pub(crate) fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }

    /// The largest of all lanes. (Any of them if one is NaN.)
    #[inline(always)]
    pub(crate) fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The sum of the lanes of each of four vectors.
    #[inline(always)]
    pub(crate) fn sums(x: [Self; 4]) -> [f32; 4] {
        x.map(|Self([a, b, c, d, e, f, g, h])| ((a + b) + (c + d)) + ((e + f) + (g + h)))
    }

    #[inline(always)]
    pub(crate) fn sub(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }

    /// Rounds to the nearest integers, halves to even.
    #[inline(always)]
    pub(crate) fn nearest(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    /// Integers that fit in an i8 as such.
    #[inline(always)]
    pub(crate) fn bytes(self) -> [i8; 8] {
        self.0.map(|x| x as i8)
    }

    /// The larger of each two; `b` where one is NaN.
    #[inline(always)]
    pub(crate) fn max(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }

    /// The smaller of each two; `b` where one is NaN.
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

    /// Each number that is above its `limit` or NaN, and 0 for the others.
    #[inline(always)]
    pub(crate) fn above(self, limit: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] <= limit.0[i] { 0.0 } else { self.0[i] }))
    }

    /// Whether any two differ.
    #[inline(always)]
    pub(crate) fn differs(self, b: Self) -> bool {
        self.0 != b.0
    }

    /// 2^n, with n the integer in the lowest bits of each number.
    #[inline(always)]
    pub(super) fn power_of_two(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(x.to_bits().wrapping_add(127) << 23)))
    }

    /// `b` where `sign` is negative, `self` elsewhere.
    #[inline(always)]
    pub(crate) fn or_where_negative(self, b: Self, sign: Self) -> Self {
        let one = |i: usize| if sign.0[i].is_sign_negative() { b.0[i] } else { self.0[i] };
        Self(std::array::from_fn(one))
    }
}

/// Does nothing: a hint that not every processor has.
#[inline(always)]
pub(crate) fn prefetch<T>(_: &[T]) {}

/// As [`prefetch`].
pub(crate) fn prefetch_to_l2<T>(_: &[T]) {}
