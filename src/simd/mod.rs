//! Vectors of eight single-precision numbers: AVX2 if the build has it, NEON on 64-bit Arm, otherwise arrays, which the
//! compiler vectorizes.
//! Also what all code depends on: the rounding of the thread ([`floats`]), the instructions of the processor ([`processor`]).
//!
//! Builds for processors without AVX2 have the functions that use them twice, and choose when they run ([`wide`]); so do
//! the products and attention of the CPU runner, between more instruction sets (`forward/cpu/kernels/isa`).
#![allow(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "arrays of LANES numbers, by indices below LANES")]

/// Lanes of a vector.
pub(crate) const LANES: usize = 8;

#[cfg(all(target_arch = "x86_64", target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))]
mod avx2;
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod neon;
// Tests compare the two.
#[cfg(any(
    test,
    not(any(
        all(
            target_arch = "x86_64",
            target_feature = "avx2",
            target_feature = "fma",
            target_feature = "f16c"
        ),
        all(target_arch = "aarch64", not(miri))
    ))
))]
#[cfg_attr(test, allow(dead_code, reason = "tests compare the two"))]
mod portable;

#[cfg(all(
    target_arch = "x86_64",
    target_feature = "avx2",
    target_feature = "fma",
    target_feature = "f16c"
))]
use avx2 as lanes;
#[cfg(all(target_arch = "aarch64", not(miri)))]
use neon as lanes;
#[cfg(not(any(
    all(target_arch = "x86_64", target_feature = "avx2", target_feature = "fma", target_feature = "f16c"),
    all(target_arch = "aarch64", not(miri))
)))]
use portable as lanes;

mod floats;
mod prefetch;
mod processor;
mod wide;

pub(crate) use floats::DefaultFloats;
pub(crate) use lanes::F32x8;
#[cfg(all(target_arch = "aarch64", not(miri)))]
pub(crate) use neon::{neon, widen_f16};
pub(crate) use prefetch::{prefetch, prefetch_to_l2};
pub use processor::missing_instructions;
#[cfg(feature = "capi")]
pub(crate) use processor::missing_message;
pub(crate) use processor::{check_processor, compiled_instructions, processor_instructions};
#[cfg(all(target_arch = "x86_64", not(target_feature = "avx2")))]
pub(crate) use wide::has_wide;
pub(crate) use wide::wide;

impl F32x8 {
    #[inline(always)]
    pub(crate) fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The sum of all lanes.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        Self::sums([self, Self::zero(), Self::zero(), Self::zero()])[0]
    }

    /// e^x of numbers up to 0, within 2 units in the last place; 0 below -87.7. (Cephes' polynomial.)
    #[inline(always)]
    pub(crate) fn exp(self) -> Self {
        /// 1.5 * 2^23: adding it rounds to an integer, which is then in the lowest bits.
        const MAGIC: f32 = 12_582_912.0;
        const SERIES: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
        // A NaN stays one. From -88 down, the result is 0: all bits of its exponent are.
        let x = Self::splat(-88.0).max(self);
        let shifted = x.mul_add(Self::splat(std::f32::consts::LOG2_E), Self::splat(MAGIC));
        let n = shifted.sub(Self::splat(MAGIC));
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        // (Loops rather than closures in what `wide` functions call: see `portable`.)
        let mut series = Self::splat(1.987_569_1e-4);
        for c in SERIES {
            series = series.mul_add(r, Self::splat(c));
        }
        let value = series.mul_add(r.mul(r), r).add(Self::splat(1.0));
        value.mul(shifted.power_of_two())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        let exp = |x: f32| {
            let mut out = [0.0; LANES];
            F32x8::splat(x).exp().store(&mut out);
            out[3]
        };
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let ulp = f64::from((exact as f32).next_up() - exact as f32);
            assert!((f64::from(exp(x)) - exact).abs() <= 2.0 * ulp, "{x}: {} {exact}", exp(x));
        }
        for x in [-90.0, -1e4, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    /// The results of all operations whose rounding is specified.
    macro_rules! results {
        ($lanes:ident, $bytes:expr, $numbers:expr) => {{
            use super::$lanes::F32x8;
            let mut results = Vec::new();
            let numbers: &[f32; 16] = $numbers;
            let [x, y] = [0, 1].map(|i| F32x8::load(&numbers.as_chunks::<8>().0[i]));
            for z in [x.add(y), x.sub(y), x.mul(y), x.div(y), x.max(y), x.min(y), x.abs(), x.above(y)] {
                let mut out = [0.0; 8];
                z.store(&mut out);
                results.extend(out);
                x.or_where_negative(y, z).store(&mut out);
                results.extend(out);
                results.extend([f32::from(u8::from(x.differs(z))), z.largest()]);
            }
            results.extend(x.nearest().bytes().map(f32::from));
            let bytes: &[u8; 8] = $bytes;
            let (low, high) = F32x8::load_nibbles(bytes);
            for z in [F32x8::load_i8(bytes), F32x8::load_u8(bytes), low, high] {
                let mut out = [0.0; 8];
                z.store(&mut out);
                results.extend(out);
            }
            results.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        }};
    }

    #[test]
    fn native_vectors_match_portable_vectors() {
        let mut rng = crate::rng::Rng::new(1, 0, crate::rng::Purpose::Token);
        for _ in 0..if cfg!(miri) { 20 } else { 1000 } {
            // Some are halves, which round to even.
            let numbers: [f32; 16] = std::array::from_fn(|_| rng.below(509) as f32 / 2.0 - 127.0);
            let bytes: [u8; 8] = std::array::from_fn(|_| rng.below(256) as u8);
            assert_eq!(results!(lanes, &bytes, &numbers), results!(portable, &bytes, &numbers));
        }
    }
}
