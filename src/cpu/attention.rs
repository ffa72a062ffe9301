//! Attention of a few rows of one head over the cache.

use half::f16;

use super::simd::{F32x8, LANES};

/// Rows that go over the cache together.
pub(super) const TILE: usize = 4;

/// What the cache is made of.
pub(super) trait Element: Copy + Send + Sync {
    /// The least number that is too large: it would become infinite.
    const TOO_LARGE: f32;
    fn load(x: &[Self; LANES]) -> F32x8;
    fn from(x: F32x8) -> [Self; LANES];
}

impl Element for f32 {
    const TOO_LARGE: f32 = f32::INFINITY;
    #[inline(always)]
    fn load(x: &[Self; LANES]) -> F32x8 {
        F32x8::load(x)
    }
    #[inline(always)]
    fn from(x: F32x8) -> [Self; LANES] {
        let mut to = [0.0; LANES];
        x.store(&mut to);
        to
    }
}

impl Element for f16 {
    // Halfway between the largest, 65504, and what would come next.
    const TOO_LARGE: f32 = 65520.0;
    #[inline(always)]
    fn load(x: &[Self; LANES]) -> F32x8 {
        F32x8::load_f16(x)
    }
    #[inline(always)]
    fn from(x: F32x8) -> [Self; LANES] {
        let mut to = [f16::ZERO; LANES];
        x.store_f16(&mut to);
        to
    }
}

/// One head's queries [rows, Dh]; its keys, eight slots side by side [8, Dh, slots / 8], and values [Dh, slots];
/// how many first slots each row sees, and one slot more that it may see besides. `scores` is room for TILE
/// numbers per slot.
pub(super) struct Head<'a, T> {
    pub(super) queries: [&'a [f32]; TILE],
    pub(super) seen: [usize; TILE],
    pub(super) besides: [Option<usize>; TILE],
    pub(super) keys: &'a [T],
    pub(super) values: &'a [T],
    pub(super) scores: &'a mut [f32],
}

/// Where dimension 0 of a slot's key lies among the keys of a head `dh` wide; the next follow [`LANES`] apart.
#[inline(always)]
pub(super) fn key_place(slot: usize, dh: usize) -> usize {
    slot / LANES * LANES * dh + slot % LANES
}

/// softmax(q k^T / sqrt(Dh)) v of the first `rows` rows; `store` gets the row, the first of eight columns and those.
/// What it gets is the same whatever rows there are besides.
pub(super) fn attend<T: Element>(head: Head<'_, T>, rows: usize, store: impl FnMut(usize, usize, F32x8)) {
    // Eight sums at once hide the time that each addition takes.
    match rows {
        1 => attend_rows::<T, 1, 8>(head, store),
        2 => attend_rows::<T, 2, 4>(head, store),
        3 => attend_rows::<T, 3, 2>(head, store),
        _ => attend_rows::<T, TILE, 2>(head, store),
    }
}

/// With `N` vectors of slots or columns at once.
#[inline(always)]
fn attend_rows<T: Element, const R: usize, const N: usize>(
    head: Head<'_, T>,
    mut store: impl FnMut(usize, usize, F32x8),
) {
    let Head { queries, seen, besides, keys, values, scores } = head;
    let width = queries[0].len() / LANES;
    let (keys, values) = (keys.as_chunks::<LANES>().0, values.as_chunks::<LANES>().0);
    let groups = keys.len() / queries[0].len();
    let scores = &mut scores.as_chunks_mut::<LANES>().0.as_chunks_mut::<TILE>().0[..groups];
    let queries: [&[f32]; R] = std::array::from_fn(|row| queries[row]);
    let mut keys = keys.chunks_exact(queries[0].len());
    let mut chunks = scores.chunks_exact_mut(N);
    for scores in &mut chunks {
        score::<T, R, N>(queries, std::array::from_fn(|_| keys.next().unwrap_or(&[])), scores);
    }
    for (scores, keys) in chunks.into_remainder().iter_mut().zip(keys) {
        score::<T, R, 1>(queries, [keys], std::slice::from_mut(scores));
    }
    let inverse = softmax::<R>(scores, seen, besides);
    let mut column = 0;
    while column + N <= width {
        weigh::<T, R, N>(scores, values, (column, width), |row, i, sum| {
            store(row, (column + i) * LANES, sum.mul(F32x8::splat(inverse[row])));
        });
        column += N;
    }
    while column < width {
        weigh::<T, R, 1>(scores, values, (column, width), |row, _, sum| {
            store(row, column * LANES, sum.mul(F32x8::splat(inverse[row])));
        });
        column += 1;
    }
}

/// Scores of `N` groups of slots, scaled.
#[inline(always)]
fn score<T: Element, const R: usize, const N: usize>(
    queries: [&[f32]; R],
    keys: [&[[T; LANES]]; N],
    scores: &mut [[[f32; LANES]; TILE]],
) {
    let len = queries[0].len();
    let (queries, keys) = (queries.map(|q| &q[..len]), keys.map(|k| &k[..len]));
    let mut sums = [[F32x8::zero(); N]; R];
    for i in 0..len {
        let keys = keys.map(|k| T::load(&k[i]));
        for (sums, query) in sums.iter_mut().zip(&queries) {
            let query = F32x8::splat(query[i]);
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = key.mul_add(query, *sum);
            }
        }
    }
    let scale = F32x8::splat(1.0 / (len as f32).sqrt());
    for (row, sums) in sums.iter().enumerate() {
        for (scores, sum) in scores.iter_mut().zip(sums) {
            sum.mul(scale).store(&mut scores[row]);
        }
    }
}

