//! One step: its rows go through the network, each row of logits becomes a token.

use std::time::Instant;

use crate::adaptive::Adaptive;
use crate::config::Config;
use crate::constraint::{Constraints, Edit, Editor};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::forward::Segment;
use crate::sampler::{Sampler, Sampling};
use crate::score::log_probability;
use crate::sequence::Sequence;
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
    /// The network's own output for this position, one number per token of the vocabulary. Minus infinity, which a
    /// model's output bias may hold, is a token that is never drawn; NaN and infinity end the step with
    /// [`Error::NotFinite`].
    pub logits: &'a [f32],
}

/// A row of logits that becomes a token, the random number that decides, and what came of it.
#[derive(Debug)]
pub(crate) struct Draw {
    row: usize,
    slot: usize,
    uniform: f64,
    update: Update,
    log_prob: f64,
    sureness: f32,
    error: Option<Error>,
}

/// What a thread chooses tokens with.
#[derive(Debug)]
pub(crate) struct Chooser {
    editor: Editor,
    sampler: Sampler,
}

impl Chooser {
    pub(crate) fn new(config: &Config) -> Self {
        let sampler = Sampler::new(config.vocab_size, config.mask_token_id);
        Self { editor: Editor::new(config), sampler }
    }
}

/// How the caller takes part in choosing tokens. All but `Draw` call it row by row, on its own thread.
enum Choose<'a> {
    /// Not at all.
    Draw,
    /// By changing the logits that are drawn from.
    Edit(Edit<'a>),
    /// By naming the token.
    Name(&'a mut dyn FnMut(&mut Sampler, &Choice<'_>) -> Result<u32>),
}

/// What all choices of a pass have in common.
struct Choosing<'a> {
    vocab: usize,
    mask: u32,
    /// Their tokens are those from before the step.
    sequences: &'a [Sequence],
    constraints: &'a [Constraints],
    sampling: &'a Sampling,
    wants_log_probs: bool,
    adaptive: Option<Adaptive>,
}

impl Choosing<'_> {
    /// Makes a token of a row of `logits`, which hold all rows of the pass.
    fn choose(
        &self,
        logits: &[f32],
        chooser: &mut Chooser,
        draw: &mut Draw,
        choose: &mut Choose<'_>,
    ) -> Result<()> {
        let missing = || Error::internal("a row of logits is missing");
        let logits = logits.chunks_exact(self.vocab).nth(draw.row).ok_or_else(missing)?;
        let Update { sequence, position, .. } = draw.update;
        let sequence = sequence as usize;
        let choice = Choice { sequence, slot: draw.slot, position, logits };
        let Chooser { editor, sampler } = chooser;
        let edit = match choose {
            Choose::Draw => None,
            Choose::Edit(edit) => Some(&mut **edit as Edit<'_>),
            Choose::Name(name) => {
                draw.update.token = name(sampler, &choice)?;
                return self.report(logits, draw);
            }
        };
        let text = self.sequences.get(sequence).map_or(&[][..], |s| &s.tokens);
        let edited = editor.edit(self.constraints.get(sequence), &choice, text, edit)?;
        draw.update.token = sampler.draw(edited, self.sampling, draw.uniform)?;
        self.report(logits, draw)
    }

    /// What is to be known of the token that was chosen.
    fn report(&self, logits: &[f32], draw: &mut Draw) -> Result<()> {
        if self.wants_log_probs {
            draw.log_prob = log_probability(logits, draw.update.token, self.mask)?;
        }
        if let Some(adaptive) = self.adaptive {
            draw.sureness = adaptive.sureness(logits, self.mask);
        }
        Ok(())
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

    /// Lists the rows of the pass that become tokens, with a random number of their sequence's each.
    fn list_draws(&mut self) {
        let Self { sequences, pass, draws, .. } = self;
        draws.clear();
        let mut positions = pass.output_positions.iter();
        for segment in &pass.segments {
            let Some(sequence) = sequences.get_mut(segment.sequence) else { continue };
            let end = segment.first_slot + segment.rows;
            for (slot, &position) in (end - segment.outputs..end).zip(&mut positions) {
                let update =
                    Update { sequence: segment.sequence as u32, position: position as u32, token: 0 };
                let (row, uniform) = (draws.len(), sequence.rng.uniform());
                draws.push(Draw { row, slot, uniform, update, log_prob: 0.0, sureness: 0.0, error: None });
            }
        }
    }

    /// Runs the coming step. On an error nothing has happened, as far as later calls can tell.
    fn step(&mut self, engine: &mut Engine, mut choose: Choose<'_>) -> Result<()> {
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
            let mut output = engine.run(&self.pass)?;
            let drawing = Instant::now();
            self.list_draws();
            let choosing = Choosing {
                vocab: config.vocab_size,
                mask: self.mask,
                sequences: &self.sequences,
                constraints: &self.constraints,
                sampling: &self.sampling,
                wants_log_probs: self.wants_log_probs,
                adaptive: self.adaptive,
            };
            match (&mut choose, self.choosers.first_mut()) {
                (Choose::Draw, _) => {
                    output.for_each(&mut self.choosers, &mut self.draws, |logits, chooser, draw| {
                        draw.error = choosing.choose(logits, chooser, draw, &mut Choose::Draw).err();
                    })?;
                }
                (choose, Some(chooser)) => {
                    for draw in &mut self.draws {
                        choosing.choose(output.logits, chooser, draw, choose)?;
                    }
                }
                _ => return Err(Error::internal("no thread to choose with")),
            }
            for draw in self.draws.drain(..) {
                if let Some(error) = draw.error {
                    return Err(error);
                }
                self.updates.push(draw.update);
                if self.wants_log_probs {
                    self.log_probs.push(draw.log_prob);
                }
                if self.adaptive.is_some() {
                    self.sureness.push(draw.sureness);
                }
            }
            self.sampling_time += drawing.elapsed();
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
        self.step_with(Choose::Draw)
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
        self.step_with(Choose::Edit(&mut edit))
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
        self.step_with(Choose::Name(&mut |sampler, choice| match choose(sampler, choice)? {
            token if (token as usize) < vocab && token != mask => Ok(token),
            token => Err(Error::invalid(format!("token {token} cannot be chosen"))),
        }))
    }

    fn step_with(&mut self, choose: Choose<'_>) -> Result<Option<Step<'_>>> {
        let Self { engine, session } = self;
        if session.next >= session.total {
            return Ok(None);
        }
        if engine.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let started = Instant::now();
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
        session.step_time += started.elapsed();
        let (index, total) = (session.next - 1, session.total);
        let Session { updates, log_probs, .. } = session;
        Ok(Some(Step { index, total, updates, log_probs }))
    }
}
