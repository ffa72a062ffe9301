//! Attention of a few rows of one head over the cache.

use half::f16;

use super::isa::{Isa, Machine, STRIP, Task};
use crate::simd::{F32x8, LANES, prefetch};

/// Rows that go over the cache together.
pub(crate) const TILE: usize = 4;

/// What the cache is made of.
pub(crate) trait Element: Copy + Send + Sync {
    /// The least number that is too large: it would become infinite.
    const TOO_LARGE: f32;
    fn load<I: Isa>(isa: I, x: &[Self; STRIP]) -> I::Float;
    fn from(x: F32x8) -> [Self; LANES];
}

impl Element for f32 {
    const TOO_LARGE: f32 = f32::INFINITY;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[Self; STRIP]) -> I::Float {
        isa.load_floats(x)
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
    fn load<I: Isa>(isa: I, x: &[Self; STRIP]) -> I::Float {
        isa.load_halves(x)
    }
    #[inline(always)]
    fn from(x: F32x8) -> [Self; LANES] {
        let mut to = [f16::ZERO; LANES];
        x.store_f16(&mut to);
        to
    }
}

/// One head's queries [rows, Dh]; its keys, sixteen slots side by side [16, Dh, slots / 16], and values [Dh, slots];
/// how many first slots each row sees, and one slot more that it may see besides. `scores` is room for TILE
/// numbers per slot.
pub(crate) struct Head<'a, T> {
    pub(crate) queries: [&'a [f32]; TILE],
    pub(crate) seen: [usize; TILE],
    pub(crate) besides: [Option<usize>; TILE],
    pub(crate) keys: &'a [T],
    pub(crate) values: &'a [T],
    pub(crate) scores: &'a mut [f32],
}

/// Slots whose keys lie side by side.
pub(crate) const SIDE_BY_SIDE: usize = STRIP;

/// Where dimension 0 of a slot's key lies among the keys of a head `dh` wide; the next follow [`SIDE_BY_SIDE`] apart.
#[inline(always)]
pub(crate) fn key_place(slot: usize, dh: usize) -> usize {
    slot / SIDE_BY_SIDE * SIDE_BY_SIDE * dh + slot % SIDE_BY_SIDE
}

/// softmax(q k^T / sqrt(Dh)) v of the first `rows` rows; `store` gets the row, the first of up to sixteen columns and
/// those. What it gets is the same whatever rows there are besides, and whatever the instructions.
pub(crate) fn attend<T: Element>(
    machine: Machine,
    head: Head<'_, T>,
    rows: usize,
    store: impl FnMut(usize, usize, &[f32]),
) {
    machine.run(Attend { head, rows, store });
}

struct Attend<'a, T, S> {
    head: Head<'a, T>,
    rows: usize,
    store: S,
}

impl<T: Element, S: FnMut(usize, usize, &[f32])> Task for Attend<'_, T, S> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { head, rows, store } = self;
        // As many sums at once as registers hold, which hides the time that each addition takes.
        match (rows, I::ROWS > 2) {
            (1, true) => attend_rows::<I, T, 1, 8, 4>(isa, head, store),
            (2, true) => attend_rows::<I, T, 2, 8, 4>(isa, head, store),
            (3, true) => attend_rows::<I, T, 3, 4, 4>(isa, head, store),
            (_, true) => attend_rows::<I, T, TILE, 4, 4>(isa, head, store),
            (1, _) => attend_rows::<I, T, 1, 4, 4>(isa, head, store),
            (2, _) => attend_rows::<I, T, 2, 2, 2>(isa, head, store),
            (3, _) => attend_rows::<I, T, 3, 1, 1>(isa, head, store),
            _ => attend_rows::<I, T, TILE, 1, 1>(isa, head, store),
        }
    }
}

/// With `N` groups of slots and `V` of columns at once.
#[inline(always)]
fn attend_rows<I: Isa, T: Element, const R: usize, const N: usize, const V: usize>(
    isa: I,
    head: Head<'_, T>,
    mut store: impl FnMut(usize, usize, &[f32]),
) {
    let Head { queries, seen, besides, keys, values, scores } = head;
    let dh = queries[0].len();
    // What comes from memory next, in the order in which it is read, from what is read second on.
    let step = N * STRIP;
    let mut ahead = keys.chunks(step).chain(values.chunks(step)).skip(dh);
    let keys = keys.as_chunks().0;
    let scores = &mut scores.as_chunks_mut::<STRIP>().0.as_chunks_mut::<TILE>().0[..keys.len() / dh];
    let queries: [&[f32]; R] = std::array::from_fn(|row| queries[row]);
    let mut keys = keys.chunks_exact(dh);
    let mut chunks = scores.chunks_exact_mut(N);
    for scores in &mut chunks {
        let keys = std::array::from_fn(|_| keys.next().unwrap_or(&[]));
        score::<I, T, R, N>(isa, queries, keys, scores, || _ = ahead.next().map(prefetch));
    }
    for (scores, keys) in chunks.into_remainder().iter_mut().zip(keys) {
        score::<I, T, R, 1>(isa, queries, [keys], std::slice::from_mut(scores), || ());
    }
    let inverse = softmax::<R>(scores, seen, besides);
    let mut write = |row: usize, column: usize, sum: I::Float| {
        let mut sums = [0.0; STRIP];
        isa.store_floats(isa.mul(sum, isa.splat(inverse[row])), &mut sums);
        store(row, column, &sums[..STRIP.min(dh - column)]);
    };
    let count = values.len() / dh;
    let mut column = 0;
    while column + V * STRIP <= dh {
        let load = |slot: usize| -> [I::Float; V] {
            let value = values[slot * dh + column..][..V * STRIP].as_chunks().0;
            if slot * dh % step < dh {
                ahead.next().map(prefetch);
            }
            std::array::from_fn(|i| T::load(isa, &value[i]))
        };
        let sums = weigh::<I, R, V>(isa, scores, count, load);
        for (row, sums) in sums.into_iter().enumerate() {
            sums.into_iter().enumerate().for_each(|(i, sum)| write(row, column + i * STRIP, sum));
        }
        column += V * STRIP;
    }
    while column < dh {
        let load = |slot: usize| -> [I::Float; 1] {
            let mut padded = [T::from(F32x8::zero())[0]; STRIP];
            let value = &values[slot * dh..(slot + 1) * dh][column..];
            padded.iter_mut().zip(value).for_each(|(to, &x)| *to = x);
            [T::load(isa, &padded)]
        };
        let sums = weigh::<I, R, 1>(isa, scores, count, load);
        sums.into_iter().enumerate().for_each(|(row, [sum])| write(row, column, sum));
        column += STRIP;
    }
}

