//! The rows that ask attention, gathered so that neighbouring sequences are one operation.

use super::style::Style;
use crate::error::Result;
use crate::forward::batch::{Batch, Segment};
use crate::memory::with_room;

/// What the place of a row is that sees nothing but others.
const NOWHERE: f32 = -1000.0;

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
    fn joins(&self, style: Style, padded: usize, rows: usize) -> bool {
        let most = self.rows.max(padded);
        let few = most <= style.few || style.few > 0 && most * (self.sequences + 1) <= 2 * (self.real + rows);
        few || self.rows == padded
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
    /// Room for so many groups, gathered rows and rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn with_room(groups: usize, padded: usize, rows: usize) -> Result<Self> {
        Ok(Self {
            groups: with_room(groups)?,
            gather: with_room(padded)?,
            scatter: with_room(rows)?,
            limits: with_room(padded)?,
            own: with_room(padded)?,
            ..Self::default()
        })
    }

    /// Takes in the rows of `batch`, or those with logits; the graph has `graph_rows` of them.
    pub(super) fn fill(
        &mut self,
        batch: &Batch,
        slots: usize,
        style: Style,
        outputs_only: bool,
        graph_rows: usize,
    ) {
        let Self { groups, padded, gather, scatter, limits, own, .. } = self;
        groups.clear();
        let count = |s: &Segment| if outputs_only { s.outputs } else { s.rows };
        for segments in batch.segments.chunk_by(|a, b| a.sequence == b.sequence) {
            let rows: usize = segments.iter().map(count).sum();
            let seen = segments.iter().map(|s| s.first_slot + s.rows).max().unwrap_or(0);
            let (Some(s), true) = (segments.first(), rows > 0) else { continue };
            let seen = seen.next_multiple_of(style.seen_group).min(slots);
            match groups.last_mut() {
                Some(g)
                    if g.sequence + g.sequences == s.sequence && g.joins(style, style.bucket(rows), rows) =>
                {
                    g.rows = g.rows.max(style.bucket(rows));
                    g.real += rows;
                    g.sequences += 1;
                    g.seen = g.seen.max(seen);
                }
                _ => groups.push(Group {
                    sequence: s.sequence,
                    sequences: 1,
                    rows: style.bucket(rows),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::layout::SLOT_GROUP;
    use crate::rng::{Purpose, Rng};

    /// What is planned for (`Style::most_padded`) holds every batch.
    #[test]
    fn gathered_rows_have_room() {
        let styles = [Style::HOST, Style::device(true), Style::device(false)];
        for (number, style) in styles.into_iter().enumerate() {
            let mut random = Rng::new(7, number, Purpose::Order);
            let mut below = |n: usize| (random.uniform() * n as f64) as usize;
            for sequences in [1, 2, 3, 8, 40] {
                for most in [1, 3, 4, 9, 25, 70] {
                    for _ in 0..40 {
                        // Equally many rows are where most is filled up.
                        let equal = below(2) == 0;
                        let mut batch = Batch::default();
                        for sequence in 0..sequences {
                            let rows = if equal { most } else { below(most + 1) };
                            let first_row = batch.tokens.len();
                            batch.segments.push(Segment {
                                sequence,
                                first_row,
                                rows,
                                first_slot: 0,
                                outputs: rows,
                            });
                            batch.tokens.resize(first_row + rows, 0);
                            batch.visible_slots.resize(first_row + rows, 1);
                            batch.sees_itself.resize(first_row + rows, false);
                            batch.outputs.extend(first_row as i32..(first_row + rows) as i32);
                        }
                        let rows = batch.tokens.len();
                        let planned = style.most_padded(rows.max(1), sequences);
                        let mut asking = AskingRows::with_room(sequences, planned, rows).unwrap();
                        asking.fill(&batch, 4 * SLOT_GROUP, style, false, style.bucket(rows));
                        let what = format!("{style:?}, {sequences} sequences of {most} rows, equal: {equal}");
                        assert!(asking.padded <= planned, "{what}: {} of {planned}", asking.padded);
                    }
                }
            }
        }
    }
}
