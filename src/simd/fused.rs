//! Multiply-add with one rounding, where the processor of the build may have no instruction for it.

/// Whether it has one.
const INSTRUCTION: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// a * b + c, rounded once.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if INSTRUCTION { a.mul_add(b, c) } else { in_double(a, b, c) }
}

/// The same in f64, where the product is exact, and the sum with c is rounded to odd: that is as good as exact for what is then
/// rounded to f32, whose numbers have 29 bits less and exponents within its own (Boldo and Melquiond, "Emulation of a FMA and
/// correctly rounded sums: proved algorithms using rounding to odd", 2008). Vectors of it take some ten operations of f64.
#[inline(always)]
fn in_double(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What the rounding took away, exactly (Knuth's TwoSum).
    let of_c = sum - product;
    let lost = (product - (sum - of_c)) + (c - of_c);
    // Towards zero, and then the last bit says that something is left. With infinities and NaN it is 0 or NaN.
    let inexact = lost.abs() > 0.0;
    let beyond = inexact && (lost < 0.0) != (sum < 0.0);
    f64::from_bits((sum.to_bits() - u64::from(beyond)) | u64::from(inexact)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    /// As the C library or the processor does it, except that a NaN is any.
    fn assert_exact(a: f32, b: f32, c: f32) {
        let bits = |x: f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
        let exact = bits(a.mul_add(b, c));
        assert_eq!(bits(in_double(a, b, c)), exact, "{a:e} * {b:e} + {c:e}");
        assert_eq!(bits(mul_add(a, b, c)), exact, "{a:e} * {b:e} + {c:e}");
    }

    #[test]
    fn rounds_once() {
        let near = 1.0 + f32::EPSILON;
        let square = f32::EPSILON * f32::EPSILON;
        for c in [square, -square, f32::EPSILON / 2.0, 2.0f32.powi(-60), -(2.0f32.powi(-60)), 2.0f32.powi(30)]
        {
            assert_exact(near, near, c);
            assert_exact(-near, near, c);
        }
        // The product is halfway between two f32, which is what the sum would be when rounded to f64 first: the even one is the wrong
        // one where c is on the other side.
        let tie = (1.0 + 2.0f32.powi(-12), 1.0 + 2.0f32.powi(-12));
        for c in [2.0f32.powi(-60), -(2.0f32.powi(-60)), 2.0f32.powi(-100), -(2.0f32.powi(-149)), 0.0] {
            assert_exact(tie.0, tie.1, c);
            assert_exact(-tie.0, tie.1, c);
        }
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-40,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ];
        for a in special {
            for b in special {
                for c in special {
                    assert_exact(a, b, c);
                }
            }
        }
    }

    #[test]
    fn rounds_once_whatever_the_bits() {
        let mut rng = Rng::new(1, 0, Purpose::Token);
        let mut bits = || (rng.below(1 << 16) << 16 | rng.below(1 << 16)) as u32;
        for _ in 0..if cfg!(miri) { 200 } else { 400_000 } {
            let [a, b, c] = std::array::from_fn(|_| f32::from_bits(bits()));
            assert_exact(a, b, c);
            // Of like sizes, and few bits: ties and cancellations are frequent.
            let [a, b, c] = [a, b, c].map(|x| f32::from_bits(x.to_bits() & 0x81ff_f000 | 0x3e80_0000));
            assert_exact(a, b, c);
            assert_exact(a, b, -(a * b));
            assert_exact(a, b, c * f32::EPSILON * f32::EPSILON);
        }
    }
}
