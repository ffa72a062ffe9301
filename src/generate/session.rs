//! One generation: what is known, what comes next, and how far the cache is final.

use std::ops::ControlFlow;

use super::clock::StepClock;
use super::draw::{Draw, DrawState, TokenChoice};
use super::finished::TextEnd;
use super::overhead;
use super::rules::{Beginning, StepWants};
use super::sequence::Sequence;
use super::stop::StopReason;
use super::update::{Step, Update};
use crate::error::{Error, Result};
use crate::forward::{Batch, ModelRunner, Profile};
use crate::ggml::DrawRow;
use crate::memory::with_room;
use crate::model::Config;
use crate::sample::{Grammars, TokenLogProb};

/// The state of a generation. Its memory is reserved when the context is made, but for what a request alone wants: constraints, stop
/// rules, new text, the most likely tokens, proposals.
#[derive(Debug)]
pub(crate) struct Session {
    /// As many as the context holds; those in use have a text.
    pub(super) sequences: Vec<Sequence>,
    pub(super) steps_done: usize,
    /// Steps in all (at most, where they are adaptive).
    pub(super) steps_total: usize,
    pub(super) wants: StepWants,
    pub(super) buffers: StepBuffers,
    pub(super) clock: StepClock,
    /// Why the last step did not end, if it did not; and the sequence that it failed for, if it was one.
    interrupted: Option<StopReason>,
    pub(super) failed: Option<usize>,
    /// Whether the texts of the last step are not the caller's yet, as there was no room for all.
    pub(super) texts_kept: bool,
    pub(super) grammars: Grammars,
    /// Whether the cache may hold numbers that are not finite.
    pub(super) cache_not_finite: bool,
    pub(super) mask: u32,
    /// The known tokens of a prompt by position, while it is checked.
    pub(super) known: Vec<u32>,
    /// Rows of a strided order, while it is made.
    pub(super) rows: Vec<u32>,
    /// The sequences that are about to begin.
    pub(super) beginnings: Vec<Beginning>,
    /// How many sequences have come, and have left.
    pub(super) arrivals: u64,
    pub(super) departures: u64,
    /// The last arrival for which a sequence was sought that reads its prompt.
    pub(super) lenders_found: u64,
    /// Whether keys and values are copied where they lie, without memory of its own.
    pub(super) copies_in_place: bool,
    /// The last arrival of those that began together.
    pub(super) together: u64,
    /// Most rows of prompts in a step while nothing is written; of BD3-LM whole blocks.
    pub(super) most_prompt_rows: usize,
    /// What a pass is taken to cost beside its rows, in rows.
    pub(super) pass_overhead: f64,
}

/// The memory that a step works in.
#[derive(Debug)]
pub(super) struct StepBuffers {
    pub(super) batch: Batch,
    /// The rows of a batch that become tokens.
    pub(super) draws: Vec<Draw>,
    /// One per thread.
    pub(super) draw_states: Vec<DrawState>,
    /// How a device draws tokens, and those that it drew.
    pub(super) draw_rows: Vec<DrawRow>,
    pub(super) drawn: Vec<i32>,
    /// A bit for each token that a sequence must not have.
    pub(super) banned: Vec<u32>,
    /// What the last step wrote, its log-probabilities, and the most likely tokens at each position, if they are wanted.
    pub(super) updates: Vec<Update>,
    pub(super) log_probs: Vec<f64>,
    pub(super) top_log_probs: Vec<TokenLogProb>,
    /// The model's confidence in each proposed token of an adaptive step, and whether the token was accepted.
    pub(super) confidences: Vec<f32>,
    pub(super) accepted: Vec<bool>,
    /// How many tokens the last step's lookahead proposed, and how many of them stayed.
    pub(super) proposed_ahead: usize,
    pub(super) accepted_ahead: usize,
}

impl StepBuffers {
    /// Removes the results of the last step.
    pub(super) fn clear(&mut self) {
        self.updates.clear();
        self.log_probs.clear();
        self.top_log_probs.clear();
        self.confidences.clear();
        (self.proposed_ahead, self.accepted_ahead) = (0, 0);
    }
}

