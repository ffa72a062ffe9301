//! A window that slides from left to right: its masks are filled in any order, and what is filled behind a gap is fed again
//! in each step until there is no gap before it. So the final keys and values have seen what stands before them in the text
//! and nothing else, as WeDLM wants it (Liu et al., arXiv 2512.22737; `WeDLMDecoder` of the authors' engine).
//!
//! In a sequence's order the known positions come first, then those of the window that are filled, then its masks, then the
//! rest; each ascending. The window may reach beyond the end of the text: what is filled there is seen by its masks, and is
//! no part of the text.

use super::sequence::Sequence;
use crate::error::Result;
use crate::memory::reserve;

impl Sequence {
    /// Begins to slide a window over the positions that are not known, which are in ascending order. It may reach up to
    /// position `end`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn begin_window(&mut self, end: usize, mask: u32) -> Result<()> {
        let reach = self.text_length.saturating_add(self.window_size.most().saturating_mul(2)).min(end);
        let more = reach.saturating_sub(self.tokens.len());
        reserve(&mut self.tokens, more)?;
        reserve(&mut self.order, more)?;
        self.order.extend((self.tokens.len()..reach.max(self.tokens.len())).map(|position| position as u32));
        self.tokens.resize(reach.max(self.tokens.len()), mask);
        self.filled = 0;
        self.slides = true;
        Ok(())
    }

    /// Moves the window behind what has no gap before it, after a step that has filled some of its masks: those at the positions
    /// in `filled`.
    pub(super) fn slide_window(&mut self, filled: impl Iterator<Item = u32>, mask: u32) {
        // All that was known before the step was fed in it.
        self.committed = self.revealed;
        let unknown = |order: &[u32], tokens: &[u32], place: usize| {
            let position = order.get(place).copied();
            position.is_none_or(|position| tokens.get(position as usize) == Some(&mask))
        };
        let end = (self.revealed + self.window).min(self.order.len());
        if let Some(places) = self.order.get_mut(self.revealed..end) {
            places.sort_unstable();
            let places: &[u32] = places;
            let filled = filled.filter_map(|position| places.binary_search(&position).ok());
            self.window_size.note(places.len(), filled);
        }
        while self.revealed < end && !unknown(&self.order, &self.tokens, self.revealed) {
            self.revealed += 1;
        }
        self.filled = 0;
        // What is filled behind a gap stays in the window.
        let filled = (self.revealed..end).rev().find(|&place| !unknown(&self.order, &self.tokens, place));
        let least = filled.map_or(0, |last| last + 1 - self.revealed);
        self.window = self.window_size.next().max(least);
        let end = (self.revealed + self.window).min(self.order.len());
        for place in self.revealed..end {
            if !unknown(&self.order, &self.tokens, place) {
                if let Some(places) = self.order.get_mut(self.revealed + self.filled..=place) {
                    places.rotate_right(1);
                }
                self.filled += 1;
            }
        }
        self.steps_done += 1;
        self.joining = 0;
    }

    /// The positions that are filled behind a gap.
    pub(super) fn provisional(&self) -> &[u32] {
        self.order.get(self.revealed..self.revealed + self.filled).unwrap_or_default()
    }

    /// Where the tokens end that the sequence goes on from, of which the caller keeps the first `keep`: without those behind a gap.
    pub(super) fn written_end(&self, mask: u32, keep: Option<usize>) -> usize {
        let end = match self.slides {
            true => {
                let known = self.order.get(..self.revealed).unwrap_or_default();
                known.iter().max().map_or(0, |&last| last as usize + 1)
            }
            false => self.tokens.iter().rposition(|&token| token != mask).map_or(0, |last| last + 1),
        };
        end.min(keep.unwrap_or(end))
    }

    /// Forgets what is filled behind a gap, and the positions beyond the end of the text.
    pub(super) fn end_window(&mut self, mask: u32) {
        if !std::mem::take(&mut self.slides) {
            return;
        }
        self.filled = 0;
        for &position in self.order.get(self.revealed..).unwrap_or_default() {
            if let Some(token) = self.tokens.get_mut(position as usize) {
                *token = mask;
            }
        }
        self.order.truncate(self.revealed);
        self.tokens.truncate(self.text_length);
    }
}
