//! Vectors of eight single-precision numbers: AVX2, NEON on 64-bit Arm, otherwise arrays, which the compiler vectorizes.
//! Also what all code depends on: the rounding of the thread ([`floats`]), the instructions of the processor ([`processor`]).
//!
//! Builds for processors without AVX2 have the functions that use them twice, and choose when they run ([`wide`]); so do
//! the products and attention of the CPU runner, between more instruction sets (`forward/cpu/kernels/isa`).
#![allow(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "arrays of LANES numbers, by indices below LANES")]

/// Lanes of a vector.
pub(crate) const LANES: usize = 8;

#[cfg(target_arch = "x86_64")]
mod avx2;
mod eight;
mod floats;
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod neon;
// Tests compare it with the others.
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
#[cfg_attr(test, allow(dead_code, reason = "tests compare it with the others"))]
mod portable;
mod prefetch;
mod processor;
mod wide;

/// For processors that have more than the build asks for: what [`wide`] takes once it has looked.
#[cfg(all(
    target_arch = "x86_64",
    not(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))
))]
pub(crate) use avx2::Eight as Avx2;
/// The vectors of every processor that the build is for.
#[cfg(all(
    target_arch = "x86_64",
    target_feature = "avx2",
    target_feature = "fma",
    target_feature = "f16c"
))]
pub(crate) use avx2::Eight as Native;
pub(crate) use eight::F32x8;
pub(crate) use floats::DefaultFloats;
#[cfg(all(target_arch = "aarch64", not(miri)))]
pub(crate) use neon::Eight as Native;
#[cfg(all(target_arch = "aarch64", not(miri)))]
pub(crate) use neon::{neon, widen_f16};
#[cfg(not(any(
    all(target_arch = "x86_64", target_feature = "avx2", target_feature = "fma", target_feature = "f16c"),
    all(target_arch = "aarch64", not(miri))
)))]
pub(crate) use portable::Eight as Native;
pub(crate) use prefetch::{prefetch, prefetch_to_l2};
pub use processor::missing_instructions;
#[cfg(feature = "capi")]
pub(crate) use processor::missing_message;
pub(crate) use processor::{check_processor, compiled_instructions, processor_instructions};
#[cfg(all(
    target_arch = "x86_64",
    not(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))
))]
pub(crate) use wide::has_wide;
pub(crate) use wide::wide;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        let exp = |x: f32| {
            let mut out = [0.0; LANES];
            Native::splat(x).exp().store(&mut out);
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
        ($eight:ty, $bytes:expr, $numbers:expr) => {{
            type Eight = $eight;
            let mut results = Vec::new();
            let numbers: &[f32; 16] = $numbers;
            let [x, y] = [0, 1].map(|i| Eight::load(&numbers.as_chunks::<8>().0[i]));
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
            let (low, high) = Eight::load_nibbles(bytes);
            for z in [Eight::load_i8(bytes), Eight::load_u8(bytes), low, high] {
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
            let expected = results!(portable::Eight, &bytes, &numbers);
            assert_eq!(results!(Native, &bytes, &numbers), expected);
            #[cfg(all(
                target_arch = "x86_64",
                not(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))
            ))]
            if has_wide() {
                assert_eq!(results!(Avx2, &bytes, &numbers), expected);
            }
        }
    }
}
