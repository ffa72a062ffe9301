//! Operations on one row: norms, GELU, SwiGLU, RoPE.

use super::weights::Matrix;
use crate::simd::{F32x8, LANES, wide};

wide! {
    /// to = (x - mean) / sqrt(variance + epsilon) * weight + bias.
    pub(crate) fn layer_norm<V>(x: &[f32], weight: Matrix<'_>, bias: Matrix<'_>, epsilon: f32, to: &mut [f32]) {
        let n = x.len() as f32;
        let x = x.as_chunks::<LANES>().0;
        let (mut sum, mut squares) = (V::zero(), V::zero());
        for x in x {
            sum = sum.add(V::load(x));
        }
        let shift = V::splat(-(sum.sum() / n));
        for x in x {
            let x = V::load(x).add(shift);
            squares = squares.add(x.mul(x));
        }
        let variance = squares.sum() / n;
        // If the squares overflow, the result is NaN: it must not become a row of zeros.
        let variance = if variance.is_finite() { variance } else { f32::NAN };
        let scale = V::splat(1.0 / (variance + epsilon).sqrt());
        let to = to.as_chunks_mut::<LANES>().0;
        for (((x, w), b), to) in x.iter().zip(weight.eights()).zip(bias.eights()).zip(to) {
            V::load(x).add(shift).mul(scale).mul_add(w, b).store(to);
        }
    }
}

wide! {
    /// to = x / sqrt(mean of squares + epsilon) * weight.
    pub(crate) fn rms_norm<V>(x: &[f32], weight: Matrix<'_>, epsilon: f32, to: &mut [f32]) {
        let n = x.len() as f32;
        let x = x.as_chunks::<LANES>().0;
        let mut squares = V::zero();
        for x in x {
            let x = V::load(x);
            squares = squares.add(x.mul(x));
        }
        let squares = squares.sum() / n;
        // As above.
        let squares = if squares.is_finite() { squares } else { f32::NAN };
        let scale = V::splat(1.0 / (squares + epsilon).sqrt());
        let to = to.as_chunks_mut::<LANES>().0;
        for ((x, w), to) in x.iter().zip(weight.eights()).zip(to) {
            V::load(x).mul(scale).mul(w).store(to);
        }
    }
}

wide! {
    /// head = head / sqrt(mean of squares + epsilon) * weight.
    pub(crate) fn head_norm<V>(head: &mut [f32], weight: Matrix<'_>, epsilon: f32) {
        let n = head.len() as f32;
        let head = head.as_chunks_mut::<LANES>().0;
        let mut squares = V::zero();
        for x in head.iter() {
            let x = V::load(x);
            squares = x.mul_add(x, squares);
        }
        let scale = V::splat(1.0 / (squares.sum() / n + epsilon).sqrt());
        for (x, w) in head.iter_mut().zip(weight.eights()) {
            V::load(x).mul(scale).mul(w).store(x);
        }
    }
}

wide! {
    /// to += x.
    pub(crate) fn add_to<V>(to: &mut [f32], x: &[f32]) {
        for (to, x) in to.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            V::load(to).add(V::load(x)).store(to);
        }
    }
}

wide! {
    /// to += x + bias, of columns `first..`.
    pub(crate) fn add_with_bias<V>(to: &mut [f32], x: &[f32], bias: Matrix<'_>, first: usize) {
        let to = to.as_chunks_mut().0.iter_mut();
        for ((to, x), bias) in to.zip(x.as_chunks().0).zip(bias.from(first).0) {
            let x = V::load(x).add(V::load_bytes(bias));
            V::load(to).add(x).store(to);
        }
    }
}

wide! {
    /// to = x + bias, of columns `first..`; they need not be whole vectors.
    pub(crate) fn with_bias<V>(to: &mut [f32], x: &[f32], bias: Matrix<'_>, first: usize) {
        let ((to, to_rest), (x, x_rest), (bias, bias_rest)) =
            (to.as_chunks_mut(), x.as_chunks(), bias.from(first));
        for ((to, x), bias) in to.iter_mut().zip(x).zip(bias) {
            V::load(x).add(V::load_bytes(bias)).store(to);
        }
        for ((to, x), bias) in to_rest.iter_mut().zip(x_rest).zip(bias_rest) {
            *to = x + f32::from_le_bytes(*bias);
        }
    }
}

wide! {
    /// to = silu(to) * x.
    pub(crate) fn gate_by<V>(to: &mut [f32], x: &[f32]) {
        for (to, x) in to.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            let gate = V::load(to);
            // silu(x) = x / (1 + e^-x), with an exponent that is never positive: e^-|x| / (1 + e^-|x|) for negative ones.
            let one = V::splat(1.0);
            let e = V::zero().sub(gate.abs()).exp();
            gate.mul(one.or_where_negative(e, gate)).div(e.add(one)).mul(V::load(x)).store(to);
        }
    }
}

