//! One generation: what is known, what comes next, and how far the cache is final.

use std::ops::ControlFlow;

use crate::config::{Config, Variant};
use crate::context::{Context, Engine};
use crate::error::{Error, Result};
use crate::forward::{Pass, Segment};
use crate::kv_cache::Capacity;
use crate::request::{GenerateParams, Plan, Prompt};
use crate::rng::{Purpose, Rng};
use crate::sampler::{Sampler, Sampling};
use crate::sequence::Sequence;
use crate::{order, schedule};

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
    /// Steps of the whole generation.
    pub total: usize,
    /// The tokens written, sequence by sequence.
    pub updates: &'a [Update],
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
    /// The network's output for this position, one number per token of the vocabulary.
    pub logits: &'a [f32],
}

/// A row of logits that becomes a token, and the random number that decides.
#[derive(Debug)]
struct Draw {
    row: usize,
    slot: usize,
    uniform: f64,
    update: Update,
    error: Option<Error>,
}

/// What a caller may choose tokens with.
type Choose<'a> = &'a mut dyn FnMut(&mut Sampler, &Choice<'_>) -> Result<u32>;

/// The state of a generation. All of its memory is reserved when the context is made.
#[derive(Debug)]
pub(crate) struct Session {
    sequences: Vec<Sequence>,
    /// Sequences in use, steps done, and steps in all.
    active: usize,
    next: usize,
    total: usize,
    sampling: Sampling,
    updates: Vec<Update>,
    pub(crate) pass: Pass,
    /// One per thread.
    samplers: Vec<Sampler>,
    /// The rows of a pass that become tokens.
    draws: Vec<Draw>,
    mask: u32,
    /// Whether the cache may hold numbers that are not finite.
    poisoned: bool,
}

impl Session {
    pub(crate) fn new(config: &Config, capacity: &Capacity, length: usize, threads: usize) -> Self {
        let sampler = |_| Sampler::new(config.vocab_size, config.mask_token_id);
        Self {
            sequences: (0..capacity.sequences)
                .map(|number| Sequence::with_capacity(length, number))
                .collect(),
            active: 0,
            next: 0,
            total: 0,
            sampling: Sampling::default(),
            updates: Vec::with_capacity(capacity.sequences * length),
            pass: Pass::with_capacity(capacity.rows, capacity.sequences.min(capacity.rows)),
            samplers: (0..threads).map(sampler).collect(),
            draws: Vec::with_capacity(capacity.rows),
            mask: config.mask_token_id,
            poisoned: false,
        }
    }

    fn active(&self) -> &[Sequence] {
        self.sequences.get(..self.active).unwrap_or(&[])
    }

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
            let Some(&count) = sequence.counts.get(*next) else { continue };
            let count = count as usize;
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

    /// Lists the rows of the pass that become tokens, with a random number of their sequences' each.
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
                let uniform = sequence.rng.uniform();
                draws.push(Draw { row: draws.len(), slot, uniform, update, error: None });
            }
        }
    }

    /// Runs the coming step. On an error nothing has happened, as far as later calls can tell.
    fn step(&mut self, engine: &mut Engine, mut choose: Option<Choose<'_>>) -> Result<()> {
        self.updates.clear();
        let model = engine.model.clone();
        let config = model.config();
        let mut from = Some((0, 0));
        while let Some(start) = from {
            from = self.fill_pass(start, config, engine.capacity.rows);
            if self.pass.tokens.is_empty() {
                break;
            }
            let mut output = engine.run(&self.pass)?;
            self.list_draws();
            let Self { draws, samplers, sampling, .. } = self;
            match (&mut choose, samplers.first_mut()) {
                (Some(choose), Some(sampler)) => {
                    let logits = output.logits.chunks_exact(config.vocab_size);
                    for (Draw { slot, update, .. }, logits) in draws.iter_mut().zip(logits) {
                        let sequence = update.sequence as usize;
                        let choice = Choice { sequence, slot: *slot, position: update.position, logits };
                        update.token = choose(sampler, &choice)?;
                    }
                }
                _ => output.for_each(samplers, draws, |logits, sampler, draw| {
                    let logits = logits.chunks_exact(config.vocab_size).nth(draw.row).unwrap_or(&[]);
                    match sampler.draw(logits, sampling, draw.uniform) {
                        Ok(token) => draw.update.token = token,
                        Err(error) => draw.error = Some(error),
                    }
                })?,
            }
            for draw in draws.drain(..) {
                match draw.error {
                    None => self.updates.push(draw.update),
                    Some(error) => return Err(error),
                }
            }
        }
        for update in &self.updates {
            if let Some(sequence) = self.sequences.get_mut(update.sequence as usize)
                && let Some(token) = sequence.tokens.get_mut(update.position as usize)
            {
                *token = update.token;
            }
        }
        for sequence in self.sequences.iter_mut().take(self.active) {
            if let Some(&count) = sequence.counts.get(self.next) {
                sequence.advance(config.variant, count as usize);
            }
        }
        self.next += 1;
        Ok(())
    }
}

