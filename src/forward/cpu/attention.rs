//! The attention of a block: its keys and values go into the cache, then its queries attend to the cache.

use std::ops::Range;

use half::f16;

use crate::error::{Error, Result};
use crate::forward::batch::{Batch, Segment};
use crate::forward::cpu::kernels::attention::{self, Head, TILE};
use crate::forward::cpu::kernels::cache::{
    CacheElement, KEY_GROUP, SCALED, any_overflows, key_index, scale_index,
};
use crate::forward::cpu::kernels::rowwise::{head_norm, rotate};
use crate::forward::cpu::kernels::weights::Matrix;
use crate::forward::cpu::layout::MAX_LOCAL_ROWS;
use crate::forward::cpu::network::{BlockCache, CachePart, Network, Number, rows_per_piece};
use crate::forward::cpu::threads::Grain;
use crate::forward::cpu::threads::clock::Part;
use crate::forward::cpu::threads::crew::Crew;

/// The rows of a batch whose queries a block computes; of each segment, they are the last ones.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queries {
    /// All rows.
    All,
    /// The rows that want logits.
    Outputs,
}

impl Queries {
    fn count(self, batch: &Batch) -> usize {
        match self {
            Self::All => batch.tokens.len(),
            Self::Outputs => batch.outputs.len(),
        }
    }

    /// How many there are in a segment.
    fn of_segment(self, segment: &Segment) -> usize {
        match self {
            Self::All => segment.rows,
            Self::Outputs => segment.outputs,
        }
    }

    /// The row of the batch that is query number `query`.
    fn row(self, batch: &Batch, query: usize) -> usize {
        match self {
            Self::All => query,
            Self::Outputs => batch.outputs[query] as usize,
        }
    }

    /// How many the segments have.
    fn before(self, segments: &[Segment]) -> usize {
        segments.iter().map(|segment| self.of_segment(segment)).sum()
    }

    /// Tiles of queries of a segment that attend together, where each row has `group` heads that share keys and values.
    fn tiles(self, segment: &Segment, group: usize) -> usize {
        (self.of_segment(segment) * group).div_ceil(TILE)
    }
}

/// A tile of queries of a segment, which attend to head `head` of keys and values.
struct Tile<'s> {
    head: usize,
    /// The segments before this one.
    before: &'s [Segment],
    segment: &'s Segment,
    tile: usize,
    /// Head and segment of the thread's next tile, if there is one.
    next: Option<(usize, &'s Segment)>,
}

/// Numbers of a key that are converted together.
const CONVERTED: usize = 64;

