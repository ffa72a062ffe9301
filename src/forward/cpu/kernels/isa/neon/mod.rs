//! NEON, which every 64-bit Arm processor has: sixteen rows are four registers. How bytes are multiplied depends on what else
//! there is: nothing ([`Widening`]), `sdot` ([`DotProducts`]) or the products of small matrices of i8mm ([`MatrixProducts`]).

use std::arch::aarch64::*;

use half::f16;

use self::products::{DotProducts, MatrixProducts, Products, Sums, Widening, quarters, sixteen};
use super::rows::check_rows;
use super::traits::{ByteRange, Columns, FourColumns, Isa, Task, WIDTH, WithIsa};
use crate::simd::{neon, widen_f16};

mod products;

/// The proof that the processor has NEON, and what `P` proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<P>(P);

/// One of the three.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyNeon {
    I8mm(Neon<MatrixProducts>),
    Dotprod(Neon<DotProducts>),
    Plain(Neon<Widening>),
}

impl AnyNeon {
    /// All that this processor has, best first.
    pub(super) fn all() -> [Option<Self>; 3] {
        [
            MatrixProducts::detect().map(|p| Self::I8mm(Neon(p))),
            DotProducts::detect().map(|p| Self::Dotprod(Neon(p))),
            Some(Self::Plain(Neon(Widening::new()))),
        ]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::I8mm(_) => "NEON i8mm",
            Self::Dotprod(_) => "NEON dotprod",
            Self::Plain(_) => "NEON",
        }
    }

    pub(super) fn run(self, task: impl WithIsa) {
        #[target_feature(enable = "dotprod,i8mm")]
        fn with_i8mm(isa: Neon<MatrixProducts>, task: impl WithIsa) {
            task.run(isa);
        }
        #[target_feature(enable = "dotprod")]
        fn with_dotprod(isa: Neon<DotProducts>, task: impl WithIsa) {
            task.run(isa);
        }
        match self {
            // SAFETY: `isa` proves that the processor has the instructions.
            Self::I8mm(isa) => unsafe { with_i8mm(isa, task) },
            // SAFETY: as above.
            Self::Dotprod(isa) => unsafe { with_dotprod(isa, task) },
            Self::Plain(isa) => task.run(isa),
        }
    }
}

