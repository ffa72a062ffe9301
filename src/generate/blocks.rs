//! BD3-LM (Arriola et al., ICLR 2025): blocks from left to right, each of which attends to itself in both directions and to the
//! finished ones before it, whose keys and values are kept. Slots are positions. A step feeds the blocks that have become
//! complete since (`store_kv` in the authors' code), and the one that it writes in; of that, what it writes comes last.

use std::ops::Range;

use super::sequence::Sequence;
use crate::error::{Error, Result};
use crate::forward::Row;
use crate::model::Config;

impl Sequence {
    /// The positions of the block that the next token is written in; empty if there is none.
    fn current_block(&self) -> Range<usize> {
        match self.order.get(self.revealed) {
            Some(&next) => self.block_of(next as usize),
            None => self.committed..self.committed,
        }
    }

    /// Where that block begins.
    pub(super) fn current_start(&self) -> usize {
        self.current_block().start
    }

    /// The positions of the block that a position is in.
    pub(super) fn block_of(&self, position: usize) -> Range<usize> {
        let start = position - position % self.block.max(1);
        start..(start + self.block.max(1)).min(self.text_length)
    }

    /// The slots that a step feeds.
    pub(super) fn block_slots(&self) -> Range<usize> {
        self.committed..self.current_block().end
    }

    /// The row that a slot is fed as in a step that asks for `asked` positions of the current block.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(super) fn block_row(&self, slot: usize, asked: &[u32], config: &Config) -> Result<Row> {
        let current = self.current_block();
        let block = self.block_of(slot);
        let visible_slots = block.end as u32;
        let others = current.len().saturating_sub(asked.len());
        let (position, output) = match slot.checked_sub(current.start) {
            None => (slot as u32, false),
            Some(place) if place >= others => {
                let position = asked.get(place - others).copied();
                (position.ok_or_else(|| Error::internal("a row beyond its block"))?, true)
            }
            Some(place) => {
                let mut rest = current.map(|p| p as u32).filter(|position| !asked.contains(position));
                (rest.nth(place).ok_or_else(|| Error::internal("a block without that row"))?, false)
            }
        };
        // A token that this step asks for is not known, though a step of another batch may have written it.
        let token = if output { config.mask_token_id } else { self.token(position)? };
        Ok(Row { token, position, output, visible_slots, sees_itself: false })
    }

    /// The next `count` positions of the order.
    pub(super) fn next_positions(&self, count: usize) -> &[u32] {
        self.order.get(self.revealed..self.revealed + count).unwrap_or_default()
    }

    /// How many of the next `window` positions are in the current block.
    pub(super) fn window_in_block(&self, window: usize) -> usize {
        let current = self.current_block();
        let next = self.order.get(self.revealed..).unwrap_or_default();
        next.iter().take(window).take_while(|&&position| current.contains(&(position as usize))).count()
    }
}
