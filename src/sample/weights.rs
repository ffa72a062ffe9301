//! Passes over the weights of all tokens.
#![allow(clippy::indexing_slicing, reason = "arrays, by indices below their constant lengths")]
#![allow(clippy::needless_range_loop, reason = "see `simd::wide`")]

use crate::simd::{F32x8, LANES, wide};

/// Number of vectors summed in f32 before their sum is added to an f64 total.
pub(super) const RUN: usize = 64;

/// exp((x - max) * inverse), at most 1: the mask's logit may be above the others'.
#[inline(always)]
fn exponential<V: F32x8>(x: V, max: V, inverse: V) -> V {
    V::zero().min(x.sub(max).mul(inverse)).exp()
}

wide! {
    /// weights = exp((logits - max) * inverse), and the sum of all.
    pub(super) fn exponentials<V>(logits: &[f32], max: f32, inverse: f32, weights: &mut [[f32; LANES]]) -> f32 {
        let (max, inverse) = (V::splat(max), V::splat(inverse));
        let mut sum = V::zero();
        let (whole, rest) = logits.as_chunks();
        for (logits, weights) in whole.iter().zip(&mut *weights) {
            let weight = exponential(V::load(logits), max, inverse);
            sum = sum.add(weight);
            weight.store(weights);
        }
        if let (Some(weights), false) = (weights.last_mut(), rest.is_empty()) {
            let weight = exponential(V::load(&padded(rest)), max, inverse);
            sum = sum.add(weight);
            weight.store(weights);
        }
        sum.sum()
    }
}

wide! {
    /// weights = exp((logits - max) * inverse) where they are not 0.
    pub(super) fn exponentials_of_kept<V>(logits: &[f32], max: f32, inverse: f32, weights: &mut [[f32; LANES]]) {
        let (max, inverse) = (V::splat(max), V::splat(inverse));
        let (whole, rest) = logits.as_chunks();
        for (logits, weights) in whole.iter().chain([&padded(rest)]).zip(weights) {
            let weight = exponential(V::load(logits), max, inverse);
            let kept = V::zero().sub(V::load(weights));
            V::zero().or_where_negative(weight, kept).store(weights);
        }
    }
}

/// Fewer logits than a vector has, and minus infinity behind them.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut logits = [f32::NEG_INFINITY; LANES];
    logits.iter_mut().zip(rest).for_each(|(to, &from)| *to = from);
    logits
}

wide! {
    /// Keeps the weights above `high`, and puts those above `low` into `edge` with their tokens.
    pub(super) fn cut<V>(weights: &mut [[f32; LANES]], low: f32, high: f32, edge: &mut Vec<(f32, u32)>) {
        let (least, most) = (V::splat(low), V::splat(high));
        for (number, weights) in weights.iter_mut().enumerate() {
            let all = V::load(weights).above(least);
            let kept = V::load(weights).above(most);
            if all.differs(kept) {
                let these = weights.iter().enumerate().filter(|&(_, &w)| w > low && w <= high);
                edge.extend(these.map(|(place, &w)| (w, (number * LANES + place) as u32)));
            }
            kept.store(weights);
        }
    }
}

wide! {
    /// The sums of the weights above each limit.
    pub(super) fn mass_above<V, const N: usize>(weights: &[[f32; LANES]], limits: [f32; N]) -> [f64; N] {
        let mut least = [V::zero(); N];
        for i in 0..N {
            least[i] = V::splat(limits[i]);
        }
        let mut total = [0.0; N];
        for run in weights.chunks(RUN) {
            let mut sums = [V::zero(); N];
            for weight in run {
                let weight = V::load(weight);
                for i in 0..N {
                    sums[i] = sums[i].add(weight.above(least[i]));
                }
            }
            for i in 0..N {
                total[i] += f64::from(sums[i].sum());
            }
        }
        total
    }
}
