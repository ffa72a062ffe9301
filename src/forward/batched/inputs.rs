//! A batch as numbers for the device: indices, and what each row attends to.

use crate::forward::batch::{Batch, Segment};
use crate::forward::layout::Capacity;

/// Attention looks at a multiple of so many slots, so that a graph stays the same for that many steps (CUDA replays one
/// that does), and CUDA's kernel for single rows wants it.
const SEEN_GROUP: usize = 256;
/// Parts of the input begin at multiples of so many numbers.
pub(super) const INPUT_GROUP: usize = 64;
/// What the place of a row is that sees nothing but others.
const NOWHERE: f32 = -1000.0;

/// Sequences of at most so many rows are always attended to together: matrix units take as many at once anyway.
const FEW: usize = 16;

/// Rows that [`AskingRows`] make of a batch, at most.
pub(super) fn most_padded(capacity: &Capacity) -> usize {
    2 * capacity.rows + FEW * capacity.sequences.min(capacity.rows)
}

/// The rows that a graph has for `n`: not many different numbers, so that the next step's graph is often the same, and
/// less than twice as many. What is too much is fed token 0, and its keys and values go to a slot that nobody sees.
fn bucket(n: usize) -> usize {
    match n {
        0..=2 => n,
        3..=4 => 4,
        5..=64 => n.next_multiple_of(8),
        65..=512 => n.next_multiple_of(32),
        _ => n.next_multiple_of(128),
    }
}

/// Rows of the graph for `n` rows in a context of at most `most`.
fn rows_for(n: usize, most: usize) -> usize {
    bucket(n).min(most)
}

/// Neighbouring sequences whose attention is one operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) sequence: usize,
    pub(super) sequences: usize,
    /// Rows of the longest, and of all.
    pub(super) rows: usize,
    pub(super) real: usize,
    /// Slots that are looked at.
    pub(super) seen: usize,
    /// Where its rows begin among the gathered.
    pub(super) first: usize,
}

impl Group {
    /// Whether a sequence of `rows` rows, `padded` in the graph, may join.
    fn joins(&self, padded: usize, rows: usize) -> bool {
        let most = self.rows.max(padded);
        most <= FEW || most * (self.sequences + 1) <= 2 * (self.real + rows)
    }

    pub(super) fn padded(&self) -> usize {
        self.rows * self.sequences
    }
}

/// The rows that ask attention, all of a batch or those that want logits.
#[derive(Debug, Default)]
pub(super) struct AskingRows {
    pub(super) groups: Vec<Group>,
    /// Rows of all groups.
    pub(super) padded: usize,
    /// Whether gathering changes nothing.
    pub(super) plain: bool,
    /// The row that each gathered one is, and the other way round.
    pub(super) gather: Vec<i32>,
    pub(super) scatter: Vec<i32>,
    /// Half a slot before the first one that a gathered row does not see; the one that it sees besides.
    pub(super) limits: Vec<f32>,
    pub(super) own: Vec<f32>,
    pub(super) any_own: bool,
}

