//! Vectors of eight single-precision numbers: AVX2, NEON on 64-bit Arm, otherwise arrays, which the compiler vectorizes.
//! Also what all code depends on: the rounding of the thread ([`floats`]), the instructions of the processor ([`processor`]).
//!
//! For x86-64 the functions that use them are compiled twice, and the processor decides when they run ([`wide`]); so it does
//! for the products and attention of the CPU runner, between more instruction sets (`forward/cpu/kernels/isa`).
#![allow(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "arrays of LANES numbers, by indices below LANES")]
#![allow(clippy::needless_range_loop, reason = "see `wide`")]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod eight;
mod floats;
mod fused;
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod neon;
// Tests compare it with the others.
#[cfg(any(test, not(all(target_arch = "aarch64", not(miri)))))]
mod portable;
mod prefetch;
mod processor;
mod wide;

/// What [`wide`] takes once it has asked the processor, and nobody else names (`tests/layers`).
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Eight as Avx2;
pub(crate) use eight::{F32x8, LANES};
pub(crate) use floats::DefaultFloats;
pub(crate) use fused::mul_add;
/// The vectors of every processor that the build is for.
#[cfg(all(target_arch = "aarch64", not(miri)))]
pub(crate) use neon::Eight as Native;
#[cfg(all(target_arch = "aarch64", not(miri)))]
pub(crate) use neon::{neon, widen_f16};
#[cfg(not(all(target_arch = "aarch64", not(miri))))]
pub(crate) use portable::Eight as Native;
pub(crate) use prefetch::{is_behind_in_order, prefetch, prefetch_to_l2};
pub use processor::missing_instructions;
#[cfg(feature = "capi")]
pub(crate) use processor::missing_message;
pub(crate) use processor::{check_processor, compiled_instructions, processor_instructions};
#[cfg(target_arch = "x86_64")]
pub(crate) use wide::has_wide;
pub(crate) use wide::wide;

#[cfg(test)]
mod tests {
    use super::*;

    fn exp_is_accurate<V: F32x8>() {
        let exp = |x: f32| {
            let mut out = [0.0; LANES];
            V::splat(x).exp().store(&mut out);
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

    #[test]
    fn native_exp_is_accurate() {
        exp_is_accurate::<Native>();
        #[cfg(target_arch = "x86_64")]
        if has_wide() {
            exp_is_accurate::<Avx2>();
        }
    }

    /// The results of all operations whose rounding is specified. A NaN is any.
    fn results<V: F32x8>(bytes: &[u8; 32], numbers: &[[f32; LANES]; 2]) -> Vec<u32> {
        let mut results = Vec::new();
        let [x, y] = numbers.each_ref().map(V::load);
        let (half, _) = bytes.split_first_chunk::<16>().unwrap();
        let (eight, _) = bytes.split_first_chunk::<8>().unwrap();
        let (low, high) = V::load_nibbles(eight);
        for z in [
            x.add(y),
            x.sub(y),
            x.mul(y),
            x.div(y),
            x.mul_add(y, x),
            x.max(y),
            x.min(y),
            x.abs(),
            x.above(y),
            V::load_bytes(bytes),
            V::load_f16_bytes(half),
            V::load_bf16_bytes(half),
            V::load_i8(eight),
            V::load_u8(eight),
            low,
            high,
            low.power_of_two(),
            V::zero().sub(x.abs()).exp(),
        ] {
            let mut out = [0.0; LANES];
            z.store(&mut out);
            results.extend(out);
            x.or_where_negative(y, z).store(&mut out);
            results.extend(out);
            results.push(f32::from(u8::from(x.differs(z))));
        }
        results.into_iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
    }

    /// Those of operations on whole numbers and on the lanes of a vector, which have no NaN.
    fn results_of_numbers<V: F32x8>(numbers: &[[f32; LANES]; 2]) -> Vec<u32> {
        let [x, y] = numbers.each_ref().map(V::load);
        let mut results: Vec<f32> = x.nearest().bytes().map(f32::from).into();
        results.extend(V::sums([x, y, x.mul(y), x.sub(y)]));
        results.extend([x.largest(), y.largest(), x.sum()]);
        results.extend(x.halves().map(f32::from));
        results.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn native_vectors_match_portable_vectors() {
        const SPECIAL: [f32; 12] = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            1e-45,
            -1e-40,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::MIN,
            1.0,
            -87.5,
        ];
        let mut rng = crate::rng::Rng::new(1, 0, crate::rng::Purpose::Token);
        for round in 0..if cfg!(miri) { 20 } else { 2000 } {
            // Some are halves, which round to even.
            let numbers: [[f32; LANES]; 2] =
                std::array::from_fn(|_| std::array::from_fn(|_| rng.below(509) as f32 / 2.0 - 127.0));
            let special: [[f32; LANES]; 2] =
                std::array::from_fn(|_| std::array::from_fn(|_| SPECIAL[rng.below(SPECIAL.len())]));
            let bytes: [u8; 32] = std::array::from_fn(|_| rng.below(256) as u8);
            let all = if round % 2 == 0 { &numbers } else { &special };
            let expected =
                (results::<portable::Eight>(&bytes, all), results_of_numbers::<portable::Eight>(&numbers));
            assert_eq!((results::<Native>(&bytes, all), results_of_numbers::<Native>(&numbers)), expected);
            #[cfg(target_arch = "x86_64")]
            if has_wide() {
                assert_eq!((results::<Avx2>(&bytes, all), results_of_numbers::<Avx2>(&numbers)), expected);
            }
        }
    }
}
