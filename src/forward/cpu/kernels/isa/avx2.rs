//! AVX2, with and without AVX-VNNI: sixteen rows are two registers.

use std::arch::x86_64::*;

use half::f16;

use super::traits::{ByteRange, Columns, FourColumns, Isa, Task, WIDTH, WithIsa};
use super::x86::{FIRST_BYTES, FOUR_BITS, call_with, check_rows, four_bytes, intrinsic, run_with};

mod products;

/// The proof that the processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// The proof that it has AVX-VNNI, too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AvxVnni(Avx2);

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has_all.then_some(Self(()))
    }
}

run_with!(Avx2, "avx2,fma,f16c");

impl AvxVnni {
    pub(super) fn detect() -> Option<Self> {
        Avx2::detect().filter(|_| is_x86_feature_detected!("avxvnni")).map(Self)
    }
}

run_with!(AvxVnni, "avx2,fma,f16c,avxvnni");

impl Avx2 {
    /// Four numbers of a row of activations, for each row of the panel.
    #[inline(always)]
    fn broadcast(self, x: [i8; 4]) -> __m256i {
        intrinsic!(self, _mm256_set1_epi32(four_bytes(x)))
    }
}

/// Instructions for both halves of sixteen rows.
macro_rules! halves {
    ($self:ident, |$($x:ident),+| $do:expr) => {[
        { $(let $x = $x[0];)+ intrinsic!($self, $do) },
        { $(let $x = $x[1];)+ intrinsic!($self, $do) },
    ]};
}

/// Sixteen bytes of each of eight rows that lie `stride` apart, as four times four bytes of each.
///
/// # Safety
/// All of them can be read, and the processor has AVX2.
#[inline(always)]
unsafe fn transpose_eight(rows: *const u8, stride: usize) -> [__m256i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut pairs = [_mm256_setzero_si256(); 4];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let (low, high) = (rows.add(i * stride), rows.add((4 + i) * stride));
            *pair = _mm256_set_m128i(_mm_loadu_si128(high.cast()), _mm_loadu_si128(low.cast()));
        }
        let [a, b, c, d] = pairs;
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

/// The methods that do not depend on VNNI.
macro_rules! common {
    () => {
        const REGISTERS: usize = 8;
        const ROWS: usize = 4;
        const ROWS_OF_SIXTEENS: usize = 2;
        const PANELS: usize = 1;

        type Bytes = [__m256i; 2];
        type I32 = [__m256i; 2];
        type F32 = [__m256; 2];

        #[inline(always)]
        fn load(self, x: &FourColumns) -> Self::Bytes {
            let x = x.as_ptr().cast::<__m256i>();
            // SAFETY: `self` proves the instructions; the array is as long as what is read.
            unsafe { [_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1))] }
        }

        #[inline(always)]
        fn store(self, x: Self::Bytes, to: &mut FourColumns) {
            for (i, x) in x.into_iter().enumerate() {
                // SAFETY: `self` proves the instructions; the array is as long as what is written.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast::<__m256i>().add(i), x) };
            }
        }

        #[inline(always)]
        fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4] {
            check_rows(rows, stride);
            let rows = rows.as_ptr();
            // SAFETY: `self` proves the instructions; the rows' sixteen bytes are within the slice.
            let low = unsafe { transpose_eight(rows, stride) };
            // SAFETY: likewise.
            let high = unsafe { transpose_eight(rows.add(8 * stride), stride) };
            [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
        }

        #[inline(always)]
        fn splat_byte(self, x: u8) -> Self::Bytes {
            [intrinsic!(self, _mm256_set1_epi8(x as i8)); 2]
        }

        #[inline(always)]
        fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            halves!(self, |a, b| _mm256_and_si256(a, b))
        }

        #[inline(always)]
        fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            halves!(self, |a, b| _mm256_or_si256(a, b))
        }

        #[inline(always)]
        fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            halves!(self, |a, b| _mm256_add_epi8(a, b))
        }

        #[inline(always)]
        fn shift_left(self, x: Self::Bytes, by: u32) -> Self::Bytes {
            halves!(self, |x| _mm256_sll_epi32(x, _mm_cvtsi32_si128(by as i32)))
        }

        #[inline(always)]
        fn shift_right(self, x: Self::Bytes, by: u32) -> Self::Bytes {
            halves!(self, |x| _mm256_srl_epi32(x, _mm_cvtsi32_si128(by as i32)))
        }

        #[inline(always)]
        fn look_up(self, table: &[i8; 16], x: Self::Bytes) -> Self::Bytes {
            // SAFETY: `self` proves the instructions; the array is as long as what is read.
            let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
            halves!(self, |x| _mm256_shuffle_epi8(table, x))
        }

        #[inline(always)]
        fn bits(self, x: Self::Bytes, four: usize) -> Self::Bytes {
            // In each byte: the byte that has its bit, and a mask of that bit.
            // SAFETY: `self` proves the instructions; there are no pointers.
            let (byte, bits) = unsafe {
                let first = _mm256_set1_epi64x(FIRST_BYTES[0]);
                let first = _mm256_unpacklo_epi64(first, _mm256_set1_epi64x(FIRST_BYTES[1]));
                let byte = _mm256_add_epi8(first, _mm256_set1_epi8((four / 2) as i8));
                (byte, _mm256_set1_epi32(FOUR_BITS << (4 * (four % 2))))
            };
            halves!(self, |x| _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(x, byte), bits), bits))
        }

        #[inline(always)]
        fn low_f16(self, x: Self::Bytes) -> Self::F32 {
            halves!(self, |x| {
                let zeros = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
                let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(zeros, zeros));
                _mm256_cvtph_ps(_mm256_castsi256_si128(halves))
            })
        }

        #[inline(always)]
        fn store_low_halves(self, [a, b]: Self::Bytes, to: &mut [u8; 2 * WIDTH]) {
            // SAFETY: `self` proves the instructions; the array is as long as what is written.
            unsafe {
                let low = _mm256_set1_epi32(0xffff);
                let halves = _mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
                let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(halves);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
            }
        }

        #[inline(always)]
        fn byte(self, x: Self::Bytes, which: u32) -> Self::F32 {
            let x = self.shift_right(x, 8 * which);
            halves!(self, |x| _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xff))))
        }

        #[inline(always)]
        fn to_f32(self, x: Self::I32) -> Self::F32 {
            halves!(self, |x| _mm256_cvtepi32_ps(x))
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::F32 {
            [intrinsic!(self, _mm256_set1_ps(x)); 2]
        }

        #[inline(always)]
        fn load_f32(self, x: &[f32; WIDTH]) -> Self::F32 {
            let x = x.as_ptr();
            // SAFETY: `self` proves the instructions; the array is as long as what is read.
            unsafe { [_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))] }
        }

        #[inline(always)]
        fn load_f16(self, x: &[f16; WIDTH]) -> Self::F32 {
            let x = x.as_ptr().cast::<__m128i>();
            // SAFETY: `self` proves the instructions; the array is as long as what is read.
            unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))] }
        }

        #[inline(always)]
        fn load_i8(self, x: &[i8; WIDTH]) -> Self::F32 {
            let x = x.as_ptr();
            // SAFETY: `self` proves the instructions; the array is as long as what is read.
            let x = unsafe { [_mm_loadl_epi64(x.cast()), _mm_loadl_epi64(x.add(8).cast())] };
            halves!(self, |x| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)))
        }

        #[inline(always)]
        fn store_f32(self, x: Self::F32, to: &mut [f32; WIDTH]) {
            for (i, x) in x.into_iter().enumerate() {
                // SAFETY: `self` proves the instructions; the array is as long as what is written.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(8 * i), x) };
            }
        }

        #[inline(always)]
        fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            halves!(self, |a, b| _mm256_mul_ps(a, b))
        }

        #[inline(always)]
        fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
            halves!(self, |a, b, c| _mm256_fmadd_ps(a, b, c))
        }
    };
}

