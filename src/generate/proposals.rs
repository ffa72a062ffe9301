//! What a sequence that looks ahead keeps between its passes: the tokens that it proposes, and what a pass is about.

use super::depth::Depth;
use crate::error::{Error, Result};
use crate::memory::{reserve, with_room};
use crate::rng::{Purpose, Rng};
use crate::sample::Proposal;

/// What a pass feeds of a sequence behind its known tokens, and what comes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// Whether the row of a token checks the one behind it, so that no masks stand for proposed tokens (WeDLM).
    pub(super) tokens_check: bool,
    /// Proposed tokens, at the next slots.
    pub(super) proposed: usize,
    /// Masks behind them.
    pub(super) masks: usize,
    /// Among the batch's rows of logits, the first of these masks (not with `tokens_check`), and the first that checks a proposed
    /// token.
    pub(super) masks_row: usize,
    pub(super) checks_row: usize,
    /// Whether the logits are there.
    pub(super) due: bool,
    /// How many proposed tokens stayed.
    pub(super) accepted: usize,
}

impl Pass {
    /// The places in the order that it is about.
    pub(super) fn places(&self) -> usize {
        self.proposed + self.masks
    }

    /// Rows behind the known tokens.
    pub(super) fn rows(&self) -> usize {
        match self.tokens_check {
            // The first mask is there for those behind it.
            true => self.proposed + if self.masks > 1 { self.masks } else { 0 },
            false => self.places() + self.proposed,
        }
    }

    /// The row of logits of the `index`th place behind the known tokens.
    pub(super) fn row(&self, index: usize) -> usize {
        match index.checked_sub(self.proposed) {
            // The row of the last proposed token says what the first mask would, so that the mask's is passed over.
            behind if self.tokens_check => self.checks_row + index + usize::from(behind > Some(0)),
            Some(behind) => self.masks_row + behind,
            None => self.checks_row + index,
        }
    }
}

/// A token that a pass writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenToken {
    /// The row of logits that it was drawn from.
    pub(super) row: usize,
    pub(super) slot: usize,
    pub(super) position: u32,
    pub(super) token: u32,
    /// As in a draw.
    pub(super) log_prob: f64,
    pub(super) log_sum: f64,
}

/// What a random number of a slot is for.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// Which token is proposed.
    Propose = 0,
    /// Whether it stays.
    Accept = 1,
    /// Which token is written if it does not, or if none was proposed.
    Draw = 2,
}

/// The proposals of a sequence.
#[derive(Debug)]
pub(super) struct Lookahead {
    pub(super) depth: Depth,
    rng: Rng,
    /// The tokens that are proposed for the next slots; the first `count` of them are there.
    proposals: Vec<Proposal>,
    pub(super) count: usize,
    /// Those that the current step makes for the step after it.
    pub(super) next: Vec<Proposal>,
    pub(super) next_count: usize,
    /// What the current step feeds; `None` if it writes as without lookahead.
    pub(super) pass: Option<Pass>,
    /// The tokens that it writes.
    pub(super) written: Vec<WrittenToken>,
    /// Why it failed.
    pub(super) error: Option<Error>,
}

impl Lookahead {
    pub(super) fn new() -> Self {
        Self {
            depth: Depth::default(),
            rng: Rng::new(0, 0, Purpose::Ahead),
            proposals: Vec::new(),
            count: 0,
            next: Vec::new(),
            next_count: 0,
            pass: None,
            written: Vec::new(),
            error: None,
        }
    }

    /// Allocates the memory for the proposals, if there is not enough yet. Those that are there stay.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn make_room(&mut self, depth: &Depth) -> Result<()> {
        let most = depth.most();
        for proposals in [&mut self.proposals, &mut self.next] {
            let more = most.saturating_sub(proposals.len());
            reserve(proposals, more)?;
            for _ in 0..more {
                proposals.push(Proposal::with_capacity()?);
            }
        }
        if most > 0 && self.written.capacity() <= most {
            self.written = with_room(most + 1)?;
        }
        Ok(())
    }

    /// Begins with sequence number `stream` of a seed; there is room.
    pub(super) fn begin(&mut self, depth: Depth, seed: u64, stream: usize) {
        self.reset();
        self.depth = depth;
        self.rng = Rng::new(seed, stream, Purpose::Ahead);
    }

    /// Turns it off.
    pub(super) fn reset(&mut self) {
        self.depth = Depth::default();
        self.count = 0;
        self.undo();
    }

    /// Forgets what the step under way made.
    pub(super) fn undo(&mut self) {
        self.next_count = 0;
        self.pass = None;
        self.written.clear();
        self.error = None;
    }

    /// Ends a step: the tokens that it proposed are those for the next one.
    pub(super) fn end_step(&mut self) {
        let pass = self.pass.take().unwrap_or_default();
        self.depth.note(pass.proposed, pass.accepted);
        std::mem::swap(&mut self.proposals, &mut self.next);
        self.count = std::mem::take(&mut self.next_count);
    }

    /// The random number of a slot for some use, in [0, 1).
    pub(super) fn uniform(&mut self, slot: usize, purpose: Use) -> f64 {
        self.rng.uniform_at(slot as u64 * 3 + purpose as u64)
    }

    /// The token that is proposed for the `index`th place behind the known ones.
    pub(super) fn proposal(&self, index: usize) -> Result<&Proposal> {
        self.proposals.get(index).ok_or_else(|| Error::internal("a proposal is missing"))
    }
}
