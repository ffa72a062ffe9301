//! Attention of a few queries of one head over the K/V cache. (`benches/cycles` looks at its loops one by one.)

use half::f16;

use super::cache::{CacheElement, SCALED};
use super::isa::{Isa, Platform, WIDTH, WithIsa};
use crate::simd::{prefetch, wide};

/// Queries that attend together, in one pass over the cache.
pub(crate) const TILE: usize = 4;

/// The input of one head: `queries` [Dh, rows], `keys` [KEY_GROUP, Dh, slots / KEY_GROUP], `values` [Dh, slots]. Query i
/// attends to the first `visible_slots[i]` slots and to `own_slots[i]`. `scores` has room for [TILE, slots]. `next_keys` are those
/// that the thread needs next, which are prefetched. `key_scales` and `value_scales` [KEY_GROUP, Dh / SCALED, slots / KEY_GROUP] if
/// the numbers have scales.
pub(crate) struct Head<'a, T> {
    pub(crate) queries: [&'a [f32]; TILE],
    pub(crate) visible_slots: [usize; TILE],
    pub(crate) own_slots: [Option<usize>; TILE],
    pub(crate) keys: &'a [T],
    pub(crate) values: &'a [T],
    pub(crate) key_scales: &'a [f16],
    pub(crate) value_scales: &'a [f16],
    pub(crate) next_keys: &'a [T],
    pub(crate) scores: &'a mut [f32],
}

/// softmax(q k^T / sqrt(Dh)) v of the first `rows` queries. `store` is called with some columns of the result at a time:
/// (query, first column, values). These do not depend on the other queries, nor on the instruction set.
pub(crate) fn attend<T: CacheElement>(
    platform: Platform,
    head: Head<'_, T>,
    rows: usize,
    store: impl FnMut(usize, usize, &[f32]),
) {
    platform.run(Attend { head, rows, store });
}

struct Attend<'a, T, S> {
    head: Head<'a, T>,
    rows: usize,
    store: S,
}

impl<T: CacheElement, S: FnMut(usize, usize, &[f32])> WithIsa for Attend<'_, T, S> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { head, rows, store } = self;
        // As many sums at once as there are registers for, which hides the latency of the additions. (`benches/cycles` has these
        // numbers, too, in attention.rs and table.py.)
        match (rows, I::REGISTERS >= 32) {
            (1, true) => attend_rows::<I, T, 1, 8, 1, 4>(isa, head, store),
            (2, true) => attend_rows::<I, T, 2, 8, 1, 4>(isa, head, store),
            (3, true) => attend_rows::<I, T, 3, 4, 2, 4>(isa, head, store),
            (_, true) => attend_rows::<I, T, TILE, 4, 2, 4>(isa, head, store),
            (1, _) => attend_rows::<I, T, 1, 4, 2, 4>(isa, head, store),
            (2, _) => attend_rows::<I, T, 2, 2, 4, 2>(isa, head, store),
            (3, _) => attend_rows::<I, T, 3, 1, 8, 1>(isa, head, store),
            _ => attend_rows::<I, T, TILE, 1, 8, 1>(isa, head, store),
        }
    }
}

