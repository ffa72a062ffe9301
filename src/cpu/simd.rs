//! Eight single-precision numbers at once: AVX2 where the build has it, otherwise arrays that the compiler
//! makes vectors of. (ggml is compiled for the same instructions, so there is nothing to detect at run time.)

/// Eight numbers.
pub(super) const LANES: usize = 8;

#[cfg(all(target_arch = "x86_64", target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))]
mod lanes {
    use std::arch::x86_64::*;

    use half::f16;

    #[derive(Clone, Copy)]
    pub(in crate::cpu) struct F32x8(__m256);

    // Every block below: the build has the instructions (the module's cfg), and pointers come from references
    // to arrays of the size that is read or written.
    impl F32x8 {
        #[inline(always)]
        pub(in crate::cpu) fn splat(x: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        pub(in crate::cpu) fn load(x: &[f32; 8]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_loadu_ps(x.as_ptr()) })
        }

        /// Little-endian numbers.
        #[inline(always)]
        pub(in crate::cpu) fn load_bytes(x: &[u8; 32]) -> Self {
            // SAFETY: see above; any bytes are numbers.
            Self(unsafe { _mm256_loadu_ps(x.as_ptr().cast()) })
        }

        #[inline(always)]
        pub(in crate::cpu) fn store(self, to: &mut [f32; 8]) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_f16(x: &[f16; 8]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) })
        }

        /// Little-endian half-precision numbers.
        #[inline(always)]
        pub(in crate::cpu) fn load_f16_bytes(x: &[u8; 16]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) })
        }

        /// Little-endian brain-float numbers.
        #[inline(always)]
        pub(in crate::cpu) fn load_bf16_bytes(x: &[u8; 16]) -> Self {
            // SAFETY: see above.
            let wide = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast())) };
            // SAFETY: see above.
            Self(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)) })
        }

        /// Signed bytes.
        #[inline(always)]
        pub(in crate::cpu) fn load_i8(x: &[u8; 8]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))) })
        }

        /// The low halves of bytes, 0 to 15, and the high ones.
        #[inline(always)]
        pub(in crate::cpu) fn load_nibbles(x: &[u8; 8]) -> (Self, Self) {
            // SAFETY: see above.
            unsafe {
                let wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast()));
                let low = _mm256_and_si256(wide, _mm256_set1_epi32(15));
                let high = _mm256_srli_epi32::<4>(wide);
                (Self(_mm256_cvtepi32_ps(low)), Self(_mm256_cvtepi32_ps(high)))
            }
        }

        #[inline(always)]
        pub(in crate::cpu) fn store_f16(self, to: &mut [f16; 8]) {
            // SAFETY: see above.
            unsafe {
                let half = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
                _mm_storeu_si128(to.as_mut_ptr().cast(), half);
            }
        }

        #[inline(always)]
        pub(in crate::cpu) fn add(self, b: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_add_ps(self.0, b.0) })
        }

        #[inline(always)]
        pub(in crate::cpu) fn mul(self, b: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_mul_ps(self.0, b.0) })
        }

        /// self * b + c, rounded once.
        #[inline(always)]
        pub(in crate::cpu) fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }

        /// The sum of each of four.
        #[inline(always)]
        pub(in crate::cpu) fn sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
            let mut out = [0.0; 4];
            // SAFETY: see above.
            unsafe {
                let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
                let sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
                _mm_storeu_ps(out.as_mut_ptr(), sums);
            }
            out
        }
    }
}

#[cfg(not(all(
    target_arch = "x86_64",
    target_feature = "avx2",
    target_feature = "fma",
    target_feature = "f16c"
)))]
mod lanes {
    use half::{bf16, f16};

    #[derive(Clone, Copy)]
    pub(in crate::cpu) struct F32x8([f32; 8]);

    impl F32x8 {
        #[inline(always)]
        pub(in crate::cpu) fn splat(x: f32) -> Self {
            Self([x; 8])
        }

        #[inline(always)]
        pub(in crate::cpu) fn load(x: &[f32; 8]) -> Self {
            Self(*x)
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_bytes(x: &[u8; 32]) -> Self {
            let (numbers, _) = x.as_chunks::<4>();
            Self(std::array::from_fn(|i| f32::from_le_bytes(numbers[i])))
        }

        #[inline(always)]
        pub(in crate::cpu) fn store(self, to: &mut [f32; 8]) {
            *to = self.0;
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_f16(x: &[f16; 8]) -> Self {
            Self(x.map(f16::to_f32))
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_f16_bytes(x: &[u8; 16]) -> Self {
            let (numbers, _) = x.as_chunks::<2>();
            Self(std::array::from_fn(|i| f16::from_le_bytes(numbers[i]).to_f32()))
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_bf16_bytes(x: &[u8; 16]) -> Self {
            let (numbers, _) = x.as_chunks::<2>();
            Self(std::array::from_fn(|i| bf16::from_le_bytes(numbers[i]).to_f32()))
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_i8(x: &[u8; 8]) -> Self {
            Self(x.map(|b| f32::from(b as i8)))
        }

        #[inline(always)]
        pub(in crate::cpu) fn load_nibbles(x: &[u8; 8]) -> (Self, Self) {
            (Self(x.map(|b| f32::from(b & 15))), Self(x.map(|b| f32::from(b >> 4))))
        }

        #[inline(always)]
        pub(in crate::cpu) fn store_f16(self, to: &mut [f16; 8]) {
            *to = self.0.map(f16::from_f32);
        }

        #[inline(always)]
        pub(in crate::cpu) fn add(self, b: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
        }

        #[inline(always)]
        pub(in crate::cpu) fn mul(self, b: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
        }

        /// self * b + c.
        #[inline(always)]
        pub(in crate::cpu) fn mul_add(self, b: Self, c: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
        }

        /// The sum of each of four.
        #[inline(always)]
        pub(in crate::cpu) fn sums(x: [Self; 4]) -> [f32; 4] {
            x.map(|Self([a, b, c, d, e, f, g, h])| ((a + b) + (c + d)) + ((e + f) + (g + h)))
        }
    }
}

pub(super) use lanes::F32x8;

impl F32x8 {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The sum of all eight.
    #[inline(always)]
    pub(super) fn sum(self) -> f32 {
        Self::sums([self, Self::zero(), Self::zero(), Self::zero()])[0]
    }
}
