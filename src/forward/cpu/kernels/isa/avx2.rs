//! AVX2, with and without VNNI for it: sixteen rows are two registers.

use std::arch::x86_64::*;

use half::f16;

use super::{FIRST_BYTES, FOUR_BITS, FourColumns, Isa, STRIP, Task, check_rows};

/// The proof that the processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// The proof that it has AVX-VNNI, too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AvxVnni(Avx2);

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        there.then_some(Self(()))
    }
}

run_with!(Avx2, "avx2,fma,f16c");

impl AvxVnni {
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect().filter(|_| is_x86_feature_detected!("avxvnni")).map(Self)
    }
}

run_with!(AvxVnni, "avx2,fma,f16c,avxvnni");

// SAFETY of every block below: `self` proves that the instructions are there, and pointers come from references to
// arrays of the size that is read or written, but where another line says more.

/// Both halves of the sixteen rows.
#[inline(always)]
fn halves<const N: usize, T: Copy, U>(x: [[T; 2]; N], f: impl Fn([T; N]) -> U) -> [U; 2] {
    [f(x.map(|x| x[0])), f(x.map(|x| x[1]))]
}

/// What is the same with and without VNNI.
macro_rules! common {
    () => {
        type Bytes = [__m256i; 2];
        type Whole = [__m256i; 2];
        type Float = [__m256; 2];

        #[inline(always)]
        fn load(self, x: &FourColumns) -> Self::Bytes {
            // SAFETY: see above.
            [0, 1].map(|i| unsafe { _mm256_loadu_si256(x.as_ptr().cast::<__m256i>().add(i)) })
        }

        #[inline(always)]
        fn store(self, x: Self::Bytes, to: &mut FourColumns) {
            for (i, x) in x.into_iter().enumerate() {
                // SAFETY: see above.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast::<__m256i>().add(i), x) };
            }
        }

        #[inline(always)]
        fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4] {
            check_rows(rows, stride);
            let half = |first: usize| {
                // SAFETY: see above; the last row's sixteen bytes end within the slice.
                unsafe {
                    let start = rows.as_ptr();
                    let row = |i: usize| _mm_loadu_si128(start.add((first + i) * stride).cast());
                    let rows = |i: usize| _mm256_set_m128i(row(4 + i), row(i));
                    let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
                    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
                    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
                    [
                        _mm256_unpacklo_epi64(ab, cd),
                        _mm256_unpackhi_epi64(ab, cd),
                        _mm256_unpacklo_epi64(ab_high, cd_high),
                        _mm256_unpackhi_epi64(ab_high, cd_high),
                    ]
                }
            };
            let (low, high) = (half(0), half(8));
            std::array::from_fn(|i| [low[i], high[i]])
        }

        #[inline(always)]
        fn splat_byte(self, x: u8) -> Self::Bytes {
            // SAFETY: see above.
            [unsafe { _mm256_set1_epi8(x as i8) }; 2]
        }

        #[inline(always)]
        fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            // SAFETY: see above.
            halves([a, b], |[a, b]| unsafe { _mm256_and_si256(a, b) })
        }

        #[inline(always)]
        fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            // SAFETY: see above.
            halves([a, b], |[a, b]| unsafe { _mm256_or_si256(a, b) })
        }

        #[inline(always)]
        fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            // SAFETY: see above.
            halves([a, b], |[a, b]| unsafe { _mm256_add_epi8(a, b) })
        }

        #[inline(always)]
        fn shift_left<const N: u32>(self, x: Self::Bytes) -> Self::Bytes {
            // SAFETY: see above.
            x.map(|x| unsafe { _mm256_sll_epi32(x, _mm_cvtsi32_si128(N as i32)) })
        }

        #[inline(always)]
        fn shift_right<const N: u32>(self, x: Self::Bytes) -> Self::Bytes {
            // SAFETY: see above.
            x.map(|x| unsafe { _mm256_srl_epi32(x, _mm_cvtsi32_si128(N as i32)) })
        }

        #[inline(always)]
        fn look_up(self, table: &[u8; 16], x: Self::Bytes) -> Self::Bytes {
            // SAFETY: see above.
            let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
            // SAFETY: see above.
            x.map(|x| unsafe { _mm256_shuffle_epi8(table, x) })
        }

        #[inline(always)]
        fn bits(self, x: Self::Bytes) -> [Self::Bytes; 8] {
            std::array::from_fn(|four| {
                // The byte in which they are four times, and one of them of each.
                // SAFETY: see above.
                let (byte, bits) = unsafe {
                    let first = _mm256_set1_epi64x(FIRST_BYTES[0]);
                    let first = _mm256_unpacklo_epi64(first, _mm256_set1_epi64x(FIRST_BYTES[1]));
                    let byte = _mm256_add_epi8(first, _mm256_set1_epi8((four / 2) as i8));
                    (byte, _mm256_set1_epi32(FOUR_BITS << (4 * (four % 2))))
                };
                // SAFETY: see above.
                x.map(|x| unsafe {
                    _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(x, byte), bits), bits)
                })
            })
        }

        #[inline(always)]
        fn lower_half(self, x: Self::Bytes) -> Self::Float {
            // SAFETY: see above.
            x.map(|x| unsafe {
                let zeros = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
                let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(zeros, zeros));
                _mm256_cvtph_ps(_mm256_castsi256_si128(halves))
            })
        }

        #[inline(always)]
        fn lowest_byte(self, x: Self::Bytes) -> Self::Float {
            // SAFETY: see above.
            x.map(|x| unsafe { _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xff))) })
        }

        #[inline(always)]
        fn to_float(self, x: Self::Whole) -> Self::Float {
            // SAFETY: see above.
            x.map(|x| unsafe { _mm256_cvtepi32_ps(x) })
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Float {
            // SAFETY: see above.
            [unsafe { _mm256_set1_ps(x) }; 2]
        }

        #[inline(always)]
        fn load_floats(self, x: &[f32; STRIP]) -> Self::Float {
            // SAFETY: see above.
            [0, 1].map(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) })
        }

        #[inline(always)]
        fn load_halves(self, x: &[f16; STRIP]) -> Self::Float {
            // SAFETY: see above.
            [0, 1].map(|i| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast::<__m128i>().add(i))) })
        }

        #[inline(always)]
        fn store_floats(self, x: Self::Float, to: &mut [f32; STRIP]) {
            for (i, x) in x.into_iter().enumerate() {
                // SAFETY: see above.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(8 * i), x) };
            }
        }

        #[inline(always)]
        fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
            // SAFETY: see above.
            halves([a, b], |[a, b]| unsafe { _mm256_mul_ps(a, b) })
        }

        #[inline(always)]
        fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
            // SAFETY: see above.
            halves([a, b, c], |[a, b, c]| unsafe { _mm256_fmadd_ps(a, b, c) })
        }
    };
}

