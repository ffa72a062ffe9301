//! One step: its rows go through the network, each row of logits becomes a token.

use crate::adaptive::Adaptive;
use crate::config::Config;
use crate::constraint::Editor;
use crate::context::{Context, Engine};
use crate::error::{Error, Result};
use crate::forward::Segment;
use crate::rng::Rng;
use crate::sampler::{Sampler, Sampling};
use crate::score::log_probability;
use crate::session::Session;

/// A token that a step wrote.
#[repr(C)] // The C boundary hands these out as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The sequence's number in the batch.
    pub sequence: u32,
    /// Where in the text.
    pub position: u32,
    /// What.
    pub token: u32,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The step's number, from 0.
    pub index: usize,
    /// Steps of the whole generation (at most, where they are [`Adaptive`]).
    pub total: usize,
    /// The tokens written: sequence by sequence, and in each in generation order.
    pub updates: &'a [Update],
    /// The logarithm (natural) of each token's probability under the model, if asked for: softmax of the network's
    /// logits without the mask token, before constraints, temperature, top-k and nucleus. Otherwise empty.
    pub log_probs: &'a [f64],
}

/// A row of logits about to become a token.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The sequence's number in the batch.
    pub sequence: usize,
    /// The place in generation order.
    pub slot: usize,
    /// The place in the text.
    pub position: u32,
    /// The network's own output for this position, one number per token of the vocabulary.
    pub logits: &'a [f32],
}

/// Everything that a choice may use.
struct Turn<'a> {
    choice: Choice<'a>,
    /// The sequence's tokens by position, as they were before the step.
    text: &'a [u32],
    editor: &'a mut Editor,
    sampler: &'a mut Sampler,
    sampling: &'a Sampling,
    rng: &'a mut Rng,
}

impl Turn<'_> {
    /// Draws a token under the constraints and what `edit` makes of them.
    fn draw<E>(self, edit: Option<&mut E>) -> Result<u32>
    where
        E: FnMut(&Choice<'_>, &mut [f32]) -> Result<()>,
    {
        let logits = self.editor.edit(&self.choice, self.text, edit)?;
        self.sampler.draw(logits, self.sampling, self.rng.uniform())
    }
}

impl Session {
    /// Puts the rows of the coming step that come after `from` (a sequence and a slot) into the pass, as many
    /// as fit. Returns where the next pass goes on, or nothing if all rows are in.
    fn fill_pass(
        &mut self,
        from: (usize, usize),
        config: &Config,
        most_rows: usize,
    ) -> Option<(usize, usize)> {
        let Self { sequences, pass, active, next, .. } = self;
        let variant = config.variant;
        pass.clear();
        let (first_sequence, mut slot) = from;
        for (number, sequence) in sequences.iter().enumerate().take(*active).skip(first_sequence) {
            let Some(count) = sequence.due(*next) else { continue };
            let slots = sequence.slots(variant, count);
            slot = slot.max(slots.start);
            let first_row = pass.tokens.len();
            // Rows that see later ones must go through the network together with them.
            let together = if variant.is_causal() { 1 } else { slots.len() };
            if slot < slots.end && first_row + together > most_rows {
                return Some((number, slot));
            }
            if slot < slots.end {
                let (rows, outputs) = (0, 0);
                pass.segments.push(Segment { sequence: number, first_row, rows, first_slot: slot, outputs });
            }
            while slot < slots.end {
                if pass.tokens.len() == most_rows {
                    return Some((number, slot));
                }
                pass.push(sequence.row(variant, slot, count, config));
                slot += 1;
            }
            slot = 0;
        }
        None
    }