impl Session {
    /// A session for `runner`, with nothing to do.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(runner: &ModelRunner) -> Result<Self> {
        let (config, capacity, length) = (runner.model.config(), &runner.capacity, runner.length);
        let tokens = capacity.sequences.saturating_mul(length);
        let block = config.block_length.max(1);
        let rows = runner.prompt_rows.max(capacity.rows).max(block);
        let (mut sequences, mut draw_states) = (with_room(capacity.sequences)?, with_room(runner.threads())?);
        for number in 0..capacity.sequences {
            sequences.push(Sequence::with_capacity(length, number, config.block_length)?);
        }
        for _ in 0..runner.threads() {
            draw_states.push(DrawState::new(config, length)?);
        }
        Ok(Self {
            sequences,
            steps_done: 0,
            steps_total: 0,
            wants: StepWants::default(),
            buffers: StepBuffers {
                batch: Batch::with_capacity(
                    capacity.rows,
                    1 + capacity.sequences.saturating_mul(2).min(capacity.rows),
                )?,
                draws: with_room(capacity.rows)?,
                draw_states,
                draw_rows: with_room(capacity.rows)?,
                banned: with_room(config.vocab_size.div_ceil(u32::BITS as usize))?,
                drawn: with_room(capacity.rows)?,
                updates: with_room(tokens)?,
                log_probs: with_room(tokens)?,
                top_log_probs: Vec::new(),
                confidences: with_room(tokens)?,
                accepted: with_room(tokens)?,
                proposed_ahead: 0,
                accepted_ahead: 0,
            },
            clock: StepClock::default(),
            interrupted: None,
            failed: None,
            texts_kept: false,
            grammars: Grammars::default(),
            cache_not_finite: false,
            mask: config.mask_token_id,
            known: with_room(length)?,
            rows: with_room(length)?,
            beginnings: with_room(capacity.sequences)?,
            arrivals: 0,
            departures: 0,
            lenders_found: 0,
            copies_in_place: runner.copies_in_place(),
            together: 0,
            most_prompt_rows: rows - rows % block,
            pass_overhead: overhead::usual(&runner.model),
        })
    }

    /// The sequences up to the last one in use.
    pub(super) fn active(&self) -> &[Sequence] {
        let count = self.sequences.iter().rposition(|sequence| sequence.in_use).map_or(0, |last| last + 1);
        self.sequences.get(..count).unwrap_or_default()
    }

    /// Ends the generation. Memory stays.
    pub(crate) fn reset(&mut self) {
        self.leave_all();
        // The caller may be about to use the cache.
        self.sequences.iter_mut().for_each(|sequence| sequence.committed = 0);
        self.steps_total = 0;
    }

    /// Ends all sequences.
    pub(super) fn leave_all(&mut self) {
        for sequence in &mut self.sequences {
            sequence.leave();
            sequence.left_at = 0;
        }
        self.steps_done = 0;
        self.clock = StepClock::default();
        self.forget_step();
    }

    /// Forgets what the last step did.
    pub(super) fn forget_step(&mut self) {
        self.interrupted = None;
        self.failed = None;
        self.buffers.clear();
    }

    /// Runs the steps that are left; `on_step` sees each and may stop.
    ///
    /// # Errors
    /// As [`Session::step`]; [`Error::Cancelled`] if `on_step` breaks.
    pub(crate) fn finish(
        &mut self,
        runner: &mut ModelRunner,
        mut on_step: impl FnMut(&Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        while let Some(step) = self.step(runner, TokenChoice::Sample)? {
            if on_step(&step).is_break() {
                self.interrupt(Some(StopReason::Cancelled));
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Notes why the last step did not end, which holds for all sequences; `None` if it did.
    pub(crate) fn interrupt(&mut self, reason: Option<StopReason>) {
        (self.interrupted, self.failed) = (reason, None);
    }

    /// Notes an error by which the last step did not end, which holds for the sequence that it failed for, if it was one.
    pub(super) fn fail(&mut self, error: &Error) {
        let cancelled = matches!(error, Error::Cancelled);
        self.interrupted = Some(if cancelled { StopReason::Cancelled } else { StopReason::Error });
    }

    /// Notes what came of a run of the network: it may have left numbers in the cache that are not finite.
    pub(crate) fn note_run<T>(&mut self, done: &Result<T>) {
        self.cache_not_finite |= matches!(done, Err(Error::NotFinite(_)));
    }

    /// The number behind that of the last sequence in use.
    pub(crate) fn sequences(&self) -> usize {
        self.active().len()
    }

    /// Steps done and steps in all.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.steps_done, self.steps_total)
    }

    /// Where the time of the steps went; nothing for ggml's kernels.
    pub(crate) fn profile(&self, runner: &ModelRunner) -> Option<Profile> {
        Some(self.clock.profile(runner.profile()?))
    }

    /// The tokens of a sequence by position, the mask token where unknown.
    pub(crate) fn tokens(&self, sequence: usize) -> Result<&[u32]> {
        let sequence = self.sequence(sequence)?;
        Ok(sequence.tokens.get(..sequence.text_length).unwrap_or_default())
    }

    /// Which part of a sequence's tokens is its text.
    pub(crate) fn text_end(&self, sequence: usize) -> Result<TextEnd> {
        Ok(self.sequence(sequence)?.text_end())
    }

    /// Why a sequence's text ended; `None` while there are steps left to write it.
    pub(crate) fn stop_reason(&self, sequence: usize) -> Result<Option<StopReason>> {
        let of_this = self.failed.is_none_or(|failed| failed == sequence);
        Ok(self.sequence(sequence)?.stop_reason().or(self.interrupted.filter(|_| of_this)))
    }

    /// The positions of a sequence in generation order.
    pub(crate) fn order(&self, sequence: usize) -> Result<&[u32]> {
        let sequence = self.sequence(sequence)?;
        // What a window that slides fills next is not known before, and may lie beyond the text.
        let places = if sequence.slides { sequence.revealed } else { sequence.order.len() };
        Ok(sequence.order.get(..places).unwrap_or_default())
    }

    /// How many tokens of a sequence have final keys and values in the cache.
    pub(crate) fn cached_tokens(&self, sequence: usize) -> Result<usize> {
        Ok(self.sequence(sequence)?.committed)
    }

    /// Whether there is a sequence with this number.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.sequences.get(number).is_some_and(|sequence| sequence.in_use)
    }

    pub(super) fn sequence(&self, number: usize) -> Result<&Sequence> {
        let found = self.sequences.get(number).filter(|sequence| sequence.in_use);
        found.ok_or_else(|| Error::invalid(format!("there is no sequence {number}")))
    }

    /// Works out how many steps there are in all, and what they report.
    pub(super) fn count_steps(&mut self, config: &Config) {
        self.find_lenders(config);
        let writing = self.sequences.iter().map(Sequence::steps_left).max().unwrap_or(0);
        self.steps_total = self.steps_done + self.reading_steps(config) + writing;
        self.wants = self.sequences.iter().filter(|sequence| sequence.in_use).fold(
            StepWants::default(),
            |wants, Sequence { rules, .. }| StepWants {
                log_probs: wants.log_probs || rules.wants_log_probs,
                top_log_probs: wants.top_log_probs.max(rules.top_log_probs),
                confidences: wants.confidences || rules.adaptive.is_some(),
            },
        );
    }
}