/// For `R` queries, with `D` dimensions of `N` key groups and `V` vectors of values at once.
#[inline(always)]
fn attend_rows<I: Isa, T: CacheElement, const R: usize, const N: usize, const D: usize, const V: usize>(
    isa: I,
    head: Head<'_, T>,
    mut store: impl FnMut(usize, usize, &[f32]),
) {
    let Head { queries, visible_slots, own_slots, keys, values, key_scales, value_scales, next_keys, scores } =
        head;
    let dh = queries[0].len();
    let mut ahead = CacheAhead::new([keys, values, next_keys], N * WIDTH * dh);
    let keys = keys.as_chunks().0;
    let scores = &mut scores.as_chunks_mut::<WIDTH>().0.as_chunks_mut::<TILE>().0[..keys.len() / dh];
    let mut rows = [queries[0]; R];
    rows.copy_from_slice(&queries[..R]);
    let mut keys = keys.chunks_exact(dh);
    let mut chunks = scores.chunks_exact_mut(N);
    let mut scales = scales_by_group::<T>(key_scales, dh);
    for scores in &mut chunks {
        // There are as many; an empty slice would panic in `score`.
        let (mut groups, mut their_scales): ([Vectors<'_, T>; N], [Vectors<'_, f16>; N]) =
            ([&[]; N], [&[]; N]);
        for n in 0..N {
            groups[n] = keys.next().unwrap_or(&[]);
            their_scales[n] = scales.next().unwrap_or(&[]);
        }
        score::<I, T, R, N, D>(isa, rows, (groups, their_scales), scores, &mut ahead);
    }
    for (scores, keys) in chunks.into_remainder().iter_mut().zip(keys) {
        let keys = ([keys], [scales.next().unwrap_or(&[])]);
        score::<I, T, R, 1, 8>(isa, rows, keys, std::slice::from_mut(scores), &mut ahead);
    }
    let inverse = softmax::<R>(scores, visible_slots, own_slots);
    let mut column = 0;
    while column + V * WIDTH <= dh {
        let sums = weighted_sums::<I, T, R, V, true>(
            isa,
            scores,
            (values, value_scales),
            (dh, column),
            Some(&mut ahead),
        );
        for row in 0..R {
            let mut values = [[0.0; WIDTH]; V];
            for v in 0..V {
                values[v] = scaled(isa, sums[row][v], inverse[row]);
            }
            store(row, column, values.as_flattened());
        }
        column += V * WIDTH;
    }
    while column < dh {
        let sums =
            weighted_sums::<I, T, R, 1, false>(isa, scores, (values, value_scales), (dh, column), None);
        for row in 0..R {
            store(row, column, &scaled(isa, sums[row][0], inverse[row])[..WIDTH.min(dh - column)]);
        }
        column += WIDTH;
    }
}

/// What is prefetched, in the order in which it is read: keys, values, and the keys that the thread needs next; `by` numbers ahead.
pub(crate) struct CacheAhead<'a, T> {
    parts: [&'a [T]; 2],
    /// What is left of the part before these.
    now: &'a [T],
}

impl<'a, T> CacheAhead<'a, T> {
    #[inline(always)]
    pub(crate) fn new([keys, values, next_keys]: [&'a [T]; 3], by: usize) -> Self {
        let (_, now) = keys.split_at(keys.len().min(by));
        Self { parts: [values, next_keys], now }
    }

    /// As many numbers as are read now.
    #[inline(always)]
    fn prefetch(&mut self, count: usize) {
        if self.now.is_empty() {
            let [next, then] = self.parts;
            (self.now, self.parts) = (next, [then, &[]]);
        }
        let (some, rest) = self.now.split_at(count.min(self.now.len()));
        prefetch(some);
        self.now = rest;
    }
}

/// x * by, in memory.
#[inline(always)]
fn scaled<I: Isa>(isa: I, x: I::F32, by: f32) -> [f32; WIDTH] {
    let mut to = [0.0; WIDTH];
    isa.store_f32(isa.mul(x, isa.splat(by)), &mut to);
    to
}

/// Numbers of all slots of a key group at a time.
type Vectors<'a, T> = &'a [[T; WIDTH]];

/// The scales of keys or values [KEY_GROUP, Dh / SCALED], one key group after the other; nothing if they have none.
#[inline(always)]
fn scales_by_group<T: CacheElement>(scales: &[f16], dh: usize) -> impl Iterator<Item = Vectors<'_, f16>> {
    let per_group = if T::HAS_SCALES { dh / SCALED } else { 1 };
    scales.as_chunks().0.chunks_exact(per_group)
}

