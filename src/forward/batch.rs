//! The input of the network: rows of tokens of one or more sequences.
//!
//! A row is a token at a position. The rows of a sequence are in generation order and take the cache slots from
//! `first_slot` on. Each row attends to the first `visible_slots` slots of its sequence, and to its own if
//! `sees_itself`; nothing else here depends on the model's variant. In Eso-LM (B) and in autoregression a row attends to
//! the slots up to its own, in both phases: the generation order does the rest.

use super::layout::Capacity;
use crate::error::{Error, Result};
use crate::memory::with_room;
use crate::model::Config;

/// The rows of one sequence in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The sequence, by number in the context.
    pub(crate) sequence: usize,
    /// Its first row in the batch, and the number of its rows.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// The slot of its first row. The slots before it are in the cache already.
    pub(crate) first_slot: usize,
    /// How many of its rows want logits: its last ones.
    pub(crate) outputs: usize,
}

/// One row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) token: u32,
    /// Position in the text, for RoPE.
    pub(crate) position: u32,
    /// Whether its logits are wanted.
    pub(crate) output: bool,
    /// It attends to the first `visible_slots` slots of its sequence.
    pub(crate) visible_slots: u32,
    /// Whether it also attends to its own slot.
    pub(crate) sees_itself: bool,
}

impl Row {
    /// The row of an autoregressive model's slot: the token before the one that it predicts. The first row is the token before the
    /// text, or the text's own first token where it has to be given. `at` says position and token at a place of the order.
    ///
    /// # Errors
    /// Those of `at`.
    pub(crate) fn before(
        config: &Config,
        slot: usize,
        output: bool,
        at: impl Fn(usize) -> Result<(u32, u32)>,
    ) -> Result<Self> {
        let place = slot + config.given_tokens();
        let token = match place.checked_sub(1) {
            Some(before) => at(before)?.1,
            None => config.first_token_id(),
        };
        // The rows of a model that can be fed in other ways, too, have their own positions.
        let (position, _) = at(place - usize::from(config.rows_have_their_positions()))?;
        Ok(Self { token, position, output, visible_slots: slot as u32 + 1, sees_itself: false })
    }
}

/// The rows of one run of the network. `outputs` lists, segment by segment, the rows that want logits, and
/// `output_positions` their positions.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) tokens: Vec<i32>,
    pub(crate) positions: Vec<i32>,
    /// How many slots of its sequence, from the first on, each row attends to.
    pub(crate) visible_slots: Vec<u32>,
    /// Whether each row also attends to its own slot.
    pub(crate) sees_itself: Vec<bool>,
    pub(crate) outputs: Vec<i32>,
    pub(crate) output_positions: Vec<i32>,
    pub(crate) segments: Vec<Segment>,
}

impl Batch {
    /// An empty batch that holds `rows` rows of `segments` sequences without allocating again.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn with_capacity(rows: usize, segments: usize) -> Result<Self> {
        Ok(Self {
            tokens: with_room(rows)?,
            positions: with_room(rows)?,
            visible_slots: with_room(rows)?,
            sees_itself: with_room(rows)?,
            outputs: with_room(rows)?,
            output_positions: with_room(rows)?,
            segments: with_room(segments)?,
        })
    }

    /// The largest batch that `capacity` allows: every row, at the ends of full caches, all with logits, and each with a slot of
    /// its own that others do not see, so that its graph has every operation.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn largest(capacity: &Capacity) -> Result<Self> {
        let mut batch = Self::with_capacity(capacity.rows, capacity.sequences.min(capacity.rows))?;
        for sequence in 0..capacity.sequences {
            let rows = (capacity.rows - batch.tokens.len()).min(capacity.slots);
            if rows == 0 {
                break;
            }
            let (first_row, first_slot) = (batch.tokens.len(), capacity.slots - rows);
            batch.segments.push(Segment { sequence, first_row, rows, first_slot, outputs: rows });
            batch.tokens.resize(first_row + rows, 0);
            batch.visible_slots.extend((first_slot as u32 + 1..).take(rows));
        }
        batch.sees_itself.resize(batch.tokens.len(), true);
        batch.positions.resize(batch.tokens.len(), 0);
        batch.output_positions.resize(batch.tokens.len(), 0);
        batch.outputs.extend((0..).take(batch.tokens.len()));
        Ok(batch)
    }

    /// Adds a row to the last segment.
    pub(crate) fn push(&mut self, Row { token, position, output, visible_slots, sees_itself }: Row) {
        self.visible_slots.push(visible_slots);
        self.sees_itself.push(sees_itself);
        if output {
            self.outputs.push(self.tokens.len() as i32);
            self.output_positions.push(position as i32);
        }
        self.tokens.push(token as i32);
        self.positions.push(position as i32);
        if let Some(segment) = self.segments.last_mut() {
            segment.rows += 1;
            segment.outputs += usize::from(output);
        }
    }

    /// Checks the invariants that both runners rely on: all indices are within the vocabulary, the cache and the batch.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(super) fn check(&self, config: &Config, capacity: &Capacity) -> Result<()> {
        let below = |values: &[i32], limit: usize| values.iter().all(|&v| v >= 0 && (v as usize) < limit);
        let rows = self.tokens.len();
        let sizes = rows > 0
            && rows <= capacity.rows
            && self.positions.len() == rows
            && self.visible_slots.len() == rows
            && self.sees_itself.len() == rows
            && self.outputs.len() == self.output_positions.len()
            && self.segments.iter().map(|s| s.rows).sum::<usize>() == rows;
        let indices = below(&self.tokens, config.vocab_size)
            && below(&self.positions, config.context_length)
            && below(&self.output_positions, config.context_length)
            && below(&self.outputs, rows);
        let segments = self.segments.iter().all(|s| {
            s.sequence < capacity.sequences
                && s.rows > 0
                && s.first_slot + s.rows <= capacity.slots
                && s.outputs <= s.rows
                && self.visible_slots.get(s.first_row..s.first_row + s.rows).is_some_and(|visible_slots| {
                    visible_slots.iter().all(|&n| n as usize <= s.first_slot + s.rows)
                })
        });
        if sizes && indices && segments {
            Ok(())
        } else {
            Err(Error::internal("a batch outside the context's limits"))
        }
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.visible_slots.clear();
        self.sees_itself.clear();
        self.outputs.clear();
        self.output_positions.clear();
        self.segments.clear();
    }
}
