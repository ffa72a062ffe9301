//! With NEON, which every 64-bit Arm processor has. The same bits as with AVX2.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::F32x8;

/// Eight single-precision numbers.
#[derive(Clone, Copy)]
pub(crate) struct Eight([float32x4_t; 2]);

/// Calls intrinsics that take no pointers.
macro_rules! neon {
    ($call:expr) => {{
        // SAFETY: every 64-bit Arm processor has NEON, and there are no pointers.
        unsafe { $call }
    }};
}
pub(crate) use neon;

/// Four numbers in half precision as single-precision ones. (The intrinsic is younger than the oldest Rust that builds this.)
#[inline(always)]
pub(crate) fn widen_f16(x: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: every 64-bit Arm processor has the instruction; it reads and writes nothing but the registers.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Four numbers in half precision. (As above.)
#[inline(always)]
fn narrow_to_f16(x: float32x4_t) -> uint16x4_t {
    let narrow;
    // SAFETY: every 64-bit Arm processor has the instruction; it reads and writes nothing but the registers.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) narrow, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    narrow
}

impl Eight {
    #[inline(always)]
    fn each(self, f: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Self([f(self.0[0]), f(self.0[1])])
    }

    #[inline(always)]
    fn both(self, b: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self([f(self.0[0], b.0[0]), f(self.0[1], b.0[1])])
    }

    /// Eight 16-bit integers.
    #[inline(always)]
    fn of_u16(x: uint16x8_t) -> Self {
        Self([
            neon!(vcvtq_f32_u32(vmovl_u16(vget_low_u16(x)))),
            neon!(vcvtq_f32_u32(vmovl_u16(vget_high_u16(x)))),
        ])
    }
}

impl F32x8 for Eight {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([neon!(vdupq_n_f32(x)); 2])
    }

    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        // SAFETY: the build has the instructions; the array is as long as what is read.
        Self(unsafe { [vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))] })
    }

    #[inline(always)]
    fn load_bytes(x: &[u8; 32]) -> Self {
        // SAFETY: the build has the instructions, and is little-endian; the array is as long as what is read.
        let [low, high] = unsafe { [vld1q_u8(x.as_ptr()), vld1q_u8(x.as_ptr().add(16))] };
        Self([neon!(vreinterpretq_f32_u8(low)), neon!(vreinterpretq_f32_u8(high))])
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 8]) {
        // SAFETY: the build has the instructions; the array is as long as what is written.
        unsafe {
            vst1q_f32(to.as_mut_ptr(), self.0[0]);
            vst1q_f32(to.as_mut_ptr().add(4), self.0[1]);
        }
    }

    #[inline(always)]
    fn halves(self) -> [f16; 8] {
        let [low, high] = self.0.map(narrow_to_f16);
        let mut to = [f16::ZERO; 8];
        // SAFETY: the build has the instructions; the array is as long as what is written, and any bits are numbers.
        unsafe { vst1q_u16(to.as_mut_ptr().cast(), vcombine_u16(low, high)) };
        to
    }

    #[inline(always)]
    fn load_f16_bytes(x: &[u8; 16]) -> Self {
        // SAFETY: the build has the instructions, and is little-endian; the array is as long as what is read.
        let x = unsafe { vreinterpretq_u16_u8(vld1q_u8(x.as_ptr())) };
        Self([widen_f16(neon!(vget_low_u16(x))), widen_f16(neon!(vget_high_u16(x)))])
    }

    #[inline(always)]
    fn load_bf16_bytes(x: &[u8; 16]) -> Self {
        // SAFETY: the build has the instructions, and is little-endian; the array is as long as what is read.
        let x = unsafe { vreinterpretq_u16_u8(vld1q_u8(x.as_ptr())) };
        Self([
            neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(x)))),
            neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(x)))),
        ])
    }

    #[inline(always)]
    fn load_i8(x: &[u8; 8]) -> Self {
        // SAFETY: the build has the instructions; the array is as long as what is read.
        let x = unsafe { vmovl_s8(vld1_s8(x.as_ptr().cast())) };
        Self([
            neon!(vcvtq_f32_s32(vmovl_s16(vget_low_s16(x)))),
            neon!(vcvtq_f32_s32(vmovl_s16(vget_high_s16(x)))),
        ])
    }

    #[inline(always)]
    fn load_u8(x: &[u8; 8]) -> Self {
        // SAFETY: the build has the instructions; the array is as long as what is read.
        Self::of_u16(unsafe { vmovl_u8(vld1_u8(x.as_ptr())) })
    }

    #[inline(always)]
    fn load_nibbles(x: &[u8; 8]) -> (Self, Self) {
        // SAFETY: the build has the instructions; the array is as long as what is read.
        let x = unsafe { vld1_u8(x.as_ptr()) };
        let low = neon!(vmovl_u8(vand_u8(x, vdup_n_u8(15))));
        let high = neon!(vmovl_u8(vshr_n_u8::<4>(x)));
        (Self::of_u16(low), Self::of_u16(high))
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.both(b, |a, b| neon!(vaddq_f32(a, b)))
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.both(b, |a, b| neon!(vmulq_f32(a, b)))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self([neon!(vfmaq_f32(c.0[0], self.0[0], b.0[0])), neon!(vfmaq_f32(c.0[1], self.0[1], b.0[1]))])
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        neon!(vmaxnmvq_f32(vmaxnmq_f32(self.0[0], self.0[1])))
    }

    #[inline(always)]
    fn sums(x: [Self; 4]) -> [f32; 4] {
        let mut out = [0.0; 4];
        // SAFETY: the build has the instructions; the array is as long as what is written.
        unsafe {
            let pairs = |x: Self| vpaddq_f32(x.0[0], x.0[1]);
            let [ab, cd] = [vpaddq_f32(pairs(x[0]), pairs(x[1])), vpaddq_f32(pairs(x[2]), pairs(x[3]))];
            vst1q_f32(out.as_mut_ptr(), vpaddq_f32(ab, cd));
        }
        out
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.both(b, |a, b| neon!(vsubq_f32(a, b)))
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        self.each(|x| neon!(vrndnq_f32(x)))
    }

    #[inline(always)]
    fn bytes(self) -> [i8; 8] {
        let mut to = [0; 8];
        // SAFETY: the build has the instructions; the array is as long as what is written.
        unsafe {
            let half = |x| vqmovn_s32(vcvtnq_s32_f32(x));
            vst1_s8(to.as_mut_ptr(), vqmovn_s16(vcombine_s16(half(self.0[0]), half(self.0[1]))));
        }
        to
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.both(b, |a, b| neon!(vbslq_f32(vcgtq_f32(a, b), a, b)))
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.both(b, |a, b| neon!(vbslq_f32(vcltq_f32(a, b), a, b)))
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.both(b, |a, b| neon!(vdivq_f32(a, b)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.each(|x| neon!(vabsq_f32(x)))
    }

    #[inline(always)]
    fn above(self, limit: Self) -> Self {
        self.both(limit, |x, limit| {
            neon!(vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vcleq_f32(x, limit))))
        })
    }

    #[inline(always)]
    fn differs(self, b: Self) -> bool {
        {
            let equal = neon!(vandq_u32(vceqq_f32(self.0[0], b.0[0]), vceqq_f32(self.0[1], b.0[1])));
            neon!(vminvq_u32(equal)) == 0
        }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.each(|x| {
            let exponent = neon!(vaddq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(127)));
            neon!(vreinterpretq_f32_u32(vshlq_n_u32::<23>(exponent)))
        })
    }

    #[inline(always)]
    fn or_where_negative(self, b: Self, sign: Self) -> Self {
        let one = |i: usize| {
            let negative = neon!(vshrq_n_s32::<31>(vreinterpretq_s32_f32(sign.0[i])));
            neon!(vbslq_f32(vreinterpretq_u32_s32(negative), b.0[i], self.0[i]))
        };
        Self([one(0), one(1)])
    }
}
