//! Products of bytes: in 16 bits, with dot products, with products of small matrices. (The instructions of the latter two are
//! written out: the intrinsics are not stable yet.)

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use crate::forward::cpu::kernels::isa::traits::{ByteRange, Task};
use crate::forward::cpu::kernels::isa::unroll::each;
use crate::simd::neon;

/// Products in 16 bits, which are added in pairs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widening(());

/// The proof that the processor has the instructions dotprod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DotProducts(());

/// The proof that the processor has the instructions dotprod and i8mm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatrixProducts(());

/// Sixteen bytes from the `i`-th on of an array.
#[inline(always)]
pub(super) fn sixteen<const N: usize>(x: &[u8; N], i: usize) -> uint8x16_t {
    let bytes: &[u8] = &x[i..i + 16];
    // SAFETY: NEON is there; the slice is as long as what is read.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// Applies `f` to each quarter of sixteen rows.
#[inline(always)]
pub(super) fn quarters<T: Copy, U>(x: [T; 4], f: impl Fn(T) -> U) -> [U; 4] {
    [f(x[0]), f(x[1]), f(x[2]), f(x[3])]
}

/// The numbers of four times four columns of row `m`, from the `four`-th on.
#[inline(always)]
fn activations(x: &impl Fn(usize, usize) -> [i8; 4], m: usize, four: usize) -> int8x16_t {
    let numbers = [x(m, four), x(m, four + 1), x(m, four + 2), x(m, four + 3)];
    // SAFETY: NEON is there; the array is as long as what is read.
    unsafe { vld1q_s8(numbers.as_flattened().as_ptr()) }
}

/// Where the sums of signed numbers begin: weights that are no unsigned numbers need no start.
#[inline(always)]
fn signed_start(range: ByteRange, start: i32) -> i32 {
    if range == ByteRange::Signed { 0 } else { start }
}

/// Bytes as signed numbers.
#[inline(always)]
fn signed(x: uint8x16_t) -> int8x16_t {
    neon!(vreinterpretq_s8_u8(x))
}

/// Sixteen rows of four columns of a panel.
type Bytes = [uint8x16_t; 4];

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
        (is_aarch64_feature_detected!("dotprod") && is_aarch64_feature_detected!("i8mm")).then_some(Self(()))
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

/// `sum` plus the products of two rows of eight weights with two of eight numbers: first row with first, first with second,
/// and so on.
#[inline]
#[target_feature(enable = "i8mm")]
fn smmla(mut sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Sixteen sums, one for each row of a panel.
pub(crate) type Sums = [int32x4_t; 4];

/// [`Isa::products`](super::Isa::products) with one panel, and [`Isa::call`](super::Isa::call).
pub(crate) trait Products: Copy {
    fn products<const M: usize>(
        self,
        range: ByteRange,
        fours: usize,
        weights: impl Fn(usize) -> Bytes,
        x: &impl Fn(usize, usize) -> [i8; 4],
        start: [i32; M],
    ) -> [Sums; M];

    fn call<I>(self, isa: I, task: impl Task<I>);

    /// [`Isa::PAIRS`](super::Isa::PAIRS), [`Isa::pair`](super::Isa::pair) and
    /// [`Isa::products_of_pairs`](super::Isa::products_of_pairs).
    const PAIRS: bool = false;

    #[inline(always)]
    fn pair(self, a: Bytes, b: Bytes) -> [Bytes; 2] {
        [a, b]
    }

    #[inline(always)]
    fn products_of_pairs<const M: usize>(
        self,
        range: ByteRange,
        fours: usize,
        weights: impl Fn(usize) -> Bytes,
        x: &impl Fn(usize, usize) -> [i8; 4],
        start: [i32; M],
    ) -> [Sums; M] {
        self.products(range, fours, weights, x, start)
    }
}

impl Products for Widening {
    #[inline(always)]
    fn call<I>(self, isa: I, task: impl Task<I>) {
        #[inline(never)]
        fn call<I>(isa: I, task: impl Task<I>) {
            task.run(isa);
        }
        call(isa, task);
    }

    /// As many products are added in 16 bits as cannot overflow: two of 128, four of 63, eight of 31, each times 127.
    #[inline(always)]
    fn products<const M: usize>(
        self,
        range: ByteRange,
        fours: usize,
        weights: impl Fn(usize) -> Bytes,
        x: &impl Fn(usize, usize) -> [i8; 4],
        start: [i32; M],
    ) -> [Sums; M] {
        let together = match range {
            ByteRange::Small(0..=31) => 8,
            ByteRange::Small(_) => 4,
            ByteRange::Signed => 2,
        };
        // SAFETY: every 64-bit Arm processor has NEON, and there are no pointers.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); 4]; M];
            for m in 0..M {
                sums[m] = [vdupq_n_s32(signed_start(range, start[m])); 4];
            }
            // Four rows at a time, so that the sums of all `rows` stay in registers.
            each!(QUARTER in 0 1 2 3, {
                let mut totals = [[vdupq_n_s32(0); 2]; M];
                let mut pairs = [[vdupq_n_s16(0); 2]; M];
                for eight in (0..fours).step_by(8) {
                    each!(I in 0 1 2 3 4 5 6 7, {
                        let i = eight + I;
                        if i < fours {
                            let weights = signed(weights(i)[QUARTER]);
                            let weights = [vget_low_s8(weights), vget_high_s8(weights)];
                            for m in 0..M {
                                let [a, b, c, d] = x(m, i);
                                let x = i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
                                let x = vreinterpret_s8_s32(vdup_n_s32(x));
                                let [low, high] = pairs[m];
                                pairs[m] = if I.is_multiple_of(together) {
                                    [vmull_s8(weights[0], x), vmull_s8(weights[1], x)]
                                } else {
                                    [vmlal_s8(low, weights[0], x), vmlal_s8(high, weights[1], x)]
                                };
                            }
                            if (I + 1).is_multiple_of(together) || i + 1 == fours {
                                for m in 0..M {
                                    let [low, high] = totals[m];
                                    totals[m] = [vpadalq_s16(low, pairs[m][0]), vpadalq_s16(high, pairs[m][1])];
                                }
                            }
                        }
                    });
                }
                for m in 0..M {
                    let [low, high] = totals[m];
                    sums[m][QUARTER] = vaddq_s32(sums[m][QUARTER], vpaddq_s32(low, high));
                }
            });
            sums
        }
    }
}

impl Products for DotProducts {
    #[inline(always)]
    fn call<I>(self, isa: I, task: impl Task<I>) {
        #[target_feature(enable = "dotprod")]
        #[inline(never)]
        fn call<I>(isa: I, task: impl Task<I>) {
            task.run(isa);
        }
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { call(isa, task) }
    }

    #[inline(always)]
    fn products<const M: usize>(
        self,
        range: ByteRange,
        fours: usize,
        weights: impl Fn(usize) -> Bytes,
        x: &impl Fn(usize, usize) -> [i8; 4],
        start: [i32; M],
    ) -> [Sums; M] {
        let mut sums = [[neon!(vdupq_n_s32(0)); 4]; M];
        for m in 0..M {
            sums[m] = [neon!(vdupq_n_s32(signed_start(range, start[m]))); 4];
        }
        // Columns come in multiples of sixteen.
        for first in (0..fours).step_by(4) {
            let mut row = [neon!(vdupq_n_s8(0)); M];
            for m in 0..M {
                row[m] = activations(x, m, first);
            }
            each!(LANE in 0 1 2 3, {
                let weights = weights(first + LANE);
                for quarter in 0..4 {
                    let weights = signed(weights[quarter]);
                    for m in 0..M {
                        // SAFETY: `self` proves the instructions.
                        sums[m][quarter] = unsafe { sdot::<LANE>(sums[m][quarter], weights, row[m]) };
                    }
                }
            });
        }
        sums
    }
}

impl Products for MatrixProducts {
    #[inline(always)]
    fn call<I>(self, isa: I, task: impl Task<I>) {
        #[target_feature(enable = "dotprod,i8mm")]
        #[inline(never)]
        fn call<I>(isa: I, task: impl Task<I>) {
            task.run(isa);
        }
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { call(isa, task) }
    }

    #[inline(always)]
    fn products<const M: usize>(
        self,
        range: ByteRange,
        fours: usize,
        weights: impl Fn(usize) -> Bytes,
        x: &impl Fn(usize, usize) -> [i8; 4],
        start: [i32; M],
    ) -> [Sums; M] {
        DotProducts(()).products(range, fours, weights, x, start)
    }

    const PAIRS: bool = true;

    /// Eight columns of each two rows together.
    #[inline(always)]
    fn pair(self, a: Bytes, b: Bytes) -> [Bytes; 2] {
        let numbers = |x| neon!(vreinterpretq_u32_u8(x));
        let (a, b) = (quarters(a, numbers), quarters(b, numbers));
        let mut to = [a; 2];
        for i in 0..4 {
            let (first, second) = (&mut to[i / 2], 2 * (i % 2));
            first[second] = neon!(vzip1q_u32(a[i], b[i]));
            first[second + 1] = neon!(vzip2q_u32(a[i], b[i]));
        }
        let bytes = |x| neon!(vreinterpretq_u8_u32(x));
        [quarters(to[0], bytes), quarters(to[1], bytes)]
    }

    /// Two rows of activations at a time; a single one is taken twice.
    #[inline(always)]
    fn products_of_pairs<const M: usize>(
        self,
        range: ByteRange,
        fours: usize,
        weights: impl Fn(usize) -> Bytes,
        x: &impl Fn(usize, usize) -> [i8; 4],
        start: [i32; M],
    ) -> [Sums; M] {
        debug_assert!(M <= 6);
        let second = |first: usize| (first + 1).min(M - 1);
        // SAFETY: every 64-bit Arm processor has NEON, `self` proves i8mm, and there are no pointers.
        unsafe {
            // For each two rows of the panel, of two rows of `x`.
            let mut pairs = [[vdupq_n_s32(0); 8]; 3];
            for pair in 0..M.div_ceil(2) {
                let start = |m: usize| vdupq_n_s32(signed_start(range, start[m]));
                pairs[pair] = [vzip1q_s32(start(2 * pair), start(second(2 * pair))); 8];
            }
            for first in (0..fours).step_by(4) {
                let mut row = [vdupq_n_s64(0); M];
                for m in 0..M {
                    row[m] = vreinterpretq_s64_s8(activations(x, m, first));
                }
                each!(HALF in 0 1, {
                    let weights = [weights(first + 2 * HALF), weights(first + 2 * HALF + 1)];
                    for pair in 0..M.div_ceil(2) {
                        let (a, b) = (row[2 * pair], row[second(2 * pair)]);
                        let x = if HALF == 0 { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) };
                        for i in 0..8 {
                            let weights = signed(weights[i / 4][i % 4]);
                            pairs[pair][i] = smmla(pairs[pair][i], weights, vreinterpretq_s8_s64(x));
                        }
                    }
                });
            }
            let mut sums = [[vdupq_n_s32(0); 4]; M];
            for m in 0..M {
                for quarter in 0..4 {
                    let (a, b) = (pairs[m / 2][2 * quarter], pairs[m / 2][2 * quarter + 1]);
                    sums[m][quarter] = if m % 2 == 0 { vuzp1q_s32(a, b) } else { vuzp2q_s32(a, b) };
                }
            }
            sums
        }
    }
}
