//! A block's attention within a pass: its keys and values go into the cache, its queries over it.

use std::ops::Range;

use super::attention::{self, Element, Head, SIDE_BY_SIDE, TILE};
use super::clock::Part;
use super::memory::Shared;
use super::norm::rotate;
use super::pass::{Network, few};
use super::pool::Worker;
use super::simd::{F32x8, LANES};
use crate::error::Error;
use crate::forward::Segment;
use crate::ggml::Region;

// SAFETY of all borrows below: as in `pass`.
impl<'a> Network<'a> {
    /// Block `number`'s keys [16, Dh, S / 16, H, B] and values [Dh, S, H, B].
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
        let caches = self.block_cache::<T>(number)?;
        let few = few(queries);
        // Tasks: the slots of a segment whose keys lie side by side, head by head; then queries.
        let count: usize = self.pass.segments.iter().map(|s| side_by_side(s).len()).sum();
        for task in worker.pieces(count * heads + queries.div_ceil(few)) {
            if let Some(first) = task.checked_sub(count * heads) {
                for row in first * few..queries.min((first + 1) * few) {
                    // SAFETY: see above.
                    let q = unsafe { self.q.write(row * d..(row + 1) * d) };
                    q.chunks_exact_mut(dh).for_each(|head| rotate(head, self.turn(place(row))));
                }
                continue;
            }
            let head = task / count;
            let (_, segment, group) = locate(&self.pass.segments, task % count, |s| side_by_side(s).len())?;
            if self.cache_group(segment, side_by_side(segment).start + group, head, caches) {
                worker.fail(Error::NotFinite(format!(
                    "block {number} has keys or values that are too large for a K/V cache in f16; choose f32 \
                     (kv_type, --kv-type f32)"
                )));
            }
        }
        self.done(worker, Part::Rest)
    }

    /// The rotation of a row.
    fn turn(&self, row: usize) -> &'a [f32] {
        let dh = self.config.head_dim();
        // SAFETY: see above.
        unsafe { self.angles.read(row * dh..(row + 1) * dh) }
    }

    /// Puts those of a segment's rows into one head's cache whose keys lie side by side, and says whether any number
    /// is too large for it.
    fn cache_group<T: Element>(
        &self,
        segment: &Segment,
        group: usize,
        head: usize,
        [keys, values]: [Shared<'a, T>; 2],
    ) -> bool {
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let mut too_large = false;
        let first = (segment.sequence * heads + head) * self.capacity.slots * dh;
        let begin = segment.first_slot.max(group * SIDE_BY_SIDE);
        let slots = begin..(segment.first_slot + segment.rows).min((group + 1) * SIDE_BY_SIDE);
        let row = |slot: usize| segment.first_row + slot - segment.first_slot;
        for slot in slots.clone() {
            let at = row(slot) * 2 * d + head * dh;
            // SAFETY: see above.
            let (k, v) = unsafe { (self.kv.write(at..at + dh), self.kv.read(at + d..at + d + dh)) };
            rotate(k, self.turn(row(slot)));
            too_large |= any_too_large::<T>(k) | any_too_large::<T>(v);
            let at = first + slot * dh;
            // SAFETY: see above.
            let to = unsafe { values.write(at..at + dh) };
            for (v, to) in v.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
                *to = T::from(F32x8::load(v));
            }
        }
        // A few dimensions of all slots at a time, which lie together.
        let place = first + attention::key_place(begin, dh);
        for i in (0..dh).step_by(LANES) {
            for slot in slots.clone() {
                let at = row(slot) * 2 * d + head * dh + i;
                // SAFETY: see above.
                let k = unsafe { self.kv.read(at..at + LANES) }.as_chunks().0;
                for (lane, k) in k.iter().flat_map(|k| T::from(F32x8::load(k))).enumerate() {
                    // SAFETY: see above.
                    unsafe { keys.set(place + slot - begin + (i + lane) * SIDE_BY_SIDE, k) };
                }
            }
        }
        too_large
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
            let head = task / count;
            let (before, segment, tile) = locate(&self.pass.segments, task % count, tiles)?;
            let first: usize = before.iter().map(&part).sum();
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
            let groups = most.div_ceil(SIDE_BY_SIDE);
            // SAFETY: see above.
            let head = unsafe {
                Head {
                    queries: std::array::from_fn(|i| self.q.read(row(i)..row(i) + dh)),
                    seen,
                    besides,
                    keys: keys.read(cache..cache + groups * SIDE_BY_SIDE * dh),
                    values: values.read(cache..cache + most * dh),
                    scores: &mut *scores,
                }
            };
            attention::attend(self.machine, head, rows, |i, column, values| {
                let at = row(i) + column;
                // SAFETY: see above.
                unsafe { self.attention.write(at..at + values.len()) }.copy_from_slice(values);
            });
        }
        self.done(worker, Part::Attention)
    }
}

/// The segment that one of all segments' pieces is of, if each has so many, with the segments before it and the piece's
/// number within it.
fn locate(
    segments: &[Segment],
    mut piece: usize,
    pieces: impl Fn(&Segment) -> usize,
) -> Option<(&[Segment], &Segment, usize)> {
    for (number, segment) in segments.iter().enumerate() {
        match piece.checked_sub(pieces(segment)) {
            Some(rest) => piece = rest,
            None => return Some((segments.get(..number)?, segment, piece)),
        }
    }
    None
}

/// Groups of slots whose keys lie side by side, in which a segment has rows.
fn side_by_side(s: &Segment) -> Range<usize> {
    s.first_slot / SIDE_BY_SIDE..(s.first_slot + s.rows).div_ceil(SIDE_BY_SIDE)
}

/// Whether any of `values`, which are finite, would not be so in the cache. (What is not finite already is noticed in
/// the logits.) Without a branch per number, so that it takes vectors.
fn any_too_large<T: Element>(values: &[f32]) -> bool {
    values.iter().fold(false, |any, x| any | (x.abs() >= T::TOO_LARGE && x.abs() < f32::INFINITY))
}