/// scores = e^(scores - their maximum), 0 for slots that a row does not see. Returns 1 / their sums.
#[inline(always)]
fn softmax<const R: usize>(
    scores: &mut [[[f32; LANES]; TILE]],
    seen: [usize; TILE],
    besides: [Option<usize>; TILE],
) -> [f32; R] {
    std::array::from_fn(|row| {
        for slot in seen[row]..scores.len() * LANES {
            if besides[row] != Some(slot) {
                scores[slot / LANES][row][slot % LANES] = f32::NEG_INFINITY;
            }
        }
        let lowest = F32x8::splat(f32::NEG_INFINITY);
        let peak = scores.iter().fold(lowest, |peak, s| F32x8::load(&s[row]).max(peak));
        let peak = F32x8::splat(peak.largest());
        let mut sum = F32x8::zero();
        for scores in scores.iter_mut() {
            let weight = F32x8::load(&scores[row]).sub(peak).exp();
            sum = sum.add(weight);
            weight.store(&mut scores[row]);
        }
        1.0 / sum.sum()
    })
}

/// The weighted sums of `N` vectors of the values' columns from `column` of `width` on.
#[inline(always)]
fn weigh<T: Element, const R: usize, const N: usize>(
    scores: &[[[f32; LANES]; TILE]],
    values: &[[T; LANES]],
    (column, width): (usize, usize),
    mut store: impl FnMut(usize, usize, F32x8),
) {
    let mut sums = [[F32x8::zero(); N]; R];
    for (scores, values) in scores.iter().zip(values.chunks(LANES * width)) {
        for (lane, value) in values.chunks_exact(width).enumerate().take(LANES) {
            let value = &value[column..column + N];
            let value: [F32x8; N] = std::array::from_fn(|i| T::load(&value[i]));
            for (sums, scores) in sums.iter_mut().zip(scores) {
                let score = F32x8::splat(scores[lane]);
                for (sum, value) in sums.iter_mut().zip(value) {
                    *sum = value.mul_add(score, *sum);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        sums.iter().enumerate().for_each(|(i, &sum)| store(row, i, sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::noise;

    /// softmax(q k^T / sqrt(Dh)) v of one row over the slots that it sees.
    fn definition(query: &[f32], keys: &[f32], values: &[f32], slots: &[usize]) -> Vec<f64> {
        let dh = query.len();
        let score = |&slot: &usize| {
            let products = query.iter().zip(&keys[slot * dh..]);
            products.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() / (dh as f64).sqrt()
        };
        let weights: Vec<f64> = slots.iter().map(|slot| score(slot).exp()).collect();
        let total: f64 = weights.iter().sum();
        let column = |i: usize| {
            let values = slots.iter().map(|slot| f64::from(values[slot * dh + i]));
            values.zip(&weights).map(|(v, w)| v * w / total).sum()
        };
        (0..dh).map(column).collect()
    }

    #[test]
    fn what_is_too_large_for_the_cache_would_be_infinite_in_it() {
        let kept = |x: f32| <f16 as Element>::from(F32x8::splat(x))[0];
        let below = f16::TOO_LARGE.next_down();
        assert_eq!([kept(below), kept(-below)], [f16::MAX, f16::MIN]);
        assert_eq!([kept(f16::TOO_LARGE), kept(-f16::TOO_LARGE)], [f16::INFINITY, f16::NEG_INFINITY]);
    }

    #[test]
    fn rows_see_what_they_may_whatever_their_neighbours_see() {
        for (dh, slots) in [(8, 1), (24, 5), (64, 8), (64, 37), (80, 130)] {
            let queries: Vec<f32> = noise(TILE * dh, 1).iter().map(|q| 4.0 * q).collect();
            let (keys, values) = (noise(slots * dh, 2), noise(slots * dh, 3));
            // What lies behind the last slot is nobody's: not even a number.
            let mut side_by_side = vec![f32::NAN; slots.next_multiple_of(LANES) * dh];
            for (slot, key) in keys.chunks_exact(dh).enumerate() {
                for (i, &k) in key.iter().enumerate() {
                    side_by_side[key_place(slot, dh) + i * LANES] = k;
                }
            }
            let seen = [slots, slots.div_ceil(2), 1, slots - slots / 4];
            let besides = [None, Some(slots - 1), Some(slots / 2), None];
            let mut single = vec![];
            for rows in 1..=TILE {
                let first: Vec<usize> = if rows == 1 { (0..TILE).collect() } else { vec![0] };
                for first in first {
                    let at = |i: usize| (first + i).min(TILE - 1);
                    let mut out = vec![[0.0; LANES]; rows * dh / LANES];
                    let head = Head {
                        queries: std::array::from_fn(|i| &queries[at(i) * dh..(at(i) + 1) * dh]),
                        seen: std::array::from_fn(|i| seen[at(i)]),
                        besides: std::array::from_fn(|i| besides[at(i)]),
                        keys: &side_by_side,
                        values: &values,
                        scores: &mut vec![0.0; TILE * slots.next_multiple_of(LANES)],
                    };
                    attend(head, rows, |row, column, y| y.store(&mut out[(row * dh + column) / LANES]));
                    for (i, row) in out.as_flattened().chunks_exact(dh).enumerate() {
                        let others = besides[at(i)].filter(|&slot| slot >= seen[at(i)]);
                        let visible: Vec<usize> = (0..seen[at(i)]).chain(others).collect();
                        let query = &queries[at(i) * dh..(at(i) + 1) * dh];
                        for (own, exact) in row.iter().zip(definition(query, &keys, &values, &visible)) {
                            assert!((f64::from(*own) - exact).abs() < 1e-5, "{dh} {slots}: {own} {exact}");
                        }
                        match rows {
                            1 => single.push(row.to_vec()),
                            _ => assert!(row == single[i], "row {i} of {rows}, {slots} slots of {dh}"),
                        }
                    }
                }
            }
        }
    }
}
