//! Products of bytes: in 16 bits, with dot products, with products of small matrices. (The instructions of the latter two are
//! written out: the intrinsics are not stable yet.)

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use crate::forward::cpu::kernels::isa::traits::FourColumns;
use crate::simd::neon;

/// Products in 16 bits, which are added in pairs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widening(());

/// The proof that the processor has the instructions dotprod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DotProducts(());

/// The proof that the processor has the instructions i8mm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatrixProducts(());

/// Sixteen bytes from the `i`-th on of an array.
#[inline(always)]
pub(super) fn sixteen<const N: usize>(x: &[u8; N], i: usize) -> uint8x16_t {
    let bytes: &[u8] = &x[i..i + 16];
    // SAFETY: NEON is there; the slice is as long as what is read.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// The four numbers of four columns each, from column `4 * four` on.
#[inline(always)]
fn activations<const J: usize>(row: &[[i8; 4]; J], four: usize) -> int8x16_t {
    let numbers: &[i8] = row[four..four + 4].as_flattened();
    // SAFETY: NEON is there; the slice is as long as what is read.
    unsafe { vld1q_s8(numbers.as_ptr()) }
}

/// The weights as signed numbers.
#[inline(always)]
fn signed<const MAX: u8>(x: uint8x16_t) -> int8x16_t {
    neon!(vreinterpretq_s8_u8(if MAX > 127 { veorq_u8(x, vdupq_n_u8(128)) } else { x }))
}

impl Widening {
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl DotProducts {
    pub(super) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }
}

impl MatrixProducts {
    pub(super) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("i8mm").then_some(Self(()))
    }
}