/// Scores of `N` groups of slots, scaled. `meanwhile` is called for each of the queries' numbers.
#[inline(always)]
fn score<I: Isa, T: Element, const R: usize, const N: usize>(
    isa: I,
    queries: [&[f32]; R],
    keys: [&[[T; STRIP]]; N],
    scores: &mut [[[f32; STRIP]; TILE]],
    mut meanwhile: impl FnMut(),
) {
    let len = queries[0].len();
    let (queries, keys) = (queries.map(|q| &q[..len]), keys.map(|k| &k[..len]));
    let mut sums = [[isa.splat(0.0); N]; R];
    for i in 0..len {
        meanwhile();
        let keys = keys.map(|k| T::load(isa, &k[i]));
        for (sums, query) in sums.iter_mut().zip(&queries) {
            let query = isa.splat(query[i]);
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = isa.mul_add(key, query, *sum);
            }
        }
    }
    let scale = isa.splat(1.0 / (len as f32).sqrt());
    for (row, sums) in sums.iter().enumerate() {
        for (scores, &sum) in scores.iter_mut().zip(sums) {
            isa.store_floats(isa.mul(sum, scale), &mut scores[row]);
        }
    }
}

/// scores = e^(scores - their maximum), 0 for slots that a row does not see. Returns 1 / their sums.
#[inline(always)]
fn softmax<const R: usize>(
    scores: &mut [[[f32; STRIP]; TILE]],
    seen: [usize; TILE],
    besides: [Option<usize>; TILE],
) -> [f32; R] {
    std::array::from_fn(|row| {
        for slot in seen[row]..scores.len() * STRIP {
            if besides[row] != Some(slot) {
                scores[slot / STRIP][row][slot % STRIP] = f32::NEG_INFINITY;
            }
        }
        let mut peak = F32x8::splat(f32::NEG_INFINITY);
        for scores in scores.iter().flat_map(|scores| scores[row].as_chunks().0) {
            peak = F32x8::load(scores).max(peak);
        }
        let peak = F32x8::splat(peak.largest());
        let mut sum = F32x8::zero();
        for scores in scores.iter_mut().flat_map(|scores| scores[row].as_chunks_mut().0) {
            let weight = F32x8::load(scores).sub(peak).exp();
            sum = sum.add(weight);
            weight.store(scores);
        }
        1.0 / sum.sum()
    })
}

/// The weighted sums of `V` vectors of the values of `count` slots.
#[inline(always)]
fn weigh<I: Isa, const R: usize, const V: usize>(
    isa: I,
    scores: &[[[f32; STRIP]; TILE]],
    count: usize,
    mut load: impl FnMut(usize) -> [I::Float; V],
) -> [[I::Float; V]; R] {
    let mut sums = [[isa.splat(0.0); V]; R];
    for (group, scores) in scores.iter().enumerate() {
        let first = group * STRIP;
        for slot in first..count.min(first + STRIP) {
            let values = load(slot);
            for (sums, scores) in sums.iter_mut().zip(scores) {
                let score = isa.splat(scores[slot - first]);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = isa.mul_add(value, score, *sum);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::testing::noise;

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
            let mut side_by_side = vec![f32::NAN; slots.next_multiple_of(SIDE_BY_SIDE) * dh];
            for (slot, key) in keys.chunks_exact(dh).enumerate() {
                for (i, &k) in key.iter().enumerate() {
                    side_by_side[key_place(slot, dh) + i * SIDE_BY_SIDE] = k;
                }
            }
            let seen = [slots, slots.div_ceil(2), 1, slots - slots / 4];
            let besides = [None, Some(slots - 1), Some(slots / 2), None];
            let mut single = vec![];
            for rows in 1..=TILE {
                let first: Vec<usize> = if rows == 1 { (0..TILE).collect() } else { vec![0] };
                for first in first {
                    let at = |i: usize| (first + i).min(TILE - 1);
                    let attended = |machine| {
                        let mut out = vec![0.0; rows * dh];
                        let head = Head {
                            queries: std::array::from_fn(|i| &queries[at(i) * dh..(at(i) + 1) * dh]),
                            seen: std::array::from_fn(|i| seen[at(i)]),
                            besides: std::array::from_fn(|i| besides[at(i)]),
                            keys: &side_by_side,
                            values: &values,
                            scores: &mut vec![0.0; TILE * slots.next_multiple_of(SIDE_BY_SIDE)],
                        };
                        attend(machine, head, rows, |row, column, y| {
                            out[row * dh + column..][..y.len()].copy_from_slice(y);
                        });
                        out
                    };
                    let out = attended(Machine::detect());
                    for machine in Machine::all().filter(|machine| machine.is_fused()) {
                        assert!(attended(machine) == out, "{machine:?}, {slots} slots of {dh}");
                    }
                    for (i, row) in out.chunks_exact(dh).enumerate() {
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
