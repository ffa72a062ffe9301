//! Attention of a few rows of one head over the cache.

use half::f16;

use super::simd::{F32x8, LANES};
use crate::sampler::exp;

/// Rows that go over the cache together.
pub(super) const TILE: usize = 4;

/// What the cache is made of.
pub(super) trait Element: Copy + Send + Sync {
    fn load(x: &[Self; LANES]) -> F32x8;
    fn store(x: F32x8, to: &mut [Self; LANES]);
}

impl Element for f32 {
    #[inline(always)]
    fn load(x: &[Self; LANES]) -> F32x8 {
        F32x8::load(x)
    }
    #[inline(always)]
    fn store(x: F32x8, to: &mut [Self; LANES]) {
        x.store(to);
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load(x: &[Self; LANES]) -> F32x8 {
        F32x8::load_f16(x)
    }
    #[inline(always)]
    fn store(x: F32x8, to: &mut [Self; LANES]) {
        x.store_f16(to);
    }
}

/// One head's queries [rows, Dh], keys and values [slots, Dh], how many first slots each row sees, and one slot more
/// that it may see besides. `scores` is room for TILE numbers per slot.
pub(super) struct Head<'a, T> {
    pub(super) queries: [&'a [f32]; TILE],
    pub(super) seen: [usize; TILE],
    pub(super) besides: [Option<usize>; TILE],
    pub(super) keys: &'a [T],
    pub(super) values: &'a [T],
    pub(super) scores: &'a mut [f32],
}

/// softmax(q k^T / sqrt(Dh)) v of the first `rows` rows; `store` gets the row, the first of eight columns and those.
pub(super) fn attend<T: Element>(head: Head<'_, T>, rows: usize, store: impl FnMut(usize, usize, F32x8)) {
    match rows {
        1 => attend_rows::<T, 1>(head, store),
        2 => attend_rows::<T, 2>(head, store),
        3 => attend_rows::<T, 3>(head, store),
        _ => attend_rows::<T, TILE>(head, store),
    }
}

#[inline(always)]
fn attend_rows<T: Element, const R: usize>(head: Head<'_, T>, mut store: impl FnMut(usize, usize, F32x8)) {
    let Head { queries, seen, besides, keys, values, scores } = head;
    let width = queries[0].len() / LANES;
    let most = seen.iter().take(R).copied().max().unwrap_or(0);
    let (keys, values) = (keys.as_chunks::<LANES>().0, values.as_chunks::<LANES>().0);
    let queries = queries.map(|q| q.as_chunks::<LANES>().0);
    let scale = 1.0 / ((width * LANES) as f32).sqrt();
    // Scores lie slot by slot, so that the values are met with all rows' weights at once.
    let scores = &mut scores.as_chunks_mut::<TILE>().0[..most];
    for (key, scores) in keys.chunks_exact(width).zip(scores.iter_mut()) {
        let mut sums = [F32x8::zero(); TILE];
        for (i, key) in key.iter().enumerate() {
            let key = T::load(key);
            for (sum, query) in sums.iter_mut().zip(queries).take(R) {
                *sum = F32x8::load(&query[i]).mul_add(key, *sum);
            }
        }
        *scores = F32x8::sums(sums).map(|s| s * scale);
    }
    let at = |slot: usize| slot * width..(slot + 1) * width;
    // What a row does not see weighs nothing.
    for row in 0..R {
        scores[seen[row]..].iter_mut().for_each(|s| s[row] = f32::NEG_INFINITY);
    }
    let own: [Option<f32>; TILE] = std::array::from_fn(|row| {
        let slot = besides[row]?;
        let products = queries[row].iter().zip(&keys[at(slot)]);
        let sum = products.fold(F32x8::zero(), |sum, (q, k)| F32x8::load(q).mul_add(T::load(k), sum));
        Some(sum.sum() * scale)
    });
    let mut peak = own.map(|own| own.unwrap_or(f32::NEG_INFINITY));
    for scores in scores.iter() {
        for (peak, &score) in peak.iter_mut().zip(scores) {
            *peak = if score > *peak { score } else { *peak };
        }
    }
    let extra: [f32; TILE] = std::array::from_fn(|row| own[row].map_or(0.0, |own| exp(own - peak[row])));
    let sum = exponentiate(scores, &peak);
    let inverse: [f32; TILE] = std::array::from_fn(|row| 1.0 / (sum[row] + extra[row]));
    let mut column = 0;
    while column < width {
        let n = 2.min(width - column);
        let mut sums = [[F32x8::zero(); 2]; R];
        for (value, scores) in values.chunks_exact(width).zip(scores.iter()) {
            let a = T::load(&value[column]);
            let b = T::load(&value[column + n - 1]);
            for (sums, &score) in sums.iter_mut().zip(scores) {
                let score = F32x8::splat(score);
                sums[0] = a.mul_add(score, sums[0]);
                sums[1] = b.mul_add(score, sums[1]);
            }
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            if let Some(slot) = besides[row] {
                let (value, weight) = (&values[at(slot)], F32x8::splat(extra[row]));
                sums[0] = T::load(&value[column]).mul_add(weight, sums[0]);
                sums[1] = T::load(&value[column + n - 1]).mul_add(weight, sums[1]);
            }
            for (i, sum) in sums.iter().enumerate().take(n) {
                store(row, (column + i) * LANES, sum.mul(F32x8::splat(inverse[row])));
            }
        }
        column += n;
    }
}

/// scores = e^(scores - peak), and their sums. Two slots make one vector.
#[inline(always)]
fn exponentiate(scores: &mut [[f32; TILE]], peak: &[f32; TILE]) -> [f32; TILE] {
    let mut sums = [[0.0; TILE]; 2];
    let (pairs, last) = scores.as_chunks_mut::<2>();
    for pair in pairs {
        for (scores, sums) in pair.iter_mut().zip(&mut sums) {
            for ((score, peak), sum) in scores.iter_mut().zip(peak).zip(sums) {
                *score = exp(*score - peak);
                *sum += *score;
            }
        }
    }
    for scores in last {
        for ((score, peak), sum) in scores.iter_mut().zip(peak).zip(&mut sums[0]) {
            *score = exp(*score - peak);
            *sum += *score;
        }
    }
    std::array::from_fn(|row| sums[0][row] + sums[1][row])
}
