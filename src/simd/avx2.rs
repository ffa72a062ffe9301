//! With AVX2, FMA and F16C. Only [`wide`](super::wide) names the type, once it has asked the processor; `tests/layers` sees to that.

use std::arch::x86_64::*;

use half::f16;

use super::F32x8;

/// Eight single-precision numbers.
#[derive(Clone, Copy)]
pub(crate) struct Eight(__m256);

/// Calls intrinsics that take no pointers.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: the type is named only where the processor has the instructions, and there are no pointers.
        unsafe { $call }
    };
}

impl F32x8 for Eight {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(intrinsic!(_mm256_set1_ps(x)))
    }

    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        Self(unsafe { _mm256_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn load_bytes(x: &[u8; 32]) -> Self {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        Self(unsafe { _mm256_loadu_ps(x.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 8]) {
        // SAFETY: the processor has the instructions; the array is as long as what is written.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn halves(self) -> [f16; 8] {
        let mut to = [f16::ZERO; 8];
        // SAFETY: the processor has the instructions; the array is as long as what is written, and any bits are numbers.
        unsafe {
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        }
        to
    }

    #[inline(always)]
    fn load_f16_bytes(x: &[u8; 16]) -> Self {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bf16_bytes(x: &[u8; 16]) -> Self {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        let wide = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast())) };
        Self(intrinsic!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))))
    }

    #[inline(always)]
    fn load_i8(x: &[u8; 8]) -> Self {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn load_u8(x: &[u8; 8]) -> Self {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn load_nibbles(x: &[u8; 8]) -> (Self, Self) {
        // SAFETY: the processor has the instructions; the array is as long as what is read.
        unsafe {
            let wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast()));
            let low = _mm256_and_si256(wide, _mm256_set1_epi32(15));
            let high = _mm256_srli_epi32::<4>(wide);
            (Self(_mm256_cvtepi32_ps(low)), Self(_mm256_cvtepi32_ps(high)))
        }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(intrinsic!(_mm256_add_ps(self.0, b.0)))
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Self(intrinsic!(_mm256_mul_ps(self.0, b.0)))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(intrinsic!(_mm256_fmadd_ps(self.0, b.0, c.0)))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: the processor has the instructions; there are no pointers.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        let mut out = [0.0; 4];
        // SAFETY: the processor has the instructions; the array is as long as what is written.
        unsafe {
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
            let sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
            _mm_storeu_ps(out.as_mut_ptr(), sums);
        }
        out
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Self(intrinsic!(_mm256_sub_ps(self.0, b.0)))
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        Self(intrinsic!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
    }

    #[inline(always)]
    fn bytes(self) -> [i8; 8] {
        let mut to = [0; 8];
        // SAFETY: the processor has the instructions; the array is as long as what is written.
        unsafe {
            let ints = _mm256_cvtps_epi32(self.0);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256::<1>(ints));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi16(words, words));
        }
        to
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(intrinsic!(_mm256_max_ps(self.0, b.0)))
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(intrinsic!(_mm256_min_ps(self.0, b.0)))
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Self(intrinsic!(_mm256_div_ps(self.0, b.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(intrinsic!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)))
    }

    #[inline(always)]
    fn above(self, limit: Self) -> Self {
        Self(intrinsic!(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, limit.0))))
    }

    #[inline(always)]
    fn differs(self, b: Self) -> bool {
        intrinsic!(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(self.0, b.0)) != 0)
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: the processor has the instructions; there are no pointers.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_castps_si256(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn or_where_negative(self, b: Self, sign: Self) -> Self {
        Self(intrinsic!(_mm256_blendv_ps(self.0, b.0, sign.0)))
    }
}
