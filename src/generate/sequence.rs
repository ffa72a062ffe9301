//! One sequence of a generation: the rows of its next step, the slots they attend to, and what the cache holds.

use std::ops::Range;

use super::finished::{FinishedPrefix, Positions, TextEnd};
use super::proposals::Lookahead;
use super::rules::SequenceRules;
use super::stop::StopReason;
use super::window_size::WindowSize;
use crate::error::{Error, Result};
use crate::forward::{Row, Slots};
use crate::memory::with_room;
use crate::model::{Config, Tokenizer, Variant};
use crate::rng::{Purpose, Rng};

/// The state of one sequence.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Its number in the session.
    pub(super) number: usize,
    /// Whether there is a text here. If not, the tokens, the order and the keys and values of the last one are still there.
    pub(super) in_use: bool,
    /// When it was left: its number among those that left, from 1 on; 0 if it did not.
    pub(super) left_at: u64,
    /// Its number among those that came, until it writes its first tokens: before, steps feed parts of its prompt. 0 if they
    /// feed it whole.
    pub(super) joining: u64,
    /// How many slots the current step feeds.
    pub(super) fed: usize,
    /// How many of these are fed once others have copied those before.
    pub(super) fed_later: usize,
    /// The sequence whose first slots it copies before it is fed.
    pub(super) lender: Option<Slots>,
    /// What holds for all of its steps.
    pub(super) rules: SequenceRules,
    /// Whether a device that draws tokens knows those that it must not have.
    pub(super) is_banned_there: bool,
    /// Number of its steps that are done.
    pub(super) steps_done: usize,
    /// Positions in generation order.
    pub(crate) order: Vec<u32>,
    /// Tokens by position; the mask token where unknown.
    pub(crate) tokens: Vec<u32>,
    /// Where the caller's tokens end: before it, the text cannot.
    prompt_end: usize,
    /// The positions known from the start on, and what ended the text there.
    pub(super) finished: FinishedPrefix,
    /// Number of tokens of each step.
    pub(crate) counts: Vec<u32>,
    /// Number of positions that an adaptive step proposes tokens for; otherwise 0.
    pub(crate) window: usize,
    /// The sizes of one that slides.
    pub(super) window_size: WindowSize,
    /// Whether the window slides from left to right, and how many of its positions are filled behind a gap: the first ones
    /// behind those that are known.
    pub(super) slides: bool,
    pub(super) filled: usize,
    /// Positions of a block of BD3-LM; otherwise 0.
    pub(super) block: usize,
    /// Number of positions of the text. A window that slides may reach beyond them.
    pub(super) text_length: usize,
    /// The first slots whose keys and values in the cache are final.
    pub(crate) committed: usize,
    /// The first slots that have known tokens.
    pub(crate) revealed: usize,
    /// The first slots that will have known tokens when the diffusion phase is over.
    pub(crate) diffused: usize,
    /// Random numbers for tokens, and their state before the current step.
    pub(crate) rng: Rng,
    pub(crate) rng_before: Rng,
    /// The tokens that it proposes for the next slots.
    pub(super) ahead: Lookahead,
}