/// As [`quarters`], of two.
#[inline(always)]
fn both<T: Copy, U>(a: [T; 4], b: [T; 4], f: impl Fn(T, T) -> U) -> [U; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// The sums of M rows with each of N panels. (No function of a closure: that would not be compiled for `sdot` and `smmla`.)
macro_rules! of_panels {
    (|$panel:ident| $products:expr) => {{
        let mut all = [[[neon!(vdupq_n_s32(0)); 4]; N]; M];
        for $panel in 0..N {
            let sums = $products;
            for m in 0..M {
                all[m][$panel] = sums[m];
            }
        }
        all
    }};
}

impl<P: Products> Isa for Neon<P> {
    const REGISTERS: usize = 8;
    const ROWS: usize = 4;
    const PANELS: usize = 1;
    const PAIRS: bool = P::PAIRS;

    #[inline(always)]
    fn call(self, task: impl Task<Self>) {
        self.0.call(self, task);
    }

    type Bytes = [uint8x16_t; 4];
    type I32 = Sums;
    type F32 = [float32x4_t; 4];

    #[inline(always)]
    fn load(self, x: &FourColumns) -> Self::Bytes {
        [sixteen(x, 0), sixteen(x, 16), sixteen(x, 32), sixteen(x, 48)]
    }

    #[inline(always)]
    fn store(self, x: Self::Bytes, to: &mut FourColumns) {
        let to = to.as_chunks_mut::<16>().0;
        for i in 0..4 {
            // SAFETY: NEON is there; the array is as long as what is written.
            unsafe { vst1q_u8(to[i].as_mut_ptr(), x[i]) };
        }
    }

    #[inline(always)]
    fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4] {
        check_rows(rows, stride);
        let mut to = [[self.splat_byte(0)[0]; 4]; 4];
        for quarter in 0..4 {
            let row = |i: usize| {
                // SAFETY: every 64-bit Arm processor has NEON; the last row's sixteen bytes end within the slice.
                unsafe { vreinterpretq_u32_u8(vld1q_u8(rows.as_ptr().add((4 * quarter + i) * stride))) }
            };
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            // Columns 0 to 3 and 8 to 11 of two rows, then the others.
            let wide = |x| neon!(vreinterpretq_u64_u32(x));
            let even = [wide(neon!(vtrn1q_u32(a, b))), wide(neon!(vtrn1q_u32(c, d)))];
            let odd = [wide(neon!(vtrn2q_u32(a, b))), wide(neon!(vtrn2q_u32(c, d)))];
            let bytes = |x| neon!(vreinterpretq_u8_u64(x));
            to[0][quarter] = bytes(neon!(vtrn1q_u64(even[0], even[1])));
            to[1][quarter] = bytes(neon!(vtrn1q_u64(odd[0], odd[1])));
            to[2][quarter] = bytes(neon!(vtrn2q_u64(even[0], even[1])));
            to[3][quarter] = bytes(neon!(vtrn2q_u64(odd[0], odd[1])));
        }
        to
    }

    #[inline(always)]
    fn splat_byte(self, x: u8) -> Self::Bytes {
        [neon!(vdupq_n_u8(x)); 4]
    }

    #[inline(always)]
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        both(a, b, |a, b| neon!(vandq_u8(a, b)))
    }

    #[inline(always)]
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        both(a, b, |a, b| neon!(vorrq_u8(a, b)))
    }

    #[inline(always)]
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        both(a, b, |a, b| neon!(vaddq_u8(a, b)))
    }

    #[inline(always)]
    fn shift_left(self, x: Self::Bytes, by: u32) -> Self::Bytes {
        let shifted =
            |x| neon!(vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(x), vdupq_n_s32(by as i32))));
        [shifted(x[0]), shifted(x[1]), shifted(x[2]), shifted(x[3])]
    }

    #[inline(always)]
    fn shift_right(self, x: Self::Bytes, by: u32) -> Self::Bytes {
        let by = -(by as i32);
        let shifted = |x| neon!(vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(x), vdupq_n_s32(by))));
        [shifted(x[0]), shifted(x[1]), shifted(x[2]), shifted(x[3])]
    }

    #[inline(always)]
    fn nibbles(self, x: Self::Bytes, high: bool) -> Self::Bytes {
        let nibbles = |x| if high { neon!(vshrq_n_u8::<4>(x)) } else { neon!(vandq_u8(x, vdupq_n_u8(15))) };
        [nibbles(x[0]), nibbles(x[1]), nibbles(x[2]), nibbles(x[3])]
    }

    #[inline(always)]
    fn join_nibbles(self, low: Self::Bytes, high: Self::Bytes) -> Self::Bytes {
        both(low, high, |low, high| neon!(vsliq_n_u8::<4>(low, high)))
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], x: Self::Bytes) -> Self::Bytes {
        // SAFETY: NEON is there; the array is as long as what is read.
        let table = unsafe { vreinterpretq_u8_s8(vld1q_s8(table.as_ptr())) };
        quarters(x, |x| neon!(vqtbl1q_u8(table, x)))
    }

    #[inline(always)]
    fn bits(self, x: Self::Bytes, four: usize) -> Self::Bytes {
        /// The index of the first byte of each row, four times; a mask of one of four bits in each byte.
        const FIRST: [u8; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12];
        const BITS: [u8; 4] = [1, 2, 4, 8];
        // SAFETY: every 64-bit Arm processor has NEON, and there are no pointers.
        unsafe {
            // In each byte: the byte that has its bit, and a mask of that bit.
            let byte = vaddq_u8(sixteen(&FIRST, 0), vdupq_n_u8((four / 2) as u8));
            let bits = u32::from_le_bytes(BITS) << (4 * (four % 2));
            let bits = vreinterpretq_u8_u32(vdupq_n_u32(bits));
            quarters(x, |x| vtstq_u8(vqtbl1q_u8(x, byte), bits))
        }
    }

    #[inline(always)]
    fn low_f16(self, x: Self::Bytes) -> Self::F32 {
        quarters(x, |x| widen_f16(neon!(vmovn_u32(vreinterpretq_u32_u8(x)))))
    }

    #[inline(always)]
    fn store_low_halves(self, x: Self::Bytes, to: &mut [u8; 2 * WIDTH]) {
        let to = to.as_chunks_mut::<8>().0;
        for i in 0..4 {
            let halves = neon!(vreinterpret_u8_u16(vmovn_u32(vreinterpretq_u32_u8(x[i]))));
            // SAFETY: NEON is there; the array is as long as what is written.
            unsafe { vst1_u8(to[i].as_mut_ptr(), halves) };
        }
    }

    #[inline(always)]
    fn byte(self, x: Self::Bytes, which: u32) -> Self::F32 {
        // The conversion divides by a power of two.
        let byte = |x| {
            let masked = |x, mask| neon!(vandq_u32(vreinterpretq_u32_u8(x), vdupq_n_u32(mask)));
            match which {
                0 => neon!(vcvtq_f32_u32(masked(x, 0xff))),
                1 => neon!(vcvtq_n_f32_u32::<8>(masked(x, 0xff00))),
                2 => neon!(vcvtq_n_f32_u32::<16>(masked(x, 0xff_0000))),
                _ => neon!(vcvtq_n_f32_u32::<24>(masked(x, 0xff00_0000))),
            }
        };
        [byte(x[0]), byte(x[1]), byte(x[2]), byte(x[3])]
    }

    #[inline(always)]
    fn products<const M: usize, const N: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; N]; M] {
        let x = |m, i| columns.activations(m, i);
        of_panels!(|panel| self.0.products::<M>(range, fours, |i| columns.weights(panel, i), &x, start))
    }

    #[inline(always)]
    fn pair(self, a: Self::Bytes, b: Self::Bytes) -> [Self::Bytes; 2] {
        self.0.pair(a, b)
    }

    #[inline(always)]
    fn products_of_pairs<const M: usize, const N: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; N]; M] {
        let x = |m, i| columns.activations(m, i);
        of_panels!(|panel| self.0.products_of_pairs::<M>(
            range,
            fours,
            |i| columns.weights(panel, i),
            &x,
            start
        ))
    }

    #[inline(always)]
    fn to_f32(self, x: Self::I32) -> Self::F32 {
        quarters(x, |x| neon!(vcvtq_f32_s32(x)))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [neon!(vdupq_n_f32(x)); 4]
    }

    #[inline(always)]
    fn load_f32(self, x: &[f32; WIDTH]) -> Self::F32 {
        // SAFETY: NEON is there; the array is as long as what is read.
        quarters([0, 4, 8, 12], |i| unsafe { vld1q_f32(x.as_ptr().add(i)) })
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; WIDTH]) -> Self::F32 {
        // SAFETY: NEON is there; the array is as long as what is read, and an f16 is its 16 bits.
        quarters([0, 4, 8, 12], |i| widen_f16(unsafe { vld1_u16(x.as_ptr().cast::<u16>().add(i)) }))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; WIDTH]) -> Self::F32 {
        // SAFETY: NEON is there; the array is as long as what is read.
        unsafe {
            let x = vld1q_s8(x.as_ptr());
            let [low, high] = [vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x)];
            let halves = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
            quarters(halves, |x| vcvtq_f32_s32(vmovl_s16(x)))
        }
    }

    #[inline(always)]
    fn store_f32(self, x: Self::F32, to: &mut [f32; WIDTH]) {
        let to = to.as_chunks_mut::<4>().0;
        for i in 0..4 {
            // SAFETY: NEON is there; the array is as long as what is written.
            unsafe { vst1q_f32(to[i].as_mut_ptr(), x[i]) };
        }
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both(a, b, |a, b| neon!(vmulq_f32(a, b)))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        let mut sums = c;
        for i in 0..4 {
            sums[i] = neon!(vfmaq_f32(c[i], a[i], b[i]));
        }
        sums
    }
}
