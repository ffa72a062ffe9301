//! Prompts that begin alike are read once: the sequence that came first feeds what they have in common, and the others copy its keys
//! and values. (What has been read before is copied when a sequence joins: `join.rs`.) One that copies lends nothing itself until it
//! has read its prompt, so that nobody waits for two.

use super::sequence::Sequence;
use super::session::Session;
use crate::error::{Error, Result};
use crate::forward::{ModelRunner, Slots};
use crate::model::{Config, Variant};

/// Fewest slots that are worth a copy: to feed them first takes another pass over the weights, which is about as long as so many
/// rows take.
const FEWEST_COPIED: usize = 16;

/// How many more slots than tokens two sequences have in common: in an autoregressive model a slot has the token before, and the
/// first one none.
pub(super) fn slots_before_tokens(config: &Config) -> usize {
    if config.variant == Variant::Ar { 1 - config.given_tokens() } else { 0 }
}

impl Session {
    /// Finds for each sequence that has come another one that reads at least half of its prompt, or has read it; anew for all that
    /// have not read theirs, where one that lends has left. None is found where a copy takes memory and time of a device's.
    pub(super) fn find_lenders(&mut self, config: &Config) {
        if !self.copies_in_place {
            return;
        }
        if self.sequences.iter().any(|sequence| self.has_lost_its_lender(sequence, config)) {
            self.lenders_found = 0;
        }
        let mut last = std::mem::replace(&mut self.lenders_found, self.arrivals);
        while let Some(sequence) = self.next_to_read(last) {
            let (number, joining) = (sequence.number, sequence.joining);
            let lender = self.lender_of(sequence, config);
            if let Some(sequence) = self.sequences.get_mut(number) {
                sequence.lender = lender;
            }
            last = joining;
        }
    }

    fn has_lost_its_lender(&self, sequence: &Sequence, config: &Config) -> bool {
        let Some(Slots { sequence: number, count }) = sequence.lender else { return false };
        // The place of one that left may have another text by now.
        let lends = |lender: &Sequence| {
            lender.may_lend_to(sequence) && lender.common_slots(sequence, config) >= count
        };
        !self.sequences.get(number).is_some_and(lends)
    }

    /// The first sequence to come after number `last` of the arrivals that has not begun to write.
    pub(super) fn next_to_read(&self, last: u64) -> Option<&Sequence> {
        self.sequences
            .iter()
            .filter(|sequence| sequence.joining > last)
            .min_by_key(|sequence| sequence.joining)
    }

    /// One that came before, even if it has left, copies nothing itself, and has the most of the sequence's prompt.
    fn lender_of(&self, sequence: &Sequence, config: &Config) -> Option<Slots> {
        let end = sequence.prompt_slots(config);
        let others =
            self.sequences.iter().filter(|other| other.lender.is_none() && other.may_lend_to(sequence));
        let (count, number) = others
            .map(|other| (other.common_slots(sequence, config), other.number))
            .max_by_key(|&(count, _)| count)?;
        let is_worth_it = 2 * count >= end && count >= sequence.committed + FEWEST_COPIED;
        is_worth_it.then_some(Slots { sequence: number, count })
    }

    /// Whether the slots that a sequence copies will be in the cache when it is fed in this step.
    pub(super) fn lender_is_ready(&self, lender: Slots) -> bool {
        let found = self.sequences.get(lender.sequence);
        found.is_some_and(|sequence| sequence.committed + sequence.fed >= lender.count)
    }

    /// Has the cache hold what the sequences that this step feeds copy: feeds it to those that lend it, and copies it.
    ///
    /// # Errors
    /// As [`ModelRunner::run`].
    pub(super) fn read_common_prompts(&mut self, runner: &mut ModelRunner, config: &Config) -> Result<()> {
        let copies = |sequence: &Sequence| sequence.lender.filter(|_| sequence.fed > 0);
        if !self.sequences.iter().any(|sequence| copies(sequence).is_some()) {
            return Ok(());
        }
        for sequence in &mut self.sequences {
            sequence.fed_later = sequence.fed;
        }
        for number in 0..self.sequences.len() {
            let lender = self.sequences.get(number).and_then(copies);
            let Some(Slots { sequence: lender, count }) = lender else { continue };
            if let Some(Sequence { committed, fed, fed_later, .. }) = self.sequences.get_mut(lender) {
                *fed_later = (*fed_later).min((*committed + *fed).saturating_sub(count));
            }
        }
        if self.sequences.iter().any(|sequence| sequence.fed_later < sequence.fed) {
            for sequence in &mut self.sequences {
                sequence.fed -= sequence.fed_later;
            }
            let read = self.feed_prompts(runner, config);
            for Sequence { fed, fed_later, committed, .. } in &mut self.sequences {
                *committed += if read.is_ok() { *fed } else { 0 };
                *fed = *fed_later;
            }
            read?;
        }
        for number in 0..self.sequences.len() {
            let Some(slots) = self.sequences.get(number).and_then(copies) else { continue };
            if runner.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            runner.copy_cache(slots, number)?;
            if let Some(sequence) = self.sequences.get_mut(number) {
                sequence.committed = slots.count;
                sequence.lender = None;
            }
        }
        Ok(())
    }
}

impl Sequence {
    /// Whether it came before another one, and has a text or has left since the generation began.
    fn may_lend_to(&self, other: &Self) -> bool {
        (self.in_use || self.left_at > 0) && self.joining < other.joining
    }

    /// How many slots of another sequence's prompt this one has, or will have read.
    fn common_slots(&self, other: &Self, config: &Config) -> usize {
        let same = self.same_beginning(other.known_tokens()) + slots_before_tokens(config);
        same.min(self.prompt_slots(config)).min(other.prompt_slots(config))
    }
}
