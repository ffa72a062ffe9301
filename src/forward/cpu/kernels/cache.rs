//! The numbers of the K/V cache: their types, and where they lie.

use half::f16;

use super::activations::{BLOCK, MAX, round};
use super::isa::{Isa, WIDTH};
use crate::simd::{LANES, wide};

/// Slots whose keys are interleaved: dimension 0 of all, then dimension 1 of all, and so on.
pub(crate) const KEY_GROUP: usize = WIDTH;
/// Dimensions of a key or value that share a scale, if their type has scales: those of ggml's q8_0, as activations.
pub(crate) const SCALED: usize = BLOCK;

/// The index of dimension 0 of a slot's key among the keys of a head `dh` wide; the next ones follow [`KEY_GROUP`] apart.
#[inline(always)]
pub(crate) fn key_index(slot: usize, dh: usize) -> usize {
    slot / KEY_GROUP * KEY_GROUP * dh + slot % KEY_GROUP
}

/// The index of a slot's first scale among those of keys or values of a head `dh` wide; the next ones follow [`KEY_GROUP`] apart.
#[inline(always)]
pub(crate) fn scale_index(slot: usize, dh: usize) -> usize {
    key_index(slot, dh / SCALED)
}

/// The type of the numbers in the cache.
pub(crate) trait CacheElement: Copy + Send + Sync {
    /// Whether each [`SCALED`] numbers of a key or value have a scale beside them.
    const HAS_SCALES: bool = false;
    /// The smallest number that becomes infinite in the cache.
    const OVERFLOW: f32;
    const ZERO: Self;
    fn load<I: Isa>(isa: I, x: &[Self; WIDTH]) -> I::F32;
    /// The numbers as they are in the cache, and their scales if they have any.
    fn convert(x: &[f32], to: &mut [Self], scales: &mut [f16]);
}

impl CacheElement for f32 {
    const OVERFLOW: f32 = f32::INFINITY;
    const ZERO: Self = 0.0;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[Self; WIDTH]) -> I::F32 {
        isa.load_f32(x)
    }
    fn convert(x: &[f32], to: &mut [Self], _: &mut [f16]) {
        to.copy_from_slice(x);
    }
}

impl CacheElement for f16 {
    // Halfway between the largest, 65504, and the next that would come.
    const OVERFLOW: f32 = 65520.0;
    const ZERO: Self = f16::ZERO;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[Self; WIDTH]) -> I::F32 {
        isa.load_f16(x)
    }
    fn convert(x: &[f32], to: &mut [Self], _: &mut [f16]) {
        round_to_halves(x, to);
    }
}

impl CacheElement for i8 {
    const HAS_SCALES: bool = true;
    // The largest one's scale must fit in half precision.
    const OVERFLOW: f32 = MAX * <f16 as CacheElement>::OVERFLOW;
    const ZERO: Self = 0;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[Self; WIDTH]) -> I::F32 {
        isa.load_i8(x)
    }
    fn convert(x: &[f32], to: &mut [Self], scales: &mut [f16]) {
        let (x, to) = (x.as_chunks().0.as_chunks().0, to.as_chunks_mut().0.as_chunks_mut().0);
        for ((x, to), scale) in x.iter().zip(to).zip(scales) {
            *scale = f16::from_f32(round_to_bytes(x, to));
        }
    }
}

wide! {
    /// Whether any of `values` is finite, but at least `limit` from 0.
    fn any_finite_from<V>(limit: f32, values: &[f32]) -> bool {
        // Without a branch per number, so that it is vectorized.
        let mut any = false;
        for x in values {
            any |= (x.abs() >= limit) & (x.abs() < f32::INFINITY);
        }
        any
    }
}

/// Whether any of `values` is finite, but would not be in the cache. (What is not finite already shows in the logits.)
pub(crate) fn any_overflows<T: CacheElement>(values: &[f32]) -> bool {
    any_finite_from(T::OVERFLOW, values)
}

wide! {
    /// Rounds numbers to half precision.
    fn round_to_halves<V>(x: &[f32], to: &mut [f16]) {
        let ((x, x_rest), (to, to_rest)) = (x.as_chunks(), to.as_chunks_mut());
        for (x, to) in x.iter().zip(to) {
            *to = V::load(x).halves();
        }
        for (x, to) in x_rest.iter().zip(to_rest) {
            *to = f16::from_f32(*x);
        }
    }
}

wide! {
    /// Rounds numbers to bytes. Returns their scale.
    fn round_to_bytes<V>(x: &[[f32; LANES]; SCALED / LANES], to: &mut [[i8; LANES]; SCALED / LANES]) -> f32 {
        let (scale, values) = round::<V>(x);
        for (value, to) in values.iter().zip(to) {
            *to = value.bytes();
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::testing::noise;

    #[test]
    fn values_from_too_large_on_are_infinite() {
        let half = |x: f32| {
            // A whole vector, and what is behind it.
            let mut to = [f16::ZERO; LANES + 1];
            f16::convert(&[x; LANES + 1], &mut to, &mut []);
            assert_eq!(to, [to[0]; LANES + 1]);
            to[0]
        };
        let below = f16::OVERFLOW.next_down();
        assert_eq!([half(below), half(-below)], [f16::MAX, f16::MIN]);
        assert_eq!([half(f16::OVERFLOW), half(-f16::OVERFLOW)], [f16::INFINITY, f16::NEG_INFINITY]);
        let scale = |x: f32| bytes(&[x; SCALED]).1;
        assert_eq!(scale(-i8::OVERFLOW * 0.9999), f16::MAX);
        assert_eq!(scale(i8::OVERFLOW), f16::INFINITY);
    }

    fn bytes(x: &[f32; SCALED]) -> ([i8; SCALED], f16) {
        let (mut to, mut scale) = ([0; SCALED], [f16::ZERO]);
        i8::convert(x, &mut to, &mut scale);
        (to, scale[0])
    }

    #[test]
    fn bytes_are_off_by_half_of_a_127th_of_the_largest() {
        for seed in 0..20 {
            let x: [f32; SCALED] =
                std::array::from_fn(|i| noise(SCALED, seed)[i] * 10f32.powi(seed as i32 / 4));
            let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let (bytes, scale) = bytes(&x);
            for (&x, byte) in x.iter().zip(bytes) {
                // The scale in half precision is off by a 2048th.
                let off = (x - f32::from(byte) * scale.to_f32()).abs() / largest;
                assert!(off <= 0.5 / MAX + 1.0 / 2048.0, "{x} {byte} {scale}");
            }
        }
        assert_eq!(bytes(&[0.0; SCALED]), ([0; SCALED], f16::ZERO));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; SCALED];
            x[17] = bad;
            assert!(bytes(&x).1.is_nan());
        }
    }
}