// The safety comments rely on what `Network` says about pieces and operations.
impl<'a> Network<'a> {
    /// Puts the keys and values of the batch into the cache of block `block`, and computes the attention of `queries`.
    /// Those for [`Queries::Outputs`] take their rows of the residual stream along.
    pub(super) fn attend<T: CacheElement + Number>(
        &self,
        crew: &Crew<'_>,
        block: usize,
        norms: Option<[Matrix<'_>; 2]>,
        queries: Queries,
    ) -> Result<()> {
        // Heads of keys and values; the queries of `group` heads share one.
        let heads = self.config.kv_head_count();
        let group = self.config.head_count / heads;
        let [query_norm, key_norm] = norms.map_or([None; 2], |norms| norms.map(Some));
        let cache = self.block_cache::<T>(block)?;
        let segments = &self.batch.segments;
        let key_groups_of = |s: &Segment| key_groups(s).len();
        let tiles_of = |s: &Segment| queries.tiles(s, group);
        let groups: usize = segments.iter().map(key_groups_of).sum();
        let tiles: usize = segments.iter().map(tiles_of).sum();
        let (rows, count) = (self.batch.tokens.len(), queries.count(self.batch));
        let fill = |head: usize, segment: &Segment, group: usize| {
            if self.fill_cache(segment, group, head, key_norm, cache) {
                return Ok(());
            }
            Err(Error::NotFinite(format!(
                "block {block} has keys or values that are too large for the K/V cache; choose f32 \
                 (kv_type, --kv-type f32)"
            )))
        };
        // SAFETY: each thread has a share of its own.
        let scores = |thread: usize| unsafe {
            self.scores.share(thread, self.layout.threads).write(0..self.capacity.slots * TILE)
        };
        let slots =
            (0..count).map(|query| self.batch.visible_slots[queries.row(self.batch, query)] as u64).sum();
        let [filling, attending] = nanoseconds(self.config.query_length(), rows + count, slots);
        let sequences = || segments.chunk_by(|a, b| a.sequence == b.sequence);
        let most_tiles = sequences().map(|segments| segments.iter().map(tiles_of).sum()).max().unwrap_or(0);
        // An item is a head of a sequence, whose thread fills the cache and prepares the queries, which its processor has at hand
        // then; if there are enough of these for all threads.
        if rows <= MAX_LOCAL_ROWS || 2 * crew.threads() * most_tiles <= tiles * heads {
            let count = sequences().count();
            let of_item = |item: usize| (item / count, segments_of(segments, item % count));
            crew.share(heads * count, Grain::Fixed(1), filling + attending, &|pieces| {
                let scores = scores(pieces.thread());
                pieces.each_with_next(|item, next| {
                    let (head, numbers) = of_item(item);
                    for number in numbers.clone() {
                        let (before, segment) = (&segments[..number], &segments[number]);
                        key_groups(segment).try_for_each(|group| fill(head, segment, group))?;
                        let first = queries.before(before);
                        for query in first..first + queries.of_segment(segment) {
                            self.prepare_query(query, queries, head * group..(head + 1) * group, query_norm);
                        }
                    }
                    let next = next.map(of_item).map(|(head, numbers)| (head, &segments[numbers.start]));
                    for number in numbers {
                        let (before, segment) = (&segments[..number], &segments[number]);
                        for tile in 0..tiles_of(segment) {
                            let tile = Tile { head, before, segment, tile, next };
                            self.attend_tile(tile, cache, scores, queries);
                        }
                    }
                    Ok(())
                })
            })?;
            self.clock.lap(Part::Attention);
            return Ok(());
        }
        // An item is a key group of one head, or some queries.
        let size = rows_per_piece(count);
        crew.share(groups * heads + count.div_ceil(size), Grain::Fixed(1), filling, &|pieces| {
            pieces.flatten().try_for_each(|item| match item.checked_sub(groups * heads) {
                None => {
                    let (_, segment, group) = locate(segments, item % groups, key_groups_of)?;
                    fill(item / groups, segment, key_groups(segment).start + group)
                }
                Some(item) => {
                    let some = item * size..count.min((item + 1) * size);
                    some.for_each(|query| {
                        self.prepare_query(query, queries, 0..self.config.head_count, query_norm);
                    });
                    Ok(())
                }
            })
        })?;
        self.clock.lap(Part::Rest);
        crew.share(tiles * heads, Grain::Fixed(1), attending, &|pieces| {
            let scores = scores(pieces.thread());
            let of_item = |item: usize| Ok((item / tiles, locate(segments, item % tiles, tiles_of)?));
            pieces.each_with_next(|item, next| {
                let (head, (before, segment, tile)) = of_item(item)?;
                let next = next.map(of_item).transpose()?.map(|(head, (_, segment, _))| (head, segment));
                self.attend_tile(Tile { head, before, segment, tile, next }, cache, scores, queries);
                Ok(())
            })
        })?;
        self.clock.lap(Part::Attention);
        Ok(())
    }

    /// Rotates some heads of a query, after their norm if there is one, and with [`Queries::Outputs`] copies their share of
    /// its row into `x_out`.
    fn prepare_query(&self, query: usize, queries: Queries, heads: Range<usize>, norm: Option<Matrix<'_>>) {
        let (d, dh, count) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let row = queries.row(self.batch, query);
        let at = query * count * dh;
        // SAFETY: these heads of the query are in this thread's piece.
        let q = unsafe { self.q.write(at + heads.start * dh..at + heads.end * dh) };
        q.chunks_exact_mut(dh).for_each(|head| self.turn(head, norm, row));
        if let Queries::Outputs = queries {
            let share = d * heads.start / count..d * heads.end / count;
            // SAFETY: so are these columns of the row; an earlier operation wrote `x`.
            unsafe {
                let x = self.x.read(row * d + share.start..row * d + share.end);
                self.x_out.write(query * d + share.start..query * d + share.end).copy_from_slice(x);
            }
        }
    }

    /// Rotates a head of a query or key of a row, after its norm if there is one.
    fn turn(&self, head: &mut [f32], norm: Option<Matrix<'_>>, row: usize) {
        if let Some(weight) = norm {
            head_norm(head, weight, self.config.norm_epsilon);
        }
        rotate(head, self.rope_row(row));
    }

    /// The rotation of a row of the batch.
    fn rope_row(&self, row: usize) -> &'a [f32] {
        let dh = self.config.head_dim();
        // SAFETY: `embed` wrote it.
        unsafe { self.rope_table.read(row * dh..(row + 1) * dh) }
    }