/// q k^T / sqrt(Dh) of `N` key groups. `D` dimensions come at once, which a head has a multiple of: as much is prefetched then. `N`
/// times `D` is 8 at most; the more is asked for at once, the more cache lines wait for each other.
#[inline(always)]
pub(crate) fn score<I: Isa, T: CacheElement, const R: usize, const N: usize, const D: usize>(
    isa: I,
    queries: [&[f32]; R],
    (keys, scales): ([Vectors<'_, T>; N], [Vectors<'_, f16>; N]),
    scores: &mut [[[f32; WIDTH]; TILE]],
    ahead: &mut CacheAhead<'_, T>,
) {
    const { assert!(D * N <= 8 && SCALED.is_multiple_of(D)) };
    let len = queries[0].len();
    // `CpuRunner::supports`
    debug_assert!(len.is_multiple_of(8));
    let chunks = len / D;
    // One length for all lets the compiler see that every index is in bounds.
    let mut of_queries: [&[[f32; D]]; R] = [&[]; R];
    for row in 0..R {
        of_queries[row] = &queries[row].as_chunks().0[..chunks];
    }
    let mut of_keys: [&[[[T; WIDTH]; D]]; N] = [&[]; N];
    for n in 0..N {
        of_keys[n] = &keys[n].as_chunks().0[..chunks];
    }
    let mut totals = [[isa.splat(0.0); N]; R];
    // All dimensions, or those that share a scale.
    let together = if T::HAS_SCALES { const { SCALED / D } } else { chunks.max(1) };
    for start in (0..chunks).step_by(together) {
        let mut sums = [[isa.splat(0.0); N]; R];
        for chunk in start..chunks.min(start + together) {
            ahead.prefetch(D * N * WIDTH);
            for d in 0..D {
                let mut all = [isa.splat(0.0); N];
                for n in 0..N {
                    all[n] = T::load(isa, &of_keys[n][chunk][d]);
                }
                for row in 0..R {
                    let query = isa.splat(of_queries[row][chunk][d]);
                    for n in 0..N {
                        sums[row][n] = isa.mul_add(all[n], query, sums[row][n]);
                    }
                }
            }
        }
        if const { !T::HAS_SCALES } {
            totals = sums;
            break;
        }
        for n in 0..N {
            let scale = isa.load_f16(&scales[n][start * D / SCALED]);
            for row in 0..R {
                totals[row][n] = isa.mul_add(sums[row][n], scale, totals[row][n]);
            }
        }
    }
    let scale = isa.splat(1.0 / (len as f32).sqrt());
    for row in 0..R {
        for n in 0..N {
            isa.store_f32(isa.mul(totals[row][n], scale), &mut scores[n][row]);
        }
    }
}

wide! {
    /// scores = e^(scores - their maximum), 0 for slots that a query does not attend to. Returns 1 / their sums.
    fn softmax<V, const R: usize>(
        scores: &mut [[[f32; WIDTH]; TILE]],
        visible_slots: [usize; TILE],
        own_slots: [Option<usize>; TILE],
    ) -> [f32; R] {
        let mut inverse = [0.0; R];
        for (row, inverse) in inverse.iter_mut().enumerate() {
            for slot in visible_slots[row]..scores.len() * WIDTH {
                if own_slots[row] != Some(slot) {
                    scores[slot / WIDTH][row][slot % WIDTH] = f32::NEG_INFINITY;
                }
            }
            let mut peak = V::splat(f32::NEG_INFINITY);
            let scores = scores.as_flattened_mut().as_flattened_mut().as_chunks_mut().0;
            let vectors = scores.len() / TILE;
            let index = |vector: usize| (vector / 2 * TILE + row) * 2 + vector % 2;
            for vector in 0..vectors {
                peak = V::load(&scores[index(vector)]).max(peak);
            }
            let peak = V::splat(peak.largest());
            let mut sum = V::zero();
            for vector in 0..vectors {
                let scores = &mut scores[index(vector)];
                let weight = V::load(scores).sub(peak).exp();
                weight.store(scores);
                sum = sum.add(weight);
            }
            *inverse = 1.0 / sum.sum();
        }
        inverse
    }
}