    /// Runs the coming step. On an error nothing has happened, as far as later calls can tell.
    fn step(&mut self, engine: &mut Engine, mut choose: impl FnMut(Turn<'_>) -> Result<u32>) -> Result<()> {
        self.updates.clear();
        self.log_probs.clear();
        self.sureness.clear();
        let model = engine.model.clone();
        let config = model.config();
        let mut from = Some((0, 0));
        while let Some(start) = from {
            from = self.fill_pass(start, config, engine.capacity.rows);
            if self.pass.tokens.is_empty() {
                break;
            }
            let mut rows =
                engine.run(&self.pass)?.chunks_exact(config.vocab_size).zip(&self.pass.output_positions);
            for segment in &self.pass.segments {
                let Some(sequence) = self.sequences.get_mut(segment.sequence) else { continue };
                for slot in
                    segment.first_slot + segment.rows - segment.outputs..segment.first_slot + segment.rows
                {
                    let (logits, &position) =
                        rows.next().ok_or_else(|| Error::internal("a row of logits is missing"))?;
                    let position = position as u32;
                    let choice = Choice { sequence: segment.sequence, slot, position, logits };
                    let token = choose(Turn {
                        choice,
                        text: &sequence.tokens,
                        editor: &mut self.editor,
                        sampler: &mut self.sampler,
                        sampling: &self.sampling,
                        rng: &mut sequence.rng,
                    })?;
                    if self.wants_log_probs {
                        self.log_probs.push(log_probability(logits, token, self.mask)?);
                    }
                    if let Some(adaptive) = self.adaptive {
                        self.sureness.push(adaptive.sureness(logits, self.mask));
                    }
                    self.updates.push(Update { sequence: segment.sequence as u32, position, token });
                }
            }
        }
        if let Some(adaptive) = self.adaptive {
            self.put_back(&adaptive);
        }
        for update in &self.updates {
            if let Some(sequence) = self.sequences.get_mut(update.sequence as usize)
                && let Some(token) = sequence.tokens.get_mut(update.position as usize)
            {
                *token = update.token;
            }
        }
        for written in self.updates.chunk_by(|a, b| a.sequence == b.sequence) {
            let number = written.first().map_or(0, |update| update.sequence as usize);
            if let Some(sequence) = self.sequences.get_mut(number) {
                sequence.advance(config.variant, written.len());
            }
        }
        self.next += 1;
        self.count_steps();
        Ok(())
    }

    /// Keeps the tokens that the model is sure of, and puts the positions of the others back behind theirs.
    fn put_back(&mut self, adaptive: &Adaptive) {
        self.kept.clear();
        for proposed in self.updates.chunk_by(|a, b| a.sequence == b.sequence) {
            let first = self.kept.len();
            let sureness = self.sureness.get(first..first + proposed.len()).unwrap_or(&[]);
            adaptive.decide(sureness, &mut self.kept);
            let number = proposed.first().map_or(0, |update| update.sequence as usize);
            if let (Some(sequence), Some(kept)) = (self.sequences.get_mut(number), self.kept.get(first..)) {
                sequence.bring_forward(kept);
            }
        }
        let (mut of_updates, mut of_log_probs) = (self.kept.iter(), self.kept.iter());
        self.updates.retain(|_| of_updates.next() == Some(&true));
        self.log_probs.retain(|_| of_log_probs.next() == Some(&true));
    }
}

impl Context {
    /// Runs one step and says what it wrote; nothing when the generation is finished. Takes no memory. (ggml's
    /// kernels on the CPU, if they were asked for, take and return two small blocks at each pass.)
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::NotFinite`]; [`Error::Device`]. The state is as before the call.
    pub fn step(&mut self) -> Result<Option<Step<'_>>> {
        type NoEdit = fn(&Choice<'_>, &mut [f32]) -> Result<()>;
        self.step_with(|turn| turn.draw(None::<&mut NoEdit>))
    }

    /// As [`Context::step`], with `edit` changing the logits that each token is drawn from: it is called after the
    /// constraints were applied, before temperature, top-k and nucleus. Minus infinity rules a token out (the mask
    /// token always is); [`Choice::logits`] are the network's own.
    ///
    /// # Errors
    /// As [`Context::step`]; what `edit` returns; [`Error::InvalidArgument`] if it leaves NaN, infinity, or no token
    /// that can be drawn.
    pub fn step_editing(
        &mut self,
        mut edit: impl FnMut(&Choice<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<Option<Step<'_>>> {
        self.step_with(|turn| turn.draw(Some(&mut edit)))
    }

    /// As [`Context::step`], with every token chosen by `choose` from the network's own logits. Constraints do not
    /// bind it.
    ///
    /// # Errors
    /// As [`Context::step`]; what `choose` returns; [`Error::InvalidArgument`] if it chooses the mask or a token
    /// outside the vocabulary.
    pub fn step_choosing(
        &mut self,
        mut choose: impl FnMut(&mut Sampler, &Choice<'_>) -> Result<u32>,
    ) -> Result<Option<Step<'_>>> {
        let (vocab, mask) = (self.engine.model.config().vocab_size, self.session.mask);
        self.step_with(|turn| match choose(turn.sampler, &turn.choice)? {
            token if (token as usize) < vocab && token != mask => Ok(token),
            token => Err(Error::invalid(format!("token {token} cannot be chosen"))),
        })
    }

    fn step_with(&mut self, choose: impl FnMut(Turn<'_>) -> Result<u32>) -> Result<Option<Step<'_>>> {
        let Self { engine, session } = self;
        if session.next >= session.total {
            return Ok(None);
        }
        if engine.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // A failed step is as if it had not been: the random numbers go back, the cache's slots of the step are
        // written again by the next.
        for sequence in &mut session.sequences {
            sequence.rng_before = sequence.rng.clone();
        }
        if let Err(error) = session.step(engine, choose) {
            for sequence in &mut session.sequences {
                sequence.rng = sequence.rng_before.clone();
            }
            session.updates.clear();
            session.log_probs.clear();
            session.poisoned |= matches!(error, Error::NotFinite(_));
            return Err(error);
        }
        let (index, total) = (session.next - 1, session.total);
        let Session { updates, log_probs, .. } = session;
        Ok(Some(Step { index, total, updates, log_probs }))
    }
}
