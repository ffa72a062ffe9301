//! A block's attention within a pass: its keys and values go into the cache, its queries over it.

use std::ops::Range;

use crate::error::Error;
use crate::forward::Segment;
use crate::forward::cpu::kernels::attention::{self, Element, Head, SIDE_BY_SIDE, TILE};
use crate::forward::cpu::kernels::rowwise::rotate;
use crate::forward::cpu::layers::{ALONE, Network, few};
use crate::forward::cpu::threads::clock::Part;
use crate::forward::cpu::threads::pool::Worker;
use crate::forward::cpu::threads::shared::Shared;
use crate::memory::Region;
use crate::simd::{F32x8, LANES};

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

    /// Puts the pass's keys and values into the cache and has queries look at it: those of each segment's last rows, as
    /// many as `part` says. There are `queries` of them, and `place` says which row of the pass each is.
    pub(super) fn attend<T: Element>(
        &self,
        worker: &Worker<'_>,
        number: usize,
        queries: usize,
        place: impl Fn(usize) -> usize,
        part: impl Fn(&Segment) -> usize,
    ) -> Option<()> {
        let heads = self.config.head_count;
        let caches = self.block_cache::<T>(number)?;
        // SAFETY: each thread has its own.
        let scores = unsafe {
            let mine = self.scores.share(worker.index, worker.threads());
            mine.write(0..self.capacity.slots * TILE)
        };
        let groups = |s: &Segment| side_by_side(s).len();
        let tiles = |s: &Segment| part(s).div_ceil(TILE);
        let segments = &self.batch.segments;
        let (groups_of_all, tiles_of_all) =
            (segments.iter().map(groups).sum::<usize>(), segments.iter().map(tiles).sum::<usize>());
        let fill = |head: usize, group: usize| {
            let (_, segment, group) = locate(segments, group, groups)?;
            if self.cache_group(segment, side_by_side(segment).start + group, head, caches) {
                worker.fail(Error::NotFinite(format!(
                    "block {number} has keys or values that are too large for a K/V cache in f16; choose f32 \
                     (kv_type, --kv-type f32)"
                )));
            }
            Some(())
        };
        if self.batch.tokens.len() <= ALONE {
            for head in worker.pieces(heads) {
                (0..groups_of_all).try_for_each(|group| fill(head, group))?;
                (0..queries).for_each(|row| self.rotate_query(row, place(row), head..head + 1));
                self.lap(worker, Part::Rest);
                for tile in 0..tiles_of_all {
                    self.attend_tile(head, tile, caches, scores, (&tiles, &part))?;
                }
                self.lap(worker, Part::Attention);
            }
            return self.done(worker, Part::Attention);
        }
        // The slots of a segment whose keys lie side by side, head by head; then queries.
        let few = few(queries);
        for task in worker.pieces(groups_of_all * heads + queries.div_ceil(few)) {
            match task.checked_sub(groups_of_all * heads) {
                None => fill(task / groups_of_all, task % groups_of_all)?,
                Some(first) => (first * few..queries.min((first + 1) * few))
                    .for_each(|row| self.rotate_query(row, place(row), 0..heads)),
            }
        }
        self.done(worker, Part::Rest)?;
        for task in worker.pieces(tiles_of_all * heads) {
            self.attend_tile(task / tiles_of_all, task % tiles_of_all, caches, scores, (&tiles, &part))?;
        }
        self.done(worker, Part::Attention)
    }

    /// Rotates some heads of a query, which is one row of the pass.
    fn rotate_query(&self, query: usize, row: usize, heads: Range<usize>) {
        let (d, dh) = (self.config.embedding_length, self.config.head_dim());
        // SAFETY: see above.
        let q = unsafe { self.q.write(query * d + heads.start * dh..query * d + heads.end * dh) };
        q.chunks_exact_mut(dh).for_each(|head| rotate(head, self.turn(row)));
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

    /// Attention of one head's tile of queries into `attention`.
    fn attend_tile<T: Element>(
        &self,
        head: usize,
        tile: usize,
        [keys, values]: [Shared<'a, T>; 2],
        scores: &mut [f32],
        (tiles, part): (impl Fn(&Segment) -> usize, impl Fn(&Segment) -> usize),
    ) -> Option<()> {
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let (before, segment, tile) = locate(&self.batch.segments, tile, tiles)?;
        let first: usize = before.iter().map(&part).sum();
        let rows = (part(segment) - tile * TILE).min(TILE);
        let first = first + tile * TILE;
        let in_pass = segment.first_row + segment.rows - part(segment) + tile * TILE;
        let visible_slots = self.batch.visible_slots.get(in_pass..in_pass + rows)?;
        let seen: [usize; TILE] = std::array::from_fn(|i| visible_slots.get(i).map_or(0, |&s| s as usize));
        let itself = self.batch.sees_itself.get(in_pass..in_pass + rows)?;
        let slot = |i: usize| segment.first_slot + in_pass - segment.first_row + i;
        let besides: [Option<usize>; TILE] =
            std::array::from_fn(|i| itself.get(i).and_then(|&yes| yes.then(|| slot(i))));
        let most = seen.into_iter().chain(besides.into_iter().flatten().map(|s| s + 1)).max()?;
        let row = |i: usize| (first + i.min(rows - 1)) * d + head * dh;
        let cache = (segment.sequence * heads + head) * self.capacity.slots * dh;
        let groups = most.div_ceil(SIDE_BY_SIDE);
        // SAFETY: see above.
        let head = unsafe {
            Head {
                queries: std::array::from_fn(|i| self.q.read(row(i)..row(i) + dh)),
                seen,
                besides,
                keys: keys.read(cache..cache + groups * SIDE_BY_SIDE * dh),
                values: values.read(cache..cache + most * dh),
                scores,
            }
        };
        attention::attend(self.machine, head, rows, |i, column, values| {
            let at = row(i) + column;
            // SAFETY: see above.
            unsafe { self.attention.write(at..at + values.len()) }.copy_from_slice(values);
        });
        Some(())
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