/// The first `V` vectors of a row, or one that is padded with zeros unless rows are `WHOLE`.
#[inline(always)]
fn load_values<I: Isa, T: CacheElement, const V: usize, const WHOLE: bool>(isa: I, row: &[T]) -> [I::F32; V] {
    let mut values = [isa.splat(0.0); V];
    if WHOLE || row.len() >= V * WIDTH {
        let row = row[..V * WIDTH].as_chunks().0;
        for v in 0..V {
            values[v] = T::load(isa, &row[v]);
        }
    } else {
        let mut padded = [T::ZERO; WIDTH];
        let len = row.len().min(WIDTH);
        padded[..len].copy_from_slice(&row[..len]);
        values[0] = T::load(isa, &padded);
    }
    values
}

/// Slots whose values are prefetched at once.
const SLOTS_AT_ONCE: usize = 4;

/// The sums of `V` vectors of values, weighted by the scores of their slots: of rows of `dh` values those from `column` on, with
/// zeros behind the last unless rows are `WHOLE`.
///
/// (Neither here nor in what is called are values loaded by a closure: it would be compiled by itself, and in a build for processors
/// without these instructions each of them would be a call.)
#[inline(always)]
pub(crate) fn weighted_sums<I: Isa, T: CacheElement, const R: usize, const V: usize, const WHOLE: bool>(
    isa: I,
    scores: &[[[f32; WIDTH]; TILE]],
    (values, scales): (&[T], &[f16]),
    (dh, column): (usize, usize),
    mut ahead: Option<&mut CacheAhead<'_, T>>,
) -> [[I::F32; V]; R] {
    const { assert!(WIDTH.is_multiple_of(SLOTS_AT_ONCE)) };
    let mut sums = [[isa.splat(0.0); V]; R];
    let mut scales = scales_by_group::<T>(scales, dh);
    let mut rest = values;
    for scores in scores {
        // The scores times the scales of each vector.
        let mut scaled = [[[0.0; WIDTH]; V]; R];
        if const { T::HAS_SCALES } {
            let scales = scales.next().unwrap_or(&[]);
            for v in 0..V {
                let scale = isa.load_f16(&scales[(column + v * WIDTH) / SCALED]);
                for row in 0..R {
                    isa.store_f32(isa.mul(isa.load_f32(&scores[row]), scale), &mut scaled[row][v]);
                }
            }
        }
        // Adds a slot's values.
        macro_rules! multiply {
            ($row:expr, $slot:expr) => {
                let values = load_values::<I, T, V, WHOLE>(isa, &$row[column..]);
                for row in 0..R {
                    let score = isa.splat(scores[row][$slot]);
                    for v in 0..V {
                        let score = if T::HAS_SCALES { isa.splat(scaled[row][v][$slot]) } else { score };
                        sums[row][v] = isa.mul_add(values[v], score, sums[row][v]);
                    }
                }
            };
        }
        let Some((now, behind)) = rest.split_at_checked(WIDTH * dh) else {
            // The last slots, fewer than a group.
            for (slot, row) in rest.chunks_exact(dh).take(WIDTH).enumerate() {
                if slot % SLOTS_AT_ONCE == 0
                    && let Some(ahead) = &mut ahead
                {
                    ahead.prefetch(SLOTS_AT_ONCE * dh);
                }
                multiply!(row, slot);
            }
            break;
        };
        rest = behind;
        for first in (0..WIDTH).step_by(SLOTS_AT_ONCE) {
            if let Some(ahead) = &mut ahead {
                ahead.prefetch(SLOTS_AT_ONCE * dh);
            }
            let now = &now[first * dh..][..SLOTS_AT_ONCE * dh];
            for slot in 0..SLOTS_AT_ONCE {
                multiply!(now[slot * dh..][..dh], first + slot);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests;