impl Context {
    /// Begins a generation of one sequence per prompt, in place of the last one. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too many prompts, a parameter is out of range, or a prompt's
    /// position or token is; the last generation is then still there.
    pub fn begin(&mut self, prompts: &[Prompt], params: &GenerateParams) -> Result<()> {
        let length = if params.length == 0 { self.engine.length } else { params.length };
        self.check_begin(prompts.len(), length)?;
        params.validate()?;
        let mask = self.session.mask;
        let variant = self.engine.model.config().variant;
        // Check everything before anything changes. The spare memory of `updates` marks positions taken.
        for (number, prompt) in prompts.iter().enumerate() {
            let marks = &mut self.session.updates;
            marks.clear();
            marks.resize(length, Update { sequence: 0, position: 0, token: 0 });
            for &(position, token) in &prompt.known {
                let bad = |what: &str| {
                    Err(Error::invalid(format!("prompt {number}: token {token} at {position}: {what}")))
                };
                if token as usize >= self.engine.model.config().vocab_size || token == mask {
                    return bad("no such token");
                }
                match marks.get_mut(position as usize) {
                    None => return bad("beyond the length"),
                    Some(mark) if mark.sequence != 0 => return bad("the position is given twice"),
                    Some(mark) => mark.sequence = 1,
                }
            }
            let known = prompt.known.len();
            if variant == Variant::Ar && marks.iter().take(known).any(|mark| mark.sequence == 0) {
                return Err(Error::invalid(format!(
                    "prompt {number}: an autoregressive model takes a prefix only"
                )));
            }
        }
        let alpha_0 = match variant {
            Variant::EsoA | Variant::EsoB => params.alpha_0,
            Variant::Mdlm => 1.0,
            Variant::Ar => 0.0,
        };
        self.start(prompts.len(), params.sampling);
        for (number, (sequence, prompt)) in self.session.sequences.iter_mut().zip(prompts).enumerate() {
            sequence.reset(length, mask, prompt.known.iter().copied());
            sequence.rng = Rng::new(params.seed, number, Purpose::Token);
            let Sequence { order, tokens, counts, .. } = sequence;
            order.clear();
            let known = |tokens: &[u32], p: u32| tokens.get(p as usize).is_some_and(|&t| t != mask);
            order.extend((0..length as u32).filter(|&p| known(tokens, p)));
            order.extend((0..length as u32).filter(|&p| !known(tokens, p)));
            let n_known = prompt.known.len();
            let mut rng = Rng::new(params.seed, number, Purpose::Schedule);
            let diffusion = schedule::draw(alpha_0, params.steps, length - n_known, &mut rng, counts);
            sequence.diffused = n_known + diffusion;
            if let Some(tail) = order.get_mut(n_known..) {
                order::random(tail, diffusion, &mut Rng::new(params.seed, number, Purpose::Order));
            }
        }
        self.session.count_steps();
        Ok(())
    }

    /// Begins a generation whose orders and schedules are given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if an order is no permutation, a schedule does not add up, or a token is
    /// outside the vocabulary.
    pub fn begin_planned(&mut self, plans: &[Plan], sampling: Sampling, seed: u64) -> Result<()> {
        sampling.validate()?;
        for plan in plans {
            self.check_begin(plans.len(), plan.order.len())?;
            plan.validate(self.engine.model.config())?;
        }
        self.start(plans.len(), sampling);
        let mask = self.session.mask;
        for (number, (sequence, plan)) in self.session.sequences.iter_mut().zip(plans).enumerate() {
            let known = plan.order.iter().copied().zip(plan.known.iter().copied());
            sequence.reset(plan.order.len(), mask, known);
            sequence.rng = Rng::new(seed, number, Purpose::Token);
            sequence.diffused = plan.known.len() + plan.diffusion;
            sequence.order.clone_from(&plan.order);
            sequence.counts.clone_from(&plan.counts);
        }
        self.session.count_steps();
        Ok(())
    }

