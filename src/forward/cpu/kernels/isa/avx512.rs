//! AVX-512 with VNNI: sixteen rows are one register.

use std::arch::x86_64::*;

use half::f16;

use super::avx2::Avx2;
use super::traits::{ByteRange, Columns, FourColumns, Isa, Task, WIDTH, WithIsa};
use super::x86::{FIRST_BYTES, FOUR_BITS, call_with, check_rows, four_bytes, intrinsic, run_with};

/// The proof that the processor has AVX-512 (F, BW, VL, DQ), VNNI and BMI, and what [`Avx2`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("avx512vnni");
        Avx2::detect().filter(|_| has_all).map(|_| Self(()))
    }
}

run_with!(Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi1,bmi2");

impl Isa for Avx512 {
    const REGISTERS: usize = 32;
    const ROWS: usize = 10;
    const PANELS: usize = 2;
    call_with!(Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi1,bmi2");

    type Bytes = __m512i;
    type I32 = __m512i;
    type F32 = __m512;

    #[inline(always)]
    fn load(self, x: &FourColumns) -> __m512i {
        // SAFETY: `self` proves the instructions; the array is as long as what is read.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, x: __m512i, to: &mut FourColumns) {
        // SAFETY: `self` proves the instructions; the array is as long as what is written.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn transpose(self, rows: &[u8], stride: usize) -> [__m512i; 4] {
        check_rows(rows, stride);
        // SAFETY: `self` proves the instructions; the last row's sixteen bytes end within the slice.
        unsafe {
            let start = rows.as_ptr();
            // Rows 0, 4, 8 and 12 in one register, then rows 1, 5, 9 and 13, and so on.
            let rows = |i: usize| {
                let row = |k: usize| _mm_loadu_si128(start.add((i + k) * stride).cast());
                let x = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(row(0)), row(4));
                _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, row(8)), row(12))
            };
            let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn splat_byte(self, x: u8) -> __m512i {
        intrinsic!(self, _mm512_set1_epi8(x as i8))
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(self, _mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(self, _mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(self, _mm512_add_epi8(a, b))
    }

    #[inline(always)]
    fn shift_left(self, x: __m512i, by: u32) -> __m512i {
        intrinsic!(self, _mm512_sll_epi32(x, _mm_cvtsi32_si128(by as i32)))
    }

    #[inline(always)]
    fn shift_right(self, x: __m512i, by: u32) -> __m512i {
        intrinsic!(self, _mm512_srl_epi32(x, _mm_cvtsi32_si128(by as i32)))
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], x: __m512i) -> __m512i {
        // SAFETY: `self` proves the instructions; the array is as long as what is read.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), x) }
    }

    #[inline(always)]
    fn bits(self, x: __m512i, four: usize) -> __m512i {
        // SAFETY: `self` proves the instructions; there are no pointers.
        unsafe {
            // In each byte: the byte that has its bit, and a mask of that bit.
            let first = _mm512_set1_epi64(FIRST_BYTES[0]);
            let first = _mm512_unpacklo_epi64(first, _mm512_set1_epi64(FIRST_BYTES[1]));
            let byte = _mm512_add_epi8(first, _mm512_set1_epi8((four / 2) as i8));
            let bits = _mm512_set1_epi32(FOUR_BITS << (4 * (four % 2)));
            _mm512_movm_epi8(_mm512_test_epi8_mask(_mm512_shuffle_epi8(x, byte), bits))
        }
    }

    #[inline(always)]
    fn low_f16(self, x: __m512i) -> __m512 {
        intrinsic!(self, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)))
    }

    #[inline(always)]
    fn store_low_halves(self, x: __m512i, to: &mut [u8; 2 * WIDTH]) {
        // SAFETY: `self` proves the instructions; the array is as long as what is written.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(x)) }
    }

    #[inline(always)]
    fn byte(self, x: __m512i, which: u32) -> __m512 {
        let x = self.shift_right(x, 8 * which);
        intrinsic!(self, _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xff))))
    }

    #[inline(always)]
    fn products<const M: usize, const P: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[__m512i; P]; M] {
        // SAFETY: `self` proves the instructions; there are no pointers.
        unsafe {
            let more = _mm512_set1_epi8(-128);
            let mut sums = [[_mm512_setzero_si512(); P]; M];
            for m in 0..M {
                sums[m] = [_mm512_set1_epi32(start[m]); P];
            }
            for j in 0..fours {
                let mut all = [more; P];
                for p in 0..P {
                    all[p] = match range {
                        ByteRange::Signed => _mm512_xor_si512(columns.weights(p, j), more),
                        ByteRange::Small(_) => columns.weights(p, j),
                    };
                }
                for m in 0..M {
                    let x = _mm512_set1_epi32(four_bytes(columns.activations(m, j)));
                    for p in 0..P {
                        sums[m][p] = _mm512_dpbusd_epi32(sums[m][p], all[p], x);
                    }
                }
            }
            sums
        }
    }

    #[inline(always)]
    fn to_f32(self, x: __m512i) -> __m512 {
        intrinsic!(self, _mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        intrinsic!(self, _mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load_f32(self, x: &[f32; WIDTH]) -> __m512 {
        // SAFETY: `self` proves the instructions; the array is as long as what is read.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; WIDTH]) -> __m512 {
        // SAFETY: `self` proves the instructions; the array is as long as what is read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; WIDTH]) -> __m512 {
        // SAFETY: `self` proves the instructions; the array is as long as what is read.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store_f32(self, x: __m512, to: &mut [f32; WIDTH]) {
        // SAFETY: `self` proves the instructions; the array is as long as what is written.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(self, _mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsic!(self, _mm512_fmadd_ps(a, b, c))
    }
}
