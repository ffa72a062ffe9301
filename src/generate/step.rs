//! One step: rows go through the network in one or several batches, and each row of logits becomes a token.

use std::time::Instant;

use super::draw::{Draw, DrawRules, DrawState, TokenChoice};
use super::proposals::WrittenToken;
use super::sequence::Sequence;
use super::session::{Session, StepBuffers};
use super::stop::StopReason;
use super::update::{Step, Update};
use crate::error::{Error, Result};
use crate::forward::{Logits, ModelRunner, Segment};
use crate::model::{Config, Model, Variant};
use crate::simd::DefaultFloats;

/// Where a batch begins: a sequence and a slot of it.
#[derive(Clone, Copy)]
struct BatchStart {
    sequence: usize,
    slot: usize,
}

impl Session {
    /// Runs one step and says what it wrote; nothing when the generation is finished. After an error the session is
    /// as before the call, but for [`Error::OutOfMemory`] where new text has no room: then the tokens are written, and all
    /// texts since come with the next step, if there is one.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::NotFinite`]; [`Error::Device`]; [`Error::OutOfMemory`]; those of a function in `choice`.
    pub(crate) fn step(
        &mut self,
        runner: &mut ModelRunner,
        mut choice: TokenChoice<'_>,
    ) -> Result<Option<Step<'_>>> {
        let _floats = DefaultFloats::set();
        if self.steps_done >= self.steps_total {
            return Ok(None);
        }
        if runner.cancel.is_cancelled() {
            self.interrupt(Some(StopReason::Cancelled));
            return Err(Error::Cancelled);
        }
        self.failed = None;
        let started = Instant::now();
        // A failed step is undone: the random numbers go back, and the next step overwrites its slots of the cache.
        let kept = std::mem::take(&mut self.texts_kept);
        for sequence in &mut self.sequences {
            sequence.finished.begin_new_text(kept);
            sequence.rng_before = sequence.rng.clone();
        }
        let model = runner.model.clone();
        let (looks_ahead, mut proposed) = self.attempt(runner, &model, &mut choice, true);
        if let (true, Err(Error::NotFinite(_))) = (looks_ahead, &proposed) {
            // Perhaps for a token that would not have been written.
            self.undo();
            self.note_run(&proposed);
            self.clear_damaged_cache(runner);
            self.failed = None;
            (_, proposed) = self.attempt(runner, &model, &mut choice, false);
        }
        if let Err(error) = &proposed {
            self.undo();
            self.note_run(&proposed);
            self.texts_kept = kept;
            self.fail(error);
        }
        proposed?;
        if self.wants.confidences {
            self.reject_uncertain()?;
        }
        self.commit(&model)?;
        if kept {
            // Also of those that this step has written nothing of.
            let in_use = self.sequences.iter_mut().filter(|sequence| sequence.in_use);
            in_use.for_each(|sequence| sequence.finished.give_text(sequence.text_length));
        }
        let texts = self.sequences.iter_mut().map(|sequence| sequence.finished.check_room());
        if let Err(error) = texts.fold(Ok(()), Result::and) {
            // The tokens are written; the texts come with the next step.
            self.texts_kept = true;
            self.fail(&error);
            return Err(error);
        }
        self.interrupt(None);
        self.clock.steps += started.elapsed();
        let StepBuffers { updates, log_probs, top_log_probs, proposed_ahead, accepted_ahead, .. } =
            &self.buffers;
        let (index, total, sequences) = (self.steps_done - 1, self.steps_total, self.active());
        let (proposed, accepted) = (*proposed_ahead, *accepted_ahead);
        Ok(Some(Step { index, total, updates, log_probs, top_log_probs, proposed, accepted, sequences }))
    }

    /// Feeds the step's rows and draws its tokens; `ahead` says whether sequences may look ahead that the sampler alone draws for. Also returns whether any does.
    fn attempt(
        &mut self,
        runner: &mut ModelRunner,
        model: &Model,
        choice: &mut TokenChoice<'_>,
        ahead: bool,
    ) -> (bool, Result<()>) {
        self.share_prompt_rows(runner);
        let read = self.read_common_prompts(runner, model.config());
        let looks_ahead = self.plan_passes(model.config(), |sequence| ahead && choice.leaves_alone(sequence));
        (looks_ahead, read.and_then(|()| self.propose(runner, model, choice)))
    }

    /// Works out which of the sequences that `may` do look ahead in the coming step, and whether there are any.
    fn plan_passes(&mut self, config: &Config, may: impl Fn(usize) -> bool) -> bool {
        self.sequences.iter_mut().for_each(|sequence| sequence.plan_pass(config, may(sequence.number)));
        self.sequences.iter().any(|sequence| sequence.ahead.pass.is_some())
    }

    /// Undoes what a failed step has drawn.
    fn undo(&mut self) {
        for sequence in &mut self.sequences {
            sequence.rng = sequence.rng_before.clone();
            sequence.ahead.undo();
        }
        self.buffers.clear();
    }

    /// Runs the step's rows through the network and draws a token for each that wants one.
    fn propose(
        &mut self,
        runner: &mut ModelRunner,
        model: &Model,
        choice: &mut TokenChoice<'_>,
    ) -> Result<()> {
        self.buffers.clear();
        let config = model.config();
        let mut from = Some(BatchStart { sequence: 0, slot: 0 });
        while let Some(start) = from {
            from = self.fill_batch(start, config, runner.capacity.rows)?;
            if matches!(choice, TokenChoice::Sample) && self.draws_on(runner) {
                self.draw_on_device(runner, config)?;
                continue;
            }
            let mut logits = runner.run(&self.buffers.batch)?;
            let sampling = Instant::now();
            self.list_draws(config)?;
            self.prepare_grammars()?;
            self.draw_tokens(&mut logits, config, choice)?;
            self.look_ahead(&mut logits, config)?;
            self.collect_draws(logits.rows, config)?;
            self.clock.sampling += sampling.elapsed();
        }
        Ok(())
    }

    /// Feeds the rows that are due, which are of prompts alone.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub(super) fn feed_prompts(&mut self, runner: &mut ModelRunner, config: &Config) -> Result<()> {
        let mut from = Some(BatchStart { sequence: 0, slot: 0 });
        while let Some(start) = from {
            from = self.fill_batch(start, config, runner.capacity.rows)?;
            runner.run(&self.buffers.batch)?;
        }
        Ok(())
    }

    /// Puts the rows of the coming step from `from` on into the batch, as many as fit. Returns where the next batch
    /// begins, or nothing if all rows are in.
    fn fill_batch(
        &mut self,
        from: BatchStart,
        config: &Config,
        max_rows: usize,
    ) -> Result<Option<BatchStart>> {
        let Self { sequences, buffers: StepBuffers { batch, .. }, .. } = self;
        batch.clear();
        let BatchStart { sequence: first_sequence, mut slot } = from;
        for (number, sequence) in sequences.iter().enumerate().skip(first_sequence) {
            let Some(count) = sequence.tokens_due() else { continue };
            let slots = sequence.slots_due(config, count);
            slot = slot.max(slots.start);
            let mut begins = true;
            while slot < slots.end {
                let first_row = batch.tokens.len();
                if first_row + sequence.rows_together(slot, &slots, config) > max_rows {
                    return Ok(Some(BatchStart { sequence: number, slot }));
                }
                if begins || sequence.begins_checks(slot) {
                    let (rows, outputs) = (0, 0);
                    let segment = Segment { sequence: number, first_row, rows, first_slot: slot, outputs };
                    batch.segments.push(segment);
                    begins = false;
                }
                batch.push(sequence.row_due(slot, count, config)?);
                slot += 1;
            }
            slot = 0;
        }
        Ok(None)
    }

    /// Lists the rows of the batch that become tokens, each with a random number of its sequence.
    pub(super) fn list_draws(&mut self, config: &Config) -> Result<()> {
        let Self { sequences, buffers: StepBuffers { batch, draws, .. }, .. } = self;
        draws.clear();
        let mut positions = batch.output_positions.iter().zip(0..);
        for segment in &batch.segments {
            let missing = || Error::internal("a segment without a sequence");
            let sequence = sequences.get_mut(segment.sequence).ok_or_else(missing)?;
            // In generation order. Slots of BD3-LM are positions, and MDLM is fed the masks that become tokens last.
            let end = match config.variant {
                Variant::Bd3Lm | Variant::Mdlm => sequence.revealed + segment.outputs,
                _ => segment.first_slot + segment.rows + sequence.given_tokens(config),
            };
            for (slot, (&position, row)) in (end - segment.outputs..end).zip(&mut positions) {
                if sequence.notes_logits(slot, row) {
                    continue;
                }
                let sequence_number = segment.sequence as u32;
                let position = match sequence.predicts_next(config) {
                    true => sequence.position(slot)?,
                    false => position as u32,
                };
                let update = Update { sequence: sequence_number, position, token: 0 };
                draws.push(Draw::new(row, slot, sequence.rng.uniform(), update));
            }
        }
        Ok(())
    }

    /// Draws the listed tokens: on all threads, unless a function of the caller's takes part.
    fn draw_tokens(
        &mut self,
        logits: &mut Logits<'_>,
        config: &Config,
        choice: &mut TokenChoice<'_>,
    ) -> Result<()> {
        let Self { sequences, wants, failed, buffers: StepBuffers { draws, draw_states, .. }, .. } = self;
        let rules = DrawRules { config, sequences, wants: *wants };
        if let TokenChoice::Sample = choice {
            return logits.for_each(draw_states, draws, |logits, state: &mut DrawState, draw: &mut Draw| {
                draw.error = rules.draw(logits, state, draw, &mut TokenChoice::Sample).err();
            });
        }
        let state = draw_states.first_mut().ok_or_else(|| Error::internal("no thread to draw with"))?;
        draws.iter_mut().try_for_each(|draw| {
            let drawn = rules.draw(logits.rows, state, draw, choice);
            drawn.inspect_err(|_| *failed = Some(draw.update.sequence as usize))
        })
    }

    /// Has the sequences that look ahead write their tokens, and lists those with the others.
    fn look_ahead(&mut self, logits: &mut Logits<'_>, config: &Config) -> Result<()> {
        let Self { sequences, wants, failed, buffers: StepBuffers { draws, draw_states, .. }, .. } = self;
        let wants = *wants;
        if !sequences.iter().any(Sequence::has_logits_ahead) {
            return Ok(());
        }
        logits.for_each(
            draw_states,
            sequences,
            |logits, state: &mut DrawState, sequence: &mut Sequence| {
                sequence.look_ahead(logits, state, config, wants);
            },
        )?;
        for sequence in sequences {
            if let Some(error) = sequence.ahead.error.take() {
                *failed = Some(sequence.number);
                return Err(error);
            }
            let number = sequence.number as u32;
            draws.extend(sequence.ahead.written.drain(..).map(|written| {
                let WrittenToken { row, slot, position, token, log_prob, log_sum } = written;
                let update = Update { sequence: number, position, token };
                Draw { log_prob, log_sum, ..Draw::new(row, slot, 0.0, update) }
            }));
        }
        draws.sort_unstable_by_key(|draw| (draw.update.sequence, draw.slot));
        Ok(())
    }

    /// Moves the drawn tokens into the step's results.
    fn collect_draws(&mut self, logits: &[f32], config: &Config) -> Result<()> {
        let StepBuffers { draws, draw_states, updates, log_probs, top_log_probs, confidences, .. } =
            &mut self.buffers;
        let missing = || Error::internal("a row of logits is missing");
        for draw in draws.drain(..) {
            if let Some(error) = draw.error {
                self.failed = Some(draw.update.sequence as usize);
                return Err(error);
            }
            if self.wants.top_log_probs > 0 {
                let row = logits.chunks_exact(config.vocab_size).nth(draw.row).ok_or_else(missing)?;
                let state = draw_states.first_mut().ok_or_else(missing)?;
                state.sampler.most_likely(row, draw.log_sum, self.wants.top_log_probs, top_log_probs);
            }
            updates.push(draw.update);
            if self.wants.log_probs {
                log_probs.push(draw.log_prob);
            }
            if self.wants.confidences {
                confidences.push(draw.confidence);
            }
        }
        Ok(())
    }

    /// Keeps the proposed tokens that the model is confident of, and moves the positions of the others behind them.
    fn reject_uncertain(&mut self) -> Result<()> {
        let missing = || Error::internal("a proposed token without a confidence");
        let StepBuffers { updates, confidences, accepted, .. } = &mut self.buffers;
        accepted.clear();
        for proposed in updates.chunk_by(|a, b| a.sequence == b.sequence) {
            let first = accepted.len();
            let confidences = confidences.get_mut(first..first + proposed.len()).ok_or_else(missing)?;
            let sequence = sequence_of(&mut self.sequences, proposed)?;
            match sequence.rules.adaptive {
                Some(adaptive) => {
                    adaptive.penalize(confidences, proposed.iter().map(|update| update.position));
                    adaptive.accept(confidences, accepted);
                }
                None => accepted.resize(first + proposed.len(), true),
            }
            sequence.move_accepted_first(accepted.get(first..).ok_or_else(missing)?);
        }
        self.keep_accepted();
        Ok(())
    }

    /// Removes the results of the tokens that are not accepted.
    fn keep_accepted(&mut self) {
        let StepBuffers { updates, log_probs, top_log_probs, accepted, .. } = &mut self.buffers;
        let (mut of_updates, mut of_log_probs) = (accepted.iter(), accepted.iter());
        updates.retain(|_| of_updates.next() == Some(&true));
        log_probs.retain(|_| of_log_probs.next() == Some(&true));
        let mut entry = 0..;
        let of_top = |i: usize| accepted.get(i / self.wants.top_log_probs.max(1)) == Some(&true);
        top_log_probs.retain(|_| entry.next().is_some_and(of_top));
    }

    /// Writes the step's tokens into the sequences, and finishes those whose text ends with them.
    fn commit(&mut self, model: &Model) -> Result<()> {
        let StepBuffers { updates, accepted, proposed_ahead, accepted_ahead, .. } = &mut self.buffers;
        accepted.clear();
        for written in updates.chunk_by(|a, b| a.sequence == b.sequence) {
            let sequence = sequence_of(&mut self.sequences, written)?;
            let tokenizer = sequence.rules.tokenizer(model)?;
            if let Some(pass) = sequence.ahead.pass {
                let kept = sequence.write_run(written, pass.accepted, model.config(), tokenizer)?;
                accepted.extend((0..written.len()).map(|index| index < kept));
                *proposed_ahead += pass.proposed;
                *accepted_ahead += pass.accepted.min(kept);
                continue;
            }
            // What a window has filled beyond the end of the text is no part of it.
            let length = sequence.text_length;
            accepted.extend(written.iter().map(|update| (update.position as usize) < length));
            for update in written {
                let token = sequence.tokens.get_mut(update.position as usize);
                *token.ok_or_else(|| Error::internal("a token beyond the text"))? = update.token;
                if let Some(grammar) = &mut sequence.rules.grammar {
                    grammar.write(update.token);
                }
            }
            match sequence.slides {
                true => sequence.slide_window(written.iter().map(|update| update.position), self.mask),
                false => sequence.advance(model.config(), written.len()),
            }
            sequence.advance_text(self.mask, tokenizer);
        }
        if accepted.contains(&false) {
            self.keep_accepted();
        }
        // Those whose prompts were fed had no pass.
        let wrote = self.sequences.iter_mut().filter(|sequence| sequence.joining == 0);
        wrote.for_each(|sequence| sequence.ahead.end_step());
        self.advance_prompts();
        self.steps_done += 1;
        self.count_steps(model.config());
        Ok(())
    }
}

/// The sequence that `updates`, all of one, are of.
fn sequence_of<'s>(sequences: &'s mut [Sequence], updates: &[Update]) -> Result<&'s mut Sequence> {
    let number = updates.first().map(|update| update.sequence as usize);
    let found = number.and_then(|number| sequences.get_mut(number));
    found.ok_or_else(|| Error::internal("a token without a sequence"))
}