    /// Where a head of the segment's sequence begins among the keys of a block in the cache, and among its values.
    fn first_in_cache(&self, segment: &Segment, head: usize) -> usize {
        (segment.sequence * self.config.kv_head_count() + head) * self.capacity.slots * self.config.head_dim()
    }

    /// Puts one head of the segment's rows in a key group into the cache. Returns whether the cache can hold them.
    fn fill_cache<T: CacheElement>(
        &self,
        segment: &Segment,
        group: usize,
        head: usize,
        norm: Option<Matrix<'_>>,
        cache: BlockCache<'a, T>,
    ) -> bool {
        let (d, dh) = (self.config.kv_length(), self.config.head_dim());
        let mut overflows = false;
        let first = self.first_in_cache(segment, head);
        let begin = segment.first_slot.max(group * KEY_GROUP);
        for slot in begin..(segment.first_slot + segment.rows).min((group + 1) * KEY_GROUP) {
            let row = segment.first_row + slot - segment.first_slot;
            let at = row * 2 * d + head * dh;
            // SAFETY: this head of the row is in this thread's piece.
            let (k, v) = unsafe { (self.kv.write(at..at + dh), self.kv.read(at + d..at + d + dh)) };
            self.turn(k, norm, row);
            overflows |= any_overflows::<T>(k) | any_overflows::<T>(v);
            let (mut converted, mut scales) = ([T::ZERO; CONVERTED], [f16::ZERO; CONVERTED / SCALED]);
            for (start, end) in (0..dh).step_by(CONVERTED).map(|start| (start, dh.min(start + CONVERTED))) {
                let set_scales = |part: CachePart<'a, T>, scales: &[f16]| {
                    if !T::HAS_SCALES {
                        return;
                    }
                    let index = first / SCALED + scale_index(slot, dh);
                    for (&scale, i) in scales.iter().zip(start / SCALED..end / SCALED) {
                        // SAFETY: this head of the slot is in this thread's piece.
                        unsafe { part.scales.set(index + i * KEY_GROUP, scale) };
                    }
                };
                let at = first + slot * dh;
                // SAFETY: this head of the slot is in this thread's piece.
                let to = unsafe { cache.values.numbers.write(at + start..at + end) };
                T::convert(&v[start..end], to, &mut scales);
                set_scales(cache.values, &scales);
                let converted = &mut converted[..end - start];
                T::convert(&k[start..end], converted, &mut scales);
                set_scales(cache.keys, &scales);
                let index = first + key_index(slot, dh);
                for (&k, i) in converted.iter().zip(start..) {
                    // SAFETY: this head of the slot is in this thread's piece.
                    unsafe { cache.keys.numbers.set(index + i * KEY_GROUP, k) };
                }
            }
        }
        !overflows
    }

    /// The attention of a tile of queries, into `attention`. The queries of a segment are those of its first row, one for each head
    /// that shares these keys and values, then of its second row, and so on.
    fn attend_tile<T: CacheElement>(
        &self,
        Tile { head, before, segment, tile, next }: Tile<'_>,
        BlockCache { keys, values }: BlockCache<'a, T>,
        scores: &mut [f32],
        queries: Queries,
    ) {
        let (dh, all_heads) = (self.config.head_dim(), self.config.head_count);
        let group = all_heads / self.config.kv_head_count();
        let of_segment = queries.of_segment(segment);
        let rows = (of_segment * group - tile * TILE).min(TILE);
        // The segment's first row with a query among the queries, and in the batch.
        let first = queries.before(before);
        let in_batch = segment.first_row + segment.rows - of_segment;
        // The query's row among those of the segment, and its head.
        let place = |i: usize| {
            let query = tile * TILE + i.min(rows - 1);
            (query / group, head * group + query % group)
        };
        let (mut visible_slots, mut own_slots) = ([0; TILE], [None; TILE]);
        for i in 0..rows {
            let row = in_batch + place(i).0;
            visible_slots[i] = self.batch.visible_slots[row] as usize;
            own_slots[i] = self.batch.sees_itself[row].then(|| segment.first_slot + row - segment.first_row);
        }
        let behind_own = own_slots.into_iter().flatten().map(|slot| slot + 1);
        let slots = visible_slots.into_iter().chain(behind_own).fold(0, usize::max);
        let column = |i: usize| {
            let (row, head) = place(i);
            ((first + row) * all_heads + head) * dh
        };
        let cache = self.first_in_cache(segment, head);
        // Whole key groups with these slots, and their scales.
        let keys_in = |cache: usize, slots: usize| cache..cache + slots.next_multiple_of(KEY_GROUP) * dh;
        let scales_in = |cache: usize, slots: usize| match T::HAS_SCALES {
            true => cache / SCALED..(cache + slots.next_multiple_of(KEY_GROUP) * dh) / SCALED,
            false => 0..0,
        };
        // SAFETY: queries and cache were written by an earlier operation, or by this thread in the same piece; the next keys are
        // in another piece of this thread, or nobody writes them.
        let head = unsafe {
            Head {
                queries: std::array::from_fn(|i| self.q.read(column(i)..column(i) + dh)),
                visible_slots,
                own_slots,
                keys: keys.numbers.read(keys_in(cache, slots)),
                values: values.numbers.read(cache..cache + slots * dh),
                key_scales: keys.scales.read(scales_in(cache, slots)),
                value_scales: values.scales.read(scales_in(cache, slots)),
                next_keys: next.map_or(&[], |(head, next)| {
                    keys.numbers.read(keys_in(self.first_in_cache(next, head), next.first_slot))
                }),
                scores,
            }
        };
        attention::attend(self.platform, head, rows, |i, at, values| {
            let at = column(i) + at;
            // SAFETY: this head of the query is in this thread's piece.
            unsafe { self.attention.write(at..at + values.len()) }.copy_from_slice(values);
        });
    }
}