wide! {
    /// to = gelu(x + bias), of columns `first..`.
    pub(crate) fn gelu_with_bias<V>(to: &mut [f32], x: &[f32], bias: Matrix<'_>, first: usize) {
        let to = to.as_chunks_mut().0.iter_mut();
        for ((to, x), bias) in to.zip(x.as_chunks().0).zip(bias.from(first).0) {
            gelu(V::load(x).add(V::load_bytes(bias))).store(to);
        }
    }
}

/// x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the approximation that the models are trained with.
#[inline(always)]
fn gelu<V: F32x8>(x: V) -> V {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u), with an exponent that is never positive.
    let one = V::splat(1.0);
    let u = x.mul(x).mul_add(V::splat(0.044_715), one).mul(x).mul(V::splat(TWICE_SQRT_2_OVER_PI));
    let e = V::zero().sub(u.abs()).exp();
    x.mul(one.or_where_negative(e, u)).div(e.add(one))
}

/// RoPE for a token at `position`: the cosines [Dh / 2] and then the sines [Dh / 2] of its rotations.
pub(crate) fn rope_row(position: u32, base: f32, to: &mut [f32]) {
    let dim = to.len();
    let (cos, sin) = to.split_at_mut(dim / 2);
    for (i, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
        let frequency = f64::from(base).powf(-2.0 * i as f64 / dim as f64);
        let (s, c) = (f64::from(position) * frequency).sin_cos();
        (*cos, *sin) = (c as f32, s as f32);
    }
}

wide! {
    /// Rotates the pairs (i, i + Dh / 2) of a head by a row of [`rope_row`].
    pub(crate) fn rotate<V>(head: &mut [f32], rope_row: &[f32]) {
        let (a, b) = head.split_at_mut(rope_row.len() / 2);
        let (cos, sin) = rope_row.split_at(rope_row.len() / 2);
        for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::testing::packed;
    use crate::gguf::TensorType;

    #[test]
    fn rms_norms_and_gates_match_their_definitions() {
        let x: [f32; 24] = std::array::from_fn(|i| (i as f32 - 9.0) * 0.7);
        let weights: Vec<f32> = (0..24).map(|i| 0.5 + i as f32 / 16.0).collect();
        let weight = packed(TensorType::F32, &weights, 24);
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 24.0;
        let (mut row, mut head) = ([0.0; 24], x);
        rms_norm(&x, weight.matrix(), 1e-6, &mut row);
        head_norm(&mut head, weight.matrix(), 1e-6);
        for (i, (row, head)) in row.into_iter().zip(head).enumerate() {
            let expected = f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(weights[i]);
            assert!((f64::from(row) - expected).abs() < 1e-6, "{row} {expected}");
            assert!((f64::from(head) - expected).abs() < 1e-6, "{head} {expected}");
        }
        for large in [3e38, f32::NAN, f32::INFINITY] {
            rms_norm(&[large; 24], weight.matrix(), 1e-6, &mut row);
            assert!(row.iter().all(|y| y.is_nan()), "{large}");
        }
        let mut gate = [-200.0, -30.0, -2.0, -0.1, 0.0, 0.3, 4.0, 90.0];
        let (before, by) = (gate, [1.0, 2.0, -3.0, 0.5, 7.0, -1.5, 1.0, 2.0]);
        gate_by(&mut gate, &by);
        for ((y, x), by) in gate.into_iter().zip(before).zip(by) {
            let (x, by) = (f64::from(x), f64::from(by));
            let expected = x / (1.0 + (-x).exp()) * by;
            assert!((f64::from(y) - expected).abs() <= 2e-6 * expected.abs().max(1e-3), "{y} {expected}");
        }
    }

    #[test]
    fn layer_norm_that_overflows_is_nan() {
        let row = |x: f32| packed(TensorType::F32, &[x; 16], 16);
        let (weight, bias) = (row(1.0), row(0.5));
        let mut x: [f32; 16] = std::array::from_fn(|i| if i < 8 { 1e15 } else { -1e15 });
        let norm = |x: &[f32]| {
            let mut to = [0.0; 16];
            layer_norm(x, weight.matrix(), bias.matrix(), 1e-5, &mut to);
            to
        };
        assert!(norm(&x).iter().zip(x).all(|(y, x)| (y - (0.5 + x / 1e15)).abs() < 1e-5));
        for bad in [3e38, f32::INFINITY, f32::NAN] {
            x[3] = bad;
            assert!(norm(&x).iter().all(|y| y.is_nan()), "{bad}");
        }
    }
}