/// Four numbers of a row, for each of the strip's.
#[inline(always)]
fn four(x: [i8; 4]) -> __m256i {
    // SAFETY: see above; only called by methods of the proofs.
    unsafe { _mm256_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8))) }
}

impl Isa for Avx2 {
    const ROWS: usize = 2;
    common!();

    /// Products of bytes add up in pairs to 16 bits, where they saturate: so small weights as they are, others as
    /// signed numbers. A pair is 2 * 128 * 127 at most, two of 63 are 4 * 63 * 127, four of 31 are 8 * 31 * 127 and eight
    /// of 15 are 16 * 15 * 127, which fit.
    #[inline(always)]
    fn products<const J: usize, const M: usize, const MOST: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Self::Whole; M] {
        let (together, small) = match MOST {
            0..=15 => (8, true),
            16..=31 => (4, true),
            32..=63 => (2, true),
            _ => (1, false),
        };
        // SAFETY: see above.
        unsafe {
            let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
            let mut sums = start.map(|start| [if small { _mm256_set1_epi32(start) } else { zero }; 2]);
            let mut pairs = [[zero; 2]; M];
            for (j, weights) in weights.iter().enumerate() {
                let weights = self.load(weights);
                for ((sums, pairs), row) in sums.iter_mut().zip(&mut pairs).zip(rows) {
                    let x = four(row[j]);
                    for ((sum, pairs), weights) in sums.iter_mut().zip(pairs).zip(weights) {
                        let products = if small {
                            _mm256_maddubs_epi16(weights, x)
                        } else {
                            let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
                            _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed))
                        };
                        *pairs =
                            if j % together == 0 { products } else { _mm256_add_epi16(*pairs, products) };
                        if (j + 1) % together == 0 || j + 1 == J {
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*pairs, ones));
                        }
                    }
                }
            }
            sums
        }
    }
}

impl Isa for AvxVnni {
    const ROWS: usize = 2;
    common!();

    #[inline(always)]
    fn products<const J: usize, const M: usize, const MOST: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Self::Whole; M] {
        // SAFETY: see above.
        unsafe {
            let mut sums = start.map(|start| [_mm256_set1_epi32(start); 2]);
            for (j, weights) in weights.iter().enumerate() {
                let weights = self.load(weights);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let x = four(row[j]);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_dpbusd_avx_epi32(*sum, weights, x);
                    }
                }
            }
            sums
        }
    }
}
