//! A block's attention within a pass: its keys and values go into the cache, its queries over it.

use super::attention::{self, Element, Head, TILE};
use super::clock::Part;
use super::memory::Shared;
use super::norm::rotate;
use super::pass::{FEW_ROWS, Network};
use super::pool::Worker;
use super::simd::{F32x8, LANES};
use crate::error::Error;
use crate::forward::Segment;
use crate::ggml::Region;

// SAFETY of all borrows below: as in `pass`.
impl<'a> Network<'a> {
    /// Block `number`'s keys [8, Dh, S / 8, H, B] and values [Dh, S, H, B].
    fn block_cache<T: Element>(&self, number: usize) -> Option<[Shared<'a, T>; 2]> {
        let shared = |region: &Region| {
            let start = self.arena.part(region.offset, region.len).ok()?.cast::<T>();
            // SAFETY: as for the other parts; the cache holds elements of this type alone.
            Some(unsafe { Shared::new(start, region.len / size_of::<T>()) })
        };
        Some([shared(self.layout.keys.get(number)?)?, shared(self.layout.values.get(number)?)?])
    }

    /// Rotates queries and keys, and puts keys and values into the cache. `place` says which row of the pass each
    /// of the `queries` is.
    pub(super) fn cache<T: Element>(
        &self,
        worker: &Worker<'_>,
        number: usize,
        queries: usize,
        place: impl Fn(usize) -> usize,
    ) -> Option<()> {
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let slots = self.capacity.slots;
        let [keys, values] = self.block_cache::<T>(number)?;
        let rows = self.pass.tokens.len();
        for task in worker.ranges(rows + queries, FEW_ROWS).flatten() {
            let turn = |row: usize| {
                // SAFETY: see above.
                unsafe { self.angles.read(row * dh..(row + 1) * dh) }
            };
            let Some(row) = task.checked_sub(queries) else {
                // SAFETY: see above.
                let q = unsafe { self.q.write(task * d..(task + 1) * d) };
                q.chunks_exact_mut(dh).for_each(|head| rotate(head, turn(place(task))));
                continue;
            };
            let segment = self.pass.segments.iter().find(|s| row < s.first_row + s.rows)?;
            let slot = segment.first_slot + row - segment.first_row;
            // SAFETY: see above.
            let (k, v) = unsafe { self.kv.write(row * 2 * d..(row + 1) * 2 * d) }.split_at_mut(d);
            k.chunks_exact_mut(dh).for_each(|head| rotate(head, turn(row)));
            let (k, v) = (&*k, &*v);
            if any_too_large::<T>(k) || any_too_large::<T>(v) {
                worker.fail(Error::NotFinite(format!(
                    "block {number} has keys or values that are too large for a K/V cache in f16; choose f32 \
                     (kv_type, --kv-type f32)"
                )));
            }
            for (head, (k, v)) in k.chunks_exact(dh).zip(v.chunks_exact(dh)).enumerate() {
                let first = (segment.sequence * heads + head) * slots * dh;
                let place = first + attention::key_place(slot, dh);
                for (i, k) in k.as_chunks().0.iter().enumerate() {
                    for (lane, k) in T::from(F32x8::load(k)).into_iter().enumerate() {
                        // SAFETY: see above.
                        unsafe { keys.set(place + (i * LANES + lane) * LANES, k) };
                    }
                }
                let at = first + slot * dh;
                // SAFETY: see above.
                let to = unsafe { values.write(at..at + dh) };
                for (v, to) in v.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
                    *to = T::from(F32x8::load(v));
                }
            }
        }
        self.done(worker, Part::Rest)
    }

    /// Attention of each segment's last rows, as many as `part` says, into `attention`.
    pub(super) fn attend<T: Element>(
        &self,
        worker: &Worker<'_>,
        number: usize,
        part: impl Fn(&Segment) -> usize,
    ) -> Option<()> {
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let slots = self.capacity.slots;
        let [keys, values] = self.block_cache::<T>(number)?;
        let tiles = |s: &Segment| part(s).div_ceil(TILE);
        let count: usize = self.pass.segments.iter().map(tiles).sum();
        let mine = slots * TILE;
        // SAFETY: each thread has its own.
        let scores = unsafe { self.scores.write(worker.index * mine..(worker.index + 1) * mine) };
        for task in worker.pieces(count * heads) {
            let (head, mut tile) = (task / count, task % count);
            let mut first = 0;
            let mut segments = self.pass.segments.iter();
            let segment = segments.find(|s| {
                let here = tile < tiles(s);
                if !here {
                    tile -= tiles(s);
                    first += part(s);
                }
                here
            })?;
            let rows = (part(segment) - tile * TILE).min(TILE);
            let first = first + tile * TILE;
            let in_pass = segment.first_row + segment.rows - part(segment) + tile * TILE;
            let sees = self.pass.sees.get(in_pass..in_pass + rows)?;
            let seen: [usize; TILE] = std::array::from_fn(|i| sees.get(i).map_or(0, |&s| s as usize));
            let itself = self.pass.and_itself.get(in_pass..in_pass + rows)?;
            let slot = |i: usize| segment.first_slot + in_pass - segment.first_row + i;
            let besides: [Option<usize>; TILE] =
                std::array::from_fn(|i| itself.get(i).and_then(|&yes| yes.then(|| slot(i))));
            let most = seen.into_iter().chain(besides.into_iter().flatten().map(|s| s + 1)).max()?;
            let row = |i: usize| (first + i.min(rows - 1)) * d + head * dh;
            let cache = (segment.sequence * heads + head) * slots * dh;
            let groups = most.div_ceil(LANES);
            // SAFETY: see above.
            let head = unsafe {
                Head {
                    queries: std::array::from_fn(|i| self.q.read(row(i)..row(i) + dh)),
                    seen,
                    besides,
                    keys: keys.read(cache..cache + groups * LANES * dh),
                    values: values.read(cache..cache + most * dh),
                    scores: &mut *scores,
                }
            };
            attention::attend(head, rows, |i, column, values| {
                let at = row(i) + column;
                // SAFETY: see above.
                let to = unsafe { self.attention.write(at..at + LANES) };
                to.as_chunks_mut().0.iter_mut().for_each(|to| values.store(to));
            });
        }
        self.done(worker, Part::Attention)
    }
}

/// Whether any of `values`, which are finite, would not be so in the cache. (What is not finite already is noticed in
/// the logits.) Without a branch per number, so that it takes vectors.
fn any_too_large<T: Element>(values: &[f32]) -> bool {
    values.iter().fold(false, |any, x| any | (x.abs() >= T::TOO_LARGE && x.abs() < f32::INFINITY))
}