impl Sequence {
    /// An empty sequence with memory for `length` tokens, of a model with blocks of `block` positions.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn with_capacity(length: usize, number: usize, block: usize) -> Result<Self> {
        Ok(Self {
            number,
            in_use: false,
            left_at: 0,
            joining: 0,
            fed: 0,
            lender: None,
            fed_later: 0,
            rules: SequenceRules::default(),
            is_banned_there: false,
            steps_done: 0,
            order: with_room(length)?,
            tokens: with_room(length)?,
            prompt_end: 0,
            finished: FinishedPrefix::default(),
            counts: with_room(length)?,
            window: 0,
            window_size: WindowSize::default(),
            slides: false,
            filled: 0,
            block,
            text_length: 0,
            committed: 0,
            revealed: 0,
            diffused: 0,
            rng: Rng::new(0, number, Purpose::Token),
            rng_before: Rng::new(0, number, Purpose::Token),
            ahead: Lookahead::new(),
        })
    }

    /// Whether the row of a token predicts the next one.
    pub(super) fn predicts_next(&self, config: &Config) -> bool {
        config.variant == Variant::Ar || config.variant == Variant::WeDlm && self.rules.one_by_one
    }

    /// The number of first tokens that no row predicts.
    pub(super) fn given_tokens(&self, config: &Config) -> usize {
        if self.predicts_next(config) { config.given_tokens() } else { 0 }
    }

    /// The slots that the next step feeds. The last `count` of them become tokens.
    pub(super) fn slots(&self, config: &Config, count: usize) -> Range<usize> {
        match config.variant {
            Variant::Mdlm => 0..self.order.len(),
            Variant::Bd3Lm => self.block_slots(),
            _ => self.committed..self.revealed + self.filled + count - self.given_tokens(config),
        }
    }

    /// The row that a slot is fed as in the coming step.
    ///
    /// # Errors
    /// [`Error::Internal`] for a slot outside the order.
    pub(super) fn row(&self, slot: usize, count: usize, config: &Config) -> Result<Row> {
        if config.variant == Variant::Bd3Lm {
            return self.block_row(slot, self.next_positions(count), config);
        }
        let output = slot >= self.slots(config, count).end - count;
        let both_ways = self.revealed.min(self.diffused);
        let (place, visible_slots) = match config.variant {
            Variant::EsoB => (slot, slot + 1),
            Variant::WeDlm if !self.predicts_next(config) => (slot, slot + 1),
            // Tokens of the diffusion phase attend to each other both ways, now and from then on.
            Variant::EsoA => (slot, both_ways.max(slot + 1)),
            // Everything attends to everything; the masks that stay masks go first.
            Variant::Mdlm if slot < self.revealed => (slot, self.order.len()),
            Variant::Mdlm if output => (slot + self.revealed + count - self.order.len(), self.order.len()),
            Variant::Mdlm | Variant::Bd3Lm => (slot + count, self.order.len()),
            Variant::Ar | Variant::WeDlm => {
                return Row::before(config, slot, output, |place| {
                    let position = self.position(place)?;
                    Ok((position, self.token(position)?))
                });
            }
        };
        let position = self.position(place)?;
        // A token that an earlier batch of this step has drawn is not known to this step.
        let is_known = place < self.revealed + self.filled;
        let token = if is_known { self.token(position)? } else { config.mask_token_id };
        Ok(Row { token, position, output, visible_slots: visible_slots as u32, sees_itself: false })
    }

    /// The position at a place of the order.
    pub(super) fn position(&self, place: usize) -> Result<u32> {
        let position = self.order.get(place).copied();
        position.ok_or_else(|| Error::internal(format!("place {place} is outside the order")))
    }

    /// The token at a position.
    pub(super) fn token(&self, position: u32) -> Result<u32> {
        let token = self.tokens.get(position as usize).copied();
        token.ok_or_else(|| Error::internal(format!("position {position} is outside the text")))
    }

    /// Advances past a step that wrote `count` tokens.
    pub(super) fn advance(&mut self, config: &Config, count: usize) {
        self.committed = match config.variant {
            Variant::EsoB => self.revealed,
            Variant::WeDlm if !self.predicts_next(config) => self.revealed,
            Variant::EsoA if self.revealed >= self.diffused => self.revealed,
            Variant::EsoA | Variant::Mdlm => 0,
            // What a step writes is in one block.
            Variant::Bd3Lm => self.current_start(),
            Variant::Ar | Variant::WeDlm => self.revealed + count - self.given_tokens(config),
        };
        self.revealed += count;
        self.steps_done += 1;
        self.joining = 0;
    }

    /// The number of tokens that the next step writes (or proposes, if adaptive); `None` if the sequence is finished.
    pub(super) fn tokens_due(&self) -> Option<usize> {
        match self.window {
            0 => self.counts.get(self.steps_done).map(|&count| count as usize),
            window if self.block > 0 => Some(self.window_in_block(window)).filter(|&count| count > 0),
            window => {
                Some(window.min(self.order.len() - self.revealed) - self.filled).filter(|&count| count > 0)
            }
        }
    }

    /// The number of steps that are left, at most.
    pub(super) fn steps_left(&self) -> usize {
        match self.window {
            0 => self.counts.len().saturating_sub(self.steps_done),
            _ => self.order.len() - self.revealed,
        }
    }

    /// Moves those of the next positions for which `accepted` is true before the others. Both stay in their order.
    pub(super) fn move_accepted_first(&mut self, accepted: &[bool]) {
        if self.slides {
            return;
        }
        let Some(next) = self.order.get_mut(self.revealed..) else { return };
        let mut count = 0;
        for (i, _) in accepted.iter().enumerate().filter(|(_, accepted)| **accepted) {
            if let Some(positions) = next.get_mut(count..=i) {
                positions.rotate_right(1);
                count += 1;
            }
        }
    }

    /// Begins a text with these rules.
    pub(super) fn begin(&mut self, rules: SequenceRules) {
        self.in_use = true;
        self.joining = 0;
        self.lender = None;
        self.steps_done = 0;
        self.rules = rules;
        self.is_banned_there = false;
        self.ahead.reset();
    }

    /// The tokens that are known, pairs of position and token in the order of their slots.
    pub(super) fn known_tokens(&self) -> impl Iterator<Item = (u32, u32)> {
        let known = self.order.iter().take(self.revealed);
        known.filter_map(|&position| Some((position, self.token(position).ok()?)))
    }

    /// How many of its first slots have the first tokens of `prompt`, pairs of position and token in the order of slots; in BD3-LM
    /// whole blocks, as each attends to all of itself.
    pub(super) fn same_beginning(&self, prompt: impl Iterator<Item = (u32, u32)>) -> usize {
        let has = |&(position, token): &(u32, u32)| self.tokens.get(position as usize) == Some(&token);
        if self.block > 0 {
            // Slots are positions.
            let places = (0..).zip(prompt);
            let same = places.take_while(|(slot, known)| *slot == known.0 && has(known)).count();
            return same - same % self.block;
        }
        let places = self.order.iter().take(self.revealed).zip(prompt);
        places.take_while(|(at, known)| **at == known.0 && has(known)).count()
    }

    /// Ends the sequence. What the cache holds of it may still serve another one.
    pub(super) fn leave(&mut self) {
        self.in_use = false;
        self.lender = None;
        self.rules = SequenceRules::default();
        self.counts.clear();
        self.window = 0;
        self.ahead.reset();
    }

    /// Empties the sequence.
    pub(super) fn reset(&mut self) {
        self.committed = 0;
        self.revealed = 0;
        self.window = 0;
        self.slides = false;
        self.filled = 0;
        self.order.clear();
        self.tokens.clear();
        self.counts.clear();
    }

    /// Resizes the text to `length` tokens and adds `known` ones (pairs of position and token), sorted by position,
    /// to those known already. The caller appends the unknown positions to `order`.
    pub(super) fn set_known(
        &mut self,
        length: usize,
        mask: u32,
        known: impl Iterator<Item = (u32, u32)>,
    ) -> Result<()> {
        self.text_length = length;
        self.tokens.resize(length, mask);
        self.order.truncate(self.revealed);
        for (position, token) in known {
            let slot = self.tokens.get_mut(position as usize);
            *slot.ok_or_else(|| Error::internal(format!("position {position} is outside the text")))? = token;
            self.order.push(position);
        }
        if let Some(new) = self.order.get_mut(self.revealed..) {
            new.sort_unstable();
        }
        self.revealed = self.order.len();
        let last = self.tokens.iter().rposition(|&token| token != mask);
        self.prompt_end = last.map_or(0, |last| last + 1);
        Ok(())
    }

    /// Puts the known tokens, which have no gap, in the order of the text: a row that predicts the next token follows the one before.
    /// (A window fills them in another order.) What the cache holds of those that move is not theirs any more.
    pub(super) fn put_in_order(&mut self) {
        let known = self.order.get_mut(..self.revealed).unwrap_or_default();
        let same = (0..).zip(known.iter()).take_while(|(place, position)| place == *position).count();
        known.sort_unstable();
        self.committed = self.committed.min(same);
    }

    /// Begins to look for the end of the text, behind the tokens that are known.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], if no room was made ([`FinishedPrefix::make_room`]), or a token is longer than that.
    pub(super) fn begin_text(&mut self, mask: u32, tokenizer: Option<&Tokenizer>) -> Result<()> {
        self.finished.begin(&self.rules.stop, tokenizer)?;
        // The text that is there already is nobody's news.
        self.finished.is_known = true;
        self.advance_text(mask, tokenizer);
        self.finished.is_known = false;
        self.finished.begin_new_text(false);
        self.finished.check_room()
    }

    /// Looks for the end of the text in the positions that have become known. If it is there, what is behind it is dropped
    /// and the sequence is finished.
    pub(super) fn advance_text(&mut self, mask: u32, tokenizer: Option<&Tokenizer>) {
        self.find_end(mask, tokenizer);
        self.end_text();
    }

    /// The first part of [`Sequence::advance_text`]: whether the text ends.
    pub(super) fn find_end(&mut self, mask: u32, tokenizer: Option<&Tokenizer>) -> bool {
        let Self { tokens, text_length, prompt_end, rules, .. } = self;
        let tokens = tokens.get(..*text_length).unwrap_or_default();
        self.finished.advance(Positions { tokens, prompt_end: *prompt_end, mask }, &rules.stop, tokenizer);
        self.finished.stop.is_some()
    }

    /// The second part of [`Sequence::advance_text`].
    pub(super) fn end_text(&mut self) {
        let is_full = self.slides && self.finished.tokens == self.text_length;
        if self.finished.stop.is_some() || is_full {
            self.truncate(self.finished.tokens);
        }
        self.finished.give_text(self.text_length);
    }

    /// Drops the positions from `length` on; those before it are known.
    pub(super) fn truncate(&mut self, length: usize) {
        let is_dropped = |&position: &u32| position as usize >= length;
        // What is behind a dropped slot has attended to it.
        let kept = self.order.iter().position(is_dropped).unwrap_or(self.order.len());
        self.committed = match self.block {
            0 => self.committed.min(kept),
            block => self.committed.min(length - length % block),
        };
        self.order.retain(|position| !is_dropped(position));
        self.tokens.truncate(length);
        self.text_length = length;
        self.filled = 0;
        self.counts.clear();
        self.revealed = self.order.len();
        self.diffused = self.diffused.min(self.revealed);
    }

    /// Which part of the tokens is the text.
    pub(super) fn text_end(&self) -> TextEnd {
        self.finished.text_end(self.text_length)
    }

    /// Why the text ended; `None` if it did not.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        let all_known = || {
            (self.revealed == self.tokens.len() || self.finished.tokens == self.text_length)
                .then_some(StopReason::Length)
        };
        self.finished.stop.map(|stop| stop.reason).or_else(all_known)
    }
}
