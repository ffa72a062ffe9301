//! A batch as numbers for the device: indices, what each row attends to, and how tokens are drawn.

use super::rows::{AskingRows, Group};
use super::style::Style;
use crate::error::Result;
use crate::forward::batch::Batch;
use crate::forward::layout::Capacity;
use crate::ggml::{DrawRow, GraphSize};
use crate::memory::with_room;
use crate::model::Config;

/// Parts of the input begin at multiples of so many numbers.
pub(super) const INPUT_GROUP: usize = 64;
/// Numbers that say how a token is drawn.
const DRAW_NUMBERS: usize = size_of::<DrawRow>() / size_of::<i32>();
/// Numbers for each row, and for each gathered row of all and of those with logits.
const ROW_NUMBERS: usize = 8 + DRAW_NUMBERS;
const PADDED_NUMBERS: usize = 2 * 3;
/// Most parts.
const PARTS: usize = 15;

/// Groups of sequences that an ordinary graph has at most.
const ORDINARY_GROUPS: usize = 4;
/// Numbers of a graph's key beside its groups, and for each group.
const KEY_HEAD: usize = 3 + 2 * 3;
const KEY_GROUP: usize = 5;

/// Most numbers of an input.
pub(super) fn most_numbers(capacity: &Capacity, style: Style) -> usize {
    let padded = style.most_padded(capacity.rows, capacity.sequences);
    ROW_NUMBERS * capacity.rows + PADDED_NUMBERS * padded + PARTS * INPUT_GROUP
}

/// Most numbers of a graph's key.
pub(in crate::forward) fn most_key(capacity: &Capacity) -> usize {
    KEY_HEAD + 2 * KEY_GROUP * capacity.sequences.min(capacity.rows)
}

/// The size of a graph with at most `groups` groups of sequences.
fn graph_size(config: &Config, style: Style, groups: usize, rows: usize) -> GraphSize {
    const OUTSIDE: usize = 48;
    const PER_BLOCK: usize = 72;
    const PER_GROUP: usize = 16;
    let masks = 2 * PER_GROUP * groups;
    let block = PER_BLOCK + PER_GROUP * groups;
    let tensors = OUTSIDE + masks + config.block_count * block;
    match style.cuts(rows) {
        true => GraphSize { tensors, parts: config.block_count + 1, part_tensors: OUTSIDE + masks + block },
        false => GraphSize::whole(tensors),
    }
}

/// The sizes of an ordinary graph and of the largest.
pub(in crate::forward) fn graph_sizes(config: &Config, capacity: &Capacity, style: Style) -> [GraphSize; 2] {
    let most = capacity.sequences.min(capacity.rows);
    [most.min(ORDINARY_GROUPS), most].map(|groups| graph_size(config, style, groups, capacity.rows))
}

/// A batch as numbers for the device, all in one list.
#[derive(Debug)]
pub(in crate::forward) struct Inputs {
    pub(super) style: Style,
    pub(super) all: AskingRows,
    pub(super) out: AskingRows,
    pub(in crate::forward) numbers: Vec<i32>,
    /// What the graph depends on.
    pub(in crate::forward) key: Vec<u32>,
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
    pub(super) draws: usize,
    /// Whether the device draws tokens from the logits, and then adds the output's bias to them.
    pub(super) draws_there: bool,
}

impl Inputs {
    /// Room for the batches of a context.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(in crate::forward) fn new(capacity: &Capacity, style: Style) -> Result<Self> {
        let padded = style.most_padded(capacity.rows, capacity.sequences);
        let groups = capacity.sequences.min(capacity.rows);
        let [all, out] = [(); 2].map(|()| AskingRows::with_room(groups, padded, capacity.rows));
        Ok(Self {
            style,
            all: all?,
            out: out?,
            numbers: with_room(most_numbers(capacity, style))?,
            key: with_room(most_key(capacity))?,
            rows: 0,
            output_rows: 0,
            tokens: 0,
            positions: 0,
            slots: 0,
            outputs: 0,
            output_positions: 0,
            queries: [[0; 4]; 2],
            draws: 0,
            draws_there: false,
        })
    }

    /// Takes in `batch`, whose tokens the device draws or not.
    pub(in crate::forward) fn fill(&mut self, batch: &Batch, capacity: &Capacity, draws_there: bool) {
        self.draws_there = draws_there;
        let Self { style, all, out, numbers, key, .. } = self;
        let bucket = |n| style.bucket(n).min(capacity.rows);
        let (r, m) = (bucket(batch.tokens.len()), bucket(batch.outputs.len()));
        (self.rows, self.output_rows) = (r, m);
        all.fill(batch, capacity.slots, *style, false, r);
        out.fill(batch, capacity.slots, *style, true, m);
        numbers.clear();
        self.tokens = add(numbers, batch.tokens.iter().copied(), r, 0);
        self.positions = add(numbers, batch.positions.iter().copied(), r, 0);
        let slots = batch.segments.iter().flat_map(|s| {
            let first = s.sequence * capacity.slots + s.first_slot;
            first..first + s.rows
        });
        let nowhere = capacity.sequences * capacity.slots;
        let slots = slots.chain(std::iter::repeat(nowhere)).take(r);
        // 64 bits each.
        let halves = slots.flat_map(|slot| [slot as u32 as i32, (slot as u64 >> 32) as i32]);
        self.slots = add(numbers, halves, 2 * r, 0);
        self.outputs = add(numbers, batch.outputs.iter().copied(), m, 0);
        self.output_positions = add(numbers, batch.output_positions.iter().copied(), m, 0);
        key.clear();
        key.extend([r as u32, m as u32, u32::from(draws_there)]);
        for (places, (queries, rows)) in self.queries.iter_mut().zip([(&*all, r), (&*out, m)]) {
            let (bits, padded) = (|f: &f32| f.to_bits() as i32, queries.padded);
            *places = [
                add(numbers, queries.gather.iter().copied(), padded, 0),
                add(numbers, queries.scatter.iter().copied(), rows, 0),
                add(numbers, queries.limits.iter().map(bits), padded, 0),
                add(numbers, queries.own.iter().map(bits), padded, 0),
            ];
            key.extend([u32::from(queries.plain), u32::from(queries.any_own), queries.groups.len() as u32]);
            let numbers = |g: &Group| [g.sequence, g.sequences, g.rows, g.seen, g.first].map(|n| n as u32);
            key.extend(queries.groups.iter().flat_map(numbers));
        }
        self.draws = add(numbers, std::iter::empty(), DRAW_NUMBERS * m, 0);
    }

    /// Says how the rows with logits become tokens.
    pub(in crate::forward) fn set_draws(&mut self, rows: &[DrawRow]) {
        let places = self.numbers.iter_mut().skip(self.draws).take(DRAW_NUMBERS * self.output_rows);
        for (place, number) in places.zip(rows.iter().flat_map(DrawRow::numbers)) {
            *place = number;
        }
    }

    /// The size of the graph, and whether it may be replayed.
    pub(in crate::forward) fn graph(&self, config: &Config) -> (GraphSize, bool) {
        let groups = self.all.groups.len().max(self.out.groups.len());
        (graph_size(config, self.style, groups, self.rows), Style::replays(self.rows))
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