/// `sum` plus, for each of four rows, the products of its four bytes with the same four of `x`.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot<const LANE: usize>(mut sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the function is for processors that have the instruction; it reads and writes nothing but the registers.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) sum, in(vreg) weights, in(vreg) x,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// As [`sdot`], with unsigned weights.
#[inline]
#[target_feature(enable = "i8mm")]
fn usdot<const LANE: usize>(mut sum: int32x4_t, weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!("usdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) sum, in(vreg) weights, in(vreg) x,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum` plus the products of two rows of eight weights with two of eight numbers: first row with first, first with second,
/// and so on.
#[inline]
#[target_feature(enable = "i8mm")]
fn usmmla(mut sum: int32x4_t, weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!("usmmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Sixteen sums, one for each row of a panel.
pub(crate) type Sums = [int32x4_t; 4];

/// [`Isa::products`], and how many rows are best multiplied together.
pub(crate) trait Products: Copy {
    const ROWS: usize;

    fn products<const J: usize, const M: usize, const MAX: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Sums; M];
}

impl Products for Widening {
    const ROWS: usize = 4;

    /// As many products are added in 16 bits as cannot overflow: two of 128, four of 63, eight of 31, each times 127.
    #[inline(always)]
    fn products<const J: usize, const M: usize, const MAX: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Sums; M] {
        let together = match MAX {
            0..=31 => 8,
            32..=63 => 4,
            _ => 2,
        };
        // SAFETY: every 64-bit Arm processor has NEON, and there are no pointers.
        unsafe {
            let mut sums = start.map(|start| [vdupq_n_s32(if MAX > 127 { 0 } else { start }); 4]);
            // Four rows at a time, so that the sums of all `rows` stay in registers.
            for quarter in 0..4 {
                let mut totals = [[vdupq_n_s32(0); 2]; M];
                for (n, weights) in weights.chunks(together).enumerate() {
                    let mut pairs = [[vdupq_n_s16(0); 2]; M];
                    for (i, weights) in weights.iter().enumerate() {
                        let weights = signed::<MAX>(sixteen(weights, 16 * quarter));
                        let weights = [vget_low_s8(weights), vget_high_s8(weights)];
                        for (pairs, row) in pairs.iter_mut().zip(rows) {
                            let x = i32::from_le_bytes(row[n * together + i].map(|x| x as u8));
                            let x = vreinterpret_s8_s32(vdup_n_s32(x));
                            *pairs = [vmlal_s8(pairs[0], weights[0], x), vmlal_s8(pairs[1], weights[1], x)];
                        }
                    }
                    for (totals, pairs) in totals.iter_mut().zip(pairs) {
                        *totals = [vpadalq_s16(totals[0], pairs[0]), vpadalq_s16(totals[1], pairs[1])];
                    }
                }
                for (sums, [low, high]) in sums.iter_mut().zip(totals) {
                    sums[quarter] = vaddq_s32(sums[quarter], vpaddq_s32(low, high));
                }
            }
            sums
        }
    }
}

/// Runs the block for four columns of the weights after the other, with their number in a constant.
macro_rules! each_lane {
    ($lane:ident, $block:block) => {
        each_lane!(@ $lane, $block, 0 1 2 3);
    };
    (@ $lane:ident, $block:block, $($number:literal)*) => {
        $({
            const $lane: usize = $number;
            $block
        })*
    };
}

impl Products for DotProducts {
    const ROWS: usize = 4;

    #[inline(always)]
    fn products<const J: usize, const M: usize, const MAX: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Sums; M] {
        const { assert!(J.is_multiple_of(4)) };
        let mut sums = start.map(|start| [neon!(vdupq_n_s32(if MAX > 127 { 0 } else { start })); 4]);
        for (k, weights) in weights.as_chunks::<4>().0.iter().enumerate() {
            let x = rows.map(|row| activations(row, 4 * k));
            each_lane!(LANE, {
                for quarter in 0..4 {
                    let weights = signed::<MAX>(sixteen(&weights[LANE], 16 * quarter));
                    for (sums, x) in sums.iter_mut().zip(x) {
                        // SAFETY: `self` proves the instructions.
                        sums[quarter] = unsafe { sdot::<LANE>(sums[quarter], weights, x) };
                    }
                }
            });
        }
        sums
    }
}

impl Products for MatrixProducts {
    const ROWS: usize = 4;

    /// Four rows as two pairs; with fewer, to rearrange the weights costs more than it saves.
    #[inline(always)]
    fn products<const J: usize, const M: usize, const MAX: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Sums; M] {
        const { assert!(J.is_multiple_of(4)) };
        let mut sums = start.map(|start| [neon!(vdupq_n_s32(start)); 4]);
        if M != 4 {
            for (k, weights) in weights.as_chunks::<4>().0.iter().enumerate() {
                let x = rows.map(|row| activations(row, 4 * k));
                each_lane!(LANE, {
                    for quarter in 0..4 {
                        let weights = sixteen(&weights[LANE], 16 * quarter);
                        for (sums, x) in sums.iter_mut().zip(x) {
                            // SAFETY: `self` proves the instructions.
                            sums[quarter] = unsafe { usdot::<LANE>(sums[quarter], weights, x) };
                        }
                    }
                });
            }
            return sums;
        }
        // SAFETY: every 64-bit Arm processor has NEON, `self` proves i8mm, and there are no pointers.
        unsafe {
            // Of a pair of rows of `x`, for each two rows of the panel.
            let mut pairs = [0, 1].map(|pair| {
                let [a, b] = [0, 1].map(|i| vdupq_n_s32(start[2 * pair + i]));
                [vzip1q_s32(a, b); 8]
            });
            for (k, weights) in weights.as_chunks::<4>().0.iter().enumerate() {
                let x = rows.map(|row| vreinterpretq_s64_s8(activations(row, 4 * k)));
                for (half, weights) in weights.as_chunks::<2>().0.iter().enumerate() {
                    let x = [0, 1].map(|pair| {
                        let (a, b) = (x[2 * pair], x[2 * pair + 1]);
                        vreinterpretq_s8_s64(if half == 0 { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) })
                    });
                    for quarter in 0..4 {
                        let [a, b] = [0, 1].map(|j| vreinterpretq_u32_u8(sixteen(&weights[j], 16 * quarter)));
                        let [first, second] =
                            [vzip1q_u32(a, b), vzip2q_u32(a, b)].map(|x| vreinterpretq_u8_u32(x));
                        for (sums, x) in pairs.iter_mut().zip(x) {
                            for (sum, weights) in sums[2 * quarter..].iter_mut().zip([first, second]) {
                                *sum = usmmla(*sum, weights, x);
                            }
                        }
                    }
                }
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let pairs = &pairs[row / 2];
                for (quarter, sum) in sums.iter_mut().enumerate() {
                    let (a, b) = (pairs[2 * quarter], pairs[2 * quarter + 1]);
                    *sum = if row % 2 == 0 { vuzp1q_s32(a, b) } else { vuzp2q_s32(a, b) };
                }
            }
            sums
        }
    }
}