impl Isa for Avx2 {
    call_with!(Avx2, "avx2,fma,f16c");
    common!();

    /// `maddubs` adds pairs of products in 16 bits, with saturation. So small weights are multiplied as they are and
    /// others as signed numbers, of which a pair is at most 2 * 128 * 127. Of small ones several pairs are added before
    /// they are widened: two of 63 are 4 * 63 * 127, four of 31 are 8 * 31 * 127, eight of 15 are 16 * 15 * 127.
    #[inline(always)]
    fn products<const M: usize, const P: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; P]; M] {
        match range {
            ByteRange::Small(0..=15) => self.small_products(8, fours, columns, start),
            // With more rows the registers do not hold their sums in 16 bits beside those in 32.
            ByteRange::Small(16..=31) if M <= 2 => self.small_products(4, fours, columns, start),
            ByteRange::Small(_) => self.small_products(2, fours, columns, start),
            ByteRange::Signed => self.signed_products(fours, columns),
        }
    }
}

impl Isa for AvxVnni {
    call_with!(AvxVnni, "avx2,fma,f16c,avxvnni");
    common!();

    #[inline(always)]
    fn products<const M: usize, const P: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; P]; M] {
        // SAFETY: `self` proves the instructions; there are no pointers.
        unsafe {
            let more = _mm256_set1_epi8(-128);
            let mut sums = [[[more; 2]; P]; M];
            for m in 0..M {
                sums[m] = [[_mm256_set1_epi32(start[m]); 2]; P];
            }
            for j in 0..fours {
                let mut weights = [[more; 2]; P];
                for p in 0..P {
                    let [low, high] = columns.weights(p, j);
                    weights[p] = match range {
                        ByteRange::Signed => [_mm256_xor_si256(low, more), _mm256_xor_si256(high, more)],
                        ByteRange::Small(_) => [low, high],
                    };
                }
                for m in 0..M {
                    let x = self.0.broadcast(columns.activations(m, j));
                    for p in 0..P {
                        let ([low, high], [low_sum, high_sum]) = (weights[p], sums[m][p]);
                        sums[m][p] = [
                            _mm256_dpbusd_avx_epi32(low_sum, low, x),
                            _mm256_dpbusd_avx_epi32(high_sum, high, x),
                        ];
                    }
                }
            }
            sums
        }
    }
}