/// Finds a part by its number among those of all segments, of which `parts` gives the number for each: the segments
/// before its own, its own, and its number within that.
fn locate(
    segments: &[Segment],
    mut part: usize,
    parts: impl Fn(&Segment) -> usize,
) -> Result<(&[Segment], &Segment, usize)> {
    for (number, segment) in segments.iter().enumerate() {
        match part.checked_sub(parts(segment)) {
            Some(rest) => part = rest,
            None => return Ok((&segments[..number], segment, part)),
        }
    }
    Err(Error::internal("a part behind the last segment"))
}

/// The numbers of the segments of a sequence, by its place among those of the batch.
fn segments_of(segments: &[Segment], mut sequence: usize) -> Range<usize> {
    let mut start = 0;
    for segments in segments.chunk_by(|a, b| a.sequence == b.sequence) {
        if sequence == 0 {
            return start..start + segments.len();
        }
        (sequence, start) = (sequence - 1, start + segments.len());
    }
    start..start
}

/// About what it takes one thread to put `rows` rows into the cache or to rotate them, and what queries take that attend to
/// `slots` slots in all.
fn nanoseconds(width: usize, rows: usize, slots: u64) -> [u64; 2] {
    [(10 * width * rows) as u64, slots.saturating_mul(width as u64) / 4]
}

/// The key groups in which a segment has rows.
fn key_groups(s: &Segment) -> Range<usize> {
    s.first_slot / KEY_GROUP..(s.first_slot + s.rows).div_ceil(KEY_GROUP)
}