impl AskingRows {
    /// Takes in the rows of `batch`, or those with logits; the graph has `graph_rows` of them.
    fn fill(&mut self, batch: &Batch, slots: usize, outputs_only: bool, graph_rows: usize) {
        let Self { groups, padded, gather, scatter, limits, own, .. } = self;
        groups.clear();
        let count = |s: &Segment| if outputs_only { s.outputs } else { s.rows };
        for segments in batch.segments.chunk_by(|a, b| a.sequence == b.sequence) {
            let rows: usize = segments.iter().map(count).sum();
            let seen = segments.iter().map(|s| s.first_slot + s.rows).max().unwrap_or(0);
            let (Some(s), true) = (segments.first(), rows > 0) else { continue };
            let seen = seen.next_multiple_of(SEEN_GROUP).min(slots);
            match groups.last_mut() {
                Some(g) if g.sequence + g.sequences == s.sequence && g.joins(bucket(rows), rows) => {
                    g.rows = g.rows.max(bucket(rows));
                    g.real += rows;
                    g.sequences += 1;
                    g.seen = g.seen.max(seen);
                }
                _ => groups.push(Group {
                    sequence: s.sequence,
                    sequences: 1,
                    rows: bucket(rows),
                    real: rows,
                    seen,
                    first: 0,
                }),
            }
        }
        *padded = 0;
        for group in groups.iter_mut() {
            group.first = *padded;
            *padded += group.padded();
        }
        for list in [&mut *gather, &mut *scatter] {
            list.clear();
        }
        gather.resize(*padded, 0);
        limits.clear();
        limits.resize(*padded, 0.5);
        own.clear();
        own.resize(*padded, NOWHERE);
        let mut current = groups.iter().copied();
        let mut group = current.next();
        for segments in batch.segments.chunk_by(|a, b| a.sequence == b.sequence) {
            let sequence = segments.first().map_or(0, |s| s.sequence);
            while group.is_some_and(|g| g.sequence + g.sequences <= sequence) {
                group = current.next();
            }
            let Some(g) = group else { break };
            let Some(in_group) = sequence.checked_sub(g.sequence) else { continue };
            let mut place = g.first + in_group * g.rows;
            for s in segments {
                let n = count(s);
                for i in s.rows - n..s.rows {
                    let row = s.first_row + i;
                    let itself = batch.sees_itself.get(row) == Some(&true);
                    if let (Some(gather), Some(limit), Some(own)) =
                        (gather.get_mut(place), limits.get_mut(place), own.get_mut(place))
                    {
                        *gather = if outputs_only { scatter.len() } else { row } as i32;
                        *limit = batch.visible_slots.get(row).map_or(0.5, |&sees| sees as f32 - 0.5);
                        *own = if itself { (s.first_slot + i) as f32 } else { NOWHERE };
                    }
                    scatter.push(place as i32);
                    place += 1;
                }
            }
        }
        self.any_own = own.iter().any(|&o| o != NOWHERE);
        // Rows that are too much take what is left of the last sequence's places.
        let last = scatter.last().map_or(0, |&place| place as usize);
        for (row, place) in (scatter.len()..graph_rows).zip(last + 1..) {
            if let Some(gather) = gather.get_mut(place) {
                *gather = row as i32;
            }
            scatter.push(place.min(padded.saturating_sub(1)) as i32);
        }
        let in_place = scatter.iter().zip(0..).all(|(&place, row)| place == row);
        self.plain = *padded == scatter.len() && in_place;
    }
}

/// A batch as numbers for the device, all in one list.
#[derive(Debug, Default)]
pub(in crate::forward) struct Inputs {
    pub(super) all: AskingRows,
    pub(super) out: AskingRows,
    pub(super) numbers: Vec<i32>,
    /// Rows of the graph, and those of them with logits.
    pub(super) rows: usize,
    pub(super) output_rows: usize,
    /// Where the parts begin.
    pub(super) tokens: usize,
    pub(super) positions: usize,
    pub(super) slots: usize,
    pub(super) outputs: usize,
    pub(super) output_positions: usize,
    pub(super) queries: [[usize; 4]; 2],
}

impl Inputs {
    /// Takes in `batch`.
    pub(in crate::forward) fn fill(&mut self, batch: &Batch, capacity: &Capacity) {
        let Self { all, out, numbers, .. } = self;
        let r = rows_for(batch.tokens.len(), capacity.rows);
        let m = rows_for(batch.outputs.len(), capacity.rows);
        (self.rows, self.output_rows) = (r, m);
        all.fill(batch, capacity.slots, false, r);
        out.fill(batch, capacity.slots, true, m);
        numbers.clear();
        self.tokens = add(numbers, batch.tokens.iter().copied(), r, 0);
        self.positions = add(numbers, batch.positions.iter().copied(), r, 0);
        let slots = batch.segments.iter().flat_map(|s| {
            let first = s.sequence * capacity.slots + s.first_slot;
            first as i32..(first + s.rows) as i32
        });
        self.slots = add(numbers, slots, r, (capacity.sequences * capacity.slots) as i32);
        self.outputs = add(numbers, batch.outputs.iter().copied(), m, 0);
        self.output_positions = add(numbers, batch.output_positions.iter().copied(), m, 0);
        for (places, (queries, rows)) in self.queries.iter_mut().zip([(&*all, r), (&*out, m)]) {
            let (bits, padded) = (|f: &f32| f.to_bits() as i32, queries.padded);
            *places = [
                add(numbers, queries.gather.iter().copied(), padded, 0),
                add(numbers, queries.scatter.iter().copied(), rows, 0),
                add(numbers, queries.limits.iter().map(bits), padded, 0),
                add(numbers, queries.own.iter().map(bits), padded, 0),
            ];
        }
    }
}

/// Adds a part to the list, with `rest` up to `len` numbers, and says where it begins.
fn add(numbers: &mut Vec<i32>, part: impl Iterator<Item = i32>, len: usize, rest: i32) -> usize {
    let first = numbers.len();
    numbers.extend(part.take(len));
    numbers.resize(first + len, rest);
    numbers.resize(numbers.len().next_multiple_of(INPUT_GROUP), 0);
    first
}
