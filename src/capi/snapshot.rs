//! What other threads may read of a context while a call computes: the texts as the last step left them.

use std::num::NonZero;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::Profile;
use crate::generate::{StopReason, TextEnd};
use crate::memory::{no_room, reserve, with_room};
use crate::sample::TokenLogProb;

/// Copies of a context's texts, in memory that is reserved once.
#[derive(Debug)]
pub(super) struct Snapshot {
    sequences: Vec<SequenceSnapshot>,
    /// Sequences in use.
    active: usize,
    profile: Option<Profile>,
    /// Of the last step, so many for each update.
    top_log_probs: Vec<TokenLogProb>,
    /// How many there were no memory for.
    missing_log_probs: usize,
    per_update: usize,
}

/// A sequence's tokens by position, and its positions in generation order.
#[derive(Debug)]
struct SequenceSnapshot {
    tokens: Vec<u32>,
    order: Vec<u32>,
    text_end: TextEnd,
    stop_reason: Option<StopReason>,
    in_use: bool,
}

impl Snapshot {
    /// Room for the texts of a context with so many sequences.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn new(sequences: usize, length: usize) -> Result<Self> {
        let mut all = with_room(sequences)?;
        for _ in 0..sequences {
            let (tokens, order) = (with_room(length)?, with_room(length)?);
            let text_end = TextEnd::default();
            all.push(SequenceSnapshot { tokens, order, text_end, stop_reason: None, in_use: false });
        }
        Ok(Self {
            sequences: all,
            active: 0,
            profile: None,
            top_log_probs: Vec::new(),
            missing_log_probs: 0,
            per_update: 0,
        })
    }

    /// Copies the context's texts. Allocates nothing, but at the beginning of a generation with `top_log_probs`.
    pub(super) fn update(&mut self, context: &Context) {
        self.active = context.sequences();
        self.profile = context.profile();
        let (per_update, of_step, most) = context.top_log_probs();
        self.per_update = per_update;
        self.top_log_probs.clear();
        self.missing_log_probs = match reserve(&mut self.top_log_probs, most) {
            Ok(()) => {
                self.top_log_probs.extend_from_slice(of_step);
                0
            }
            Err(_) => most,
        };
        for (number, sequence) in self.sequences.iter_mut().take(self.active).enumerate() {
            let copy = |to: &mut Vec<u32>, from: Result<&[u32]>| {
                to.clear();
                // Every sequence has both.
                to.extend_from_slice(from.unwrap_or_default());
            };
            sequence.in_use = context.has_sequence(number);
            if !sequence.in_use {
                continue;
            }
            copy(&mut sequence.tokens, context.tokens(number));
            copy(&mut sequence.order, context.order(number));
            sequence.text_end = context.text_end(number).unwrap_or_default();
            sequence.stop_reason = context.stop_reason(number).unwrap_or_default();
        }
    }

    /// The tokens of a sequence by position, the mask token where unknown.
    pub(super) fn tokens(&self, sequence: u32) -> Result<&[u32]> {
        Ok(&self.sequence(sequence)?.tokens)
    }

    /// The tokens of a sequence that are its text, and which part of them is.
    pub(super) fn text(&self, sequence: u32) -> Result<(&[u32], TextEnd)> {
        let SequenceSnapshot { tokens, text_end, .. } = self.sequence(sequence)?;
        Ok((tokens.get(..text_end.tokens).unwrap_or_default(), *text_end))
    }

    /// Why a sequence's text ended, if it did.
    pub(super) fn stop_reason(&self, sequence: u32) -> Result<Option<StopReason>> {
        Ok(self.sequence(sequence)?.stop_reason)
    }

    /// The positions of a sequence in generation order.
    pub(super) fn order(&self, sequence: u32) -> Result<&[u32]> {
        Ok(&self.sequence(sequence)?.order)
    }

    /// The most likely tokens at the position of an update of the last step.
    pub(super) fn top_log_probs(&self, update: usize) -> Result<&[TokenLogProb]> {
        if self.missing_log_probs > 0 {
            return Err(no_room(self.missing_log_probs.saturating_mul(size_of::<TokenLogProb>())));
        }
        let of = |per_update| self.top_log_probs.chunks_exact(per_update).nth(update);
        let found = NonZero::new(self.per_update).and_then(|per_update| of(per_update.get()));
        found.ok_or_else(|| Error::invalid(format!("no top_log_probs of an update {update}")))
    }

    /// Where the time of the steps went.
    pub(super) fn profile(&self) -> Option<Profile> {
        self.profile
    }

    fn sequence(&self, number: u32) -> Result<&SequenceSnapshot> {
        let active = self.sequences.get(..self.active).unwrap_or_default();
        let found = active.get(number as usize).filter(|sequence| sequence.in_use);
        found.ok_or_else(|| Error::invalid(format!("there is no sequence {number}")))
    }
}