    /// Ends the generation, whose cache is about to be overwritten.
    pub(crate) fn forget_generation(&mut self) {
        self.session.active = 0;
        self.session.total = 0;
    }

    fn check_begin(&self, sequences: usize, length: usize) -> Result<()> {
        let most = self.engine.capacity.sequences;
        if sequences == 0 || sequences > most {
            return Err(Error::invalid(format!("{sequences} sequences; the context holds 1 to {most}")));
        }
        if length == 0 || length > self.engine.length {
            let longest = self.engine.length;
            return Err(Error::invalid(format!("length {length}; the context holds 1 to {longest} tokens")));
        }
        Ok(())
    }

    fn start(&mut self, sequences: usize, sampling: Sampling) {
        if std::mem::take(&mut self.session.poisoned) {
            self.engine.clear();
        }
        self.engine.cancel.reset();
        self.session.active = sequences;
        self.session.next = 0;
        self.session.sampling = sampling;
        self.session.updates.clear();
    }

    /// Runs one step and says what it wrote; nothing when the generation is finished. Takes no memory. (ggml's
    /// kernels on the CPU, if they were asked for, take and return two small blocks at each pass.)
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::NotFinite`]; [`Error::Device`]. The state is as before the call.
    pub fn step(&mut self) -> Result<Option<Step<'_>>> {
        self.step_with(None)
    }

    /// As [`Context::step`], with every token chosen by `choose` from its logits.
    ///
    /// # Errors
    /// As [`Context::step`]; what `choose` returns; [`Error::InvalidArgument`] if it chooses the mask or a token
    /// outside the vocabulary.
    pub fn step_choosing(
        &mut self,
        mut choose: impl FnMut(&mut Sampler, &Choice<'_>) -> Result<u32>,
    ) -> Result<Option<Step<'_>>> {
        let (vocab, mask) = (self.engine.model.config().vocab_size, self.session.mask);
        self.step_with(Some(&mut |sampler, choice| match choose(sampler, choice)? {
            token if (token as usize) < vocab && token != mask => Ok(token),
            token => Err(Error::invalid(format!("token {token} cannot be chosen"))),
        }))
    }

    fn step_with(&mut self, choose: Option<Choose<'_>>) -> Result<Option<Step<'_>>> {
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
            session.poisoned |= matches!(error, Error::NotFinite(_));
            return Err(error);
        }
        let (index, total) = (session.next - 1, session.total);
        Ok(Some(Step { index, total, updates: &session.updates }))
    }

    /// Generates to the end. `on_step` sees every step and may stop it.
    ///
    /// # Errors
    /// As [`Context::begin`] and [`Context::step`]; [`Error::Cancelled`] if `on_step` breaks.
    pub fn generate(
        &mut self,
        prompts: &[Prompt],
        params: &GenerateParams,
        on_step: impl FnMut(&Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.begin(prompts, params)?;
        self.finish(on_step)
    }

    /// Runs the steps that are left of a generation that was begun.
    ///
    /// # Errors
    /// As [`Context::step`]; [`Error::Cancelled`] if `on_step` breaks.
    pub fn finish(&mut self, mut on_step: impl FnMut(&Step<'_>) -> ControlFlow<()>) -> Result<()> {
        while let Some(step) = self.step()? {
            if on_step(&step).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Sequences of the current generation.
    pub fn sequences(&self) -> usize {
        self.session.active
    }

    /// Steps done and steps in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.session.next, self.session.total)
    }

    /// The tokens of a sequence by position, the mask token where unknown.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such sequence.
    pub fn tokens(&self, sequence: usize) -> Result<&[u32]> {
        let tokens = self.session.active().get(sequence).map(|s| s.tokens.as_slice());
        tokens.ok_or_else(|| Error::invalid(format!("there is no sequence {sequence}")))
    }

    /// The text of a sequence's finished beginning: up to the first unknown or end-of-text token. Whole UTF-8
    /// characters; it only ever grows during a generation.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such sequence; [`Error::Tokenizer`].
    pub fn text(&self, sequence: usize) -> Result<String> {
        self.engine.model.tokenizer()?.decode_prefix(self.tokens(sequence)?)
    }
}

impl Session {
    fn count_steps(&mut self) {
        self.total = self.active().iter().map(|s| s.counts.len()).max().unwrap_or(0);
    }
}
