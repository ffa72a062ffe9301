//! Sequences that join a generation and leave it (continuous batching). One that joins takes the keys and values of the
//! prompt's beginning from a sequence that has the same tokens there.

use super::common_prompts::slots_before_tokens;
use super::request::{GenerateParams, Prompt};
use super::sequence::Sequence;
use super::session::Session;
use super::start::Start;
use crate::error::{Error, Result};
use crate::forward::{ModelRunner, Slots};
use crate::memory::collected;

impl Session {
    /// Adds a sequence; see [`Context::add_sequence`](crate::Context::add_sequence).
    pub(crate) fn add(
        &mut self,
        runner: &mut ModelRunner,
        prompt: &Prompt,
        params: &GenerateParams<'_>,
    ) -> Result<usize> {
        let number = self.free_sequence(runner)?;
        let start = Start { first: number, resume: false, keep: None, beside: true };
        let begun = self.prepare(runner, std::slice::from_ref(prompt), params, start);
        if let (Err(_), Some(sequence)) = (&begun, self.sequences.get_mut(number)) {
            sequence.leave();
        }
        begun.map(|()| number)
    }

    /// Goes on with one sequence; see [`Context::extend_sequence`](crate::Context::extend_sequence).
    pub(crate) fn extend_one(
        &mut self,
        runner: &mut ModelRunner,
        number: usize,
        prompt: &Prompt,
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        runner.model.config().variant.check_keeps_cache("extended")?;
        self.sequence(number)?;
        let start = Start { first: number, resume: true, keep: None, beside: true };
        self.prepare(runner, std::slice::from_ref(prompt), params, start)
    }

    /// Goes on behind the text of one sequence; see
    /// [`Context::append_sequence`](crate::Context::append_sequence).
    pub(crate) fn append(
        &mut self,
        runner: &mut ModelRunner,
        number: usize,
        keep: Option<usize>,
        prompt: &Prompt,
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        runner.model.config().variant.check_keeps_cache("extended")?;
        // Behind a gap there is nothing that could be a text's beginning.
        let end = self.sequence(number)?.finished.tokens;
        let end = end.min(keep.unwrap_or(end));
        let behind = |&(position, token): &(u32, u32)| (position.saturating_add(end as u32), token);
        let prompt = Prompt { known: collected(prompt.known.iter().map(behind))? };
        let start = Start { first: number, resume: true, keep: Some(end), beside: true };
        self.prepare(runner, std::slice::from_ref(&prompt), params, start)
    }

    /// Ends one sequence; see [`Context::remove_sequence`](crate::Context::remove_sequence).
    pub(crate) fn remove(&mut self, runner: &ModelRunner, number: usize) -> Result<()> {
        self.sequence(number)?;
        if let Some(sequence) = self.sequences.get_mut(number) {
            self.departures += 1;
            sequence.left_at = self.departures;
            sequence.leave();
        }
        self.forget_step();
        self.count_steps(runner.model.config());
        Ok(())
    }

    /// The free sequence that was left first: the caches of the others may serve longer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if none is free.
    pub(super) fn free_sequence(&self, runner: &ModelRunner) -> Result<usize> {
        let free = self.sequences.iter().enumerate().filter(|(_, sequence)| !sequence.in_use);
        free.min_by_key(|(_, sequence)| sequence.left_at).map(|(number, _)| number).ok_or_else(|| {
            let most = runner.capacity.sequences;
            Error::invalid(format!("all {most} sequences of the context are in use"))
        })
    }

    /// Copies the keys and values of the prompt's beginning, which has been checked, to sequence `number` from the one
    /// that has most of them. Returns the number of slots.
    pub(super) fn share_prefix(&mut self, runner: &mut ModelRunner, number: usize) -> Result<usize> {
        let config = runner.model.config();
        if !config.variant.keeps_cache() {
            return Ok(0);
        }
        let more = slots_before_tokens(config);
        let prompt = (0..).zip(self.known.iter().copied()).filter(|&(_, token)| token != self.mask);
        let slots =
            |sequence: &Sequence| (sequence.same_beginning(prompt.clone()) + more).min(sequence.committed);
        // The sequence's own, where they need not be copied, come first among the longest.
        let found =
            self.sequences.iter().map(slots).enumerate().max_by_key(|&(of, slots)| (slots, of == number));
        let Some((from, count)) = found.filter(|&(_, count)| count > 0) else { return Ok(0) };
        if from != number {
            runner.copy_cache(Slots { sequence: from, count }, number)?;
        }
        Ok(count)
    }
}
