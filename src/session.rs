//! One generation: what is known, what comes next, and how far the cache is final.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::adaptive::Adaptive;
use crate::config::{Config, Variant};
use crate::constraint::Constraints;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::Pass;
use crate::kv_cache::Capacity;
use crate::order::Order;
use crate::plan::{Plan, arrange};
use crate::profile::Profile;
use crate::request::{GenerateParams, Prompt};
use crate::rng::{Purpose, Rng};
use crate::sampler::Sampling;
use crate::sequence::Sequence;
use crate::step::{Chooser, Draw, Step, Update};

/// The state of a generation. All of its memory is reserved when the context is made.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) sequences: Vec<Sequence>,
    /// Sequences in use, steps done, and steps in all.
    pub(crate) active: usize,
    pub(crate) next: usize,
    pub(crate) total: usize,
    pub(crate) sampling: Sampling,
    /// What the last step wrote, and the log-probabilities of it if they are wanted.
    pub(crate) updates: Vec<Update>,
    pub(crate) log_probs: Vec<f64>,
    pub(crate) wants_log_probs: bool,
    /// Which of its tokens a step keeps, how sure the model is of each, and which those are.
    pub(crate) adaptive: Option<Adaptive>,
    pub(crate) sureness: Vec<f32>,
    pub(crate) kept: Vec<bool>,
    pub(crate) pass: Pass,
    /// The rules of each sequence; beyond their end is none.
    pub(crate) constraints: Vec<Constraints>,
    /// One per thread.
    pub(crate) choosers: Vec<Chooser>,
    /// The rows of a pass that become tokens.
    pub(crate) draws: Vec<Draw>,
    pub(crate) mask: u32,
    /// Time of the generation's steps, and of drawing tokens in them.
    pub(crate) step_time: Duration,
    pub(crate) sampling_time: Duration,
    /// Whether the cache may hold numbers that are not finite.
    pub(crate) poisoned: bool,
}

impl Session {
    pub(crate) fn new(config: &Config, capacity: &Capacity, length: usize, threads: usize) -> Self {
        Self {
            sequences: (0..capacity.sequences)
                .map(|number| Sequence::with_capacity(length, number))
                .collect(),
            active: 0,
            next: 0,
            total: 0,
            sampling: Sampling::default(),
            updates: Vec::with_capacity(capacity.sequences * length),
            log_probs: Vec::with_capacity(capacity.sequences * length),
            wants_log_probs: false,
            adaptive: None,
            sureness: Vec::with_capacity(capacity.sequences * length),
            kept: Vec::with_capacity(capacity.sequences * length),
            pass: Pass::with_capacity(capacity.rows, capacity.sequences.min(capacity.rows)),
            constraints: Vec::new(),
            choosers: (0..threads).map(|_| Chooser::new(config)).collect(),
            draws: Vec::with_capacity(capacity.rows),
            mask: config.mask_token_id,
            step_time: Duration::ZERO,
            sampling_time: Duration::ZERO,
            poisoned: false,
        }
    }

    pub(crate) fn active(&self) -> &[Sequence] {
        self.sequences.get(..self.active).unwrap_or(&[])
    }
}

impl Context {
    /// Begins a generation of one sequence per prompt, in place of the last one. Allocates nothing, unless there are
    /// constraints or an order is given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too many prompts, a parameter is out of range or cannot be met by this
    /// kind of model, a prompt's position or token is out of range, or a constraint cannot be kept;
    /// [`Error::Cancelled`]; the last generation is then still there.
    pub fn begin(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>) -> Result<()> {
        self.prepare(prompts, params, false)
    }

    /// Goes on from the tokens that are known, with their keys and values, in place of the steps that are left: a
    /// finished generation becomes the beginning of a longer text. There is a prompt for each sequence, of further
    /// known tokens (none is an empty prompt). The random numbers begin anew, so `params` should have another seed.
    ///
    /// # Errors
    /// As [`Context::begin`], also if the text would be shorter than it is; [`Error::Unsupported`] if the model's
    /// cache does not outlast a step: Eso-LM (A) and MDLM.
    pub fn extend(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>) -> Result<()> {
        let variant = self.engine.model.config().variant;
        if !variant.is_causal() {
            let name = variant.name();
            return Err(Error::Unsupported(format!(
                "variant '{name}': its cache is of no use for a longer text"
            )));
        }
        if prompts.len() != self.session.active {
            let (given, active) = (prompts.len(), self.session.active);
            return Err(Error::invalid(format!("{given} prompts to go on with {active} sequences")));
        }
        self.prepare(prompts, params, true)
    }

    /// Begins, or goes on from what is there.
    fn prepare(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>, goes_on: bool) -> Result<()> {
        let length = if params.length == 0 { self.engine.length } else { params.length };
        self.check_begin(prompts.len(), length)?;
        let model = self.engine.model.clone();
        let config = model.config();
        params.validate(config, length, prompts.len())?;
        // Check everything before anything changes.
        let mask = self.session.mask;
        let is_known = |mark: &&Update| mark.token != mask;
        for (number, prompt) in prompts.iter().enumerate() {
            self.check_prompt(number, prompt, length, goes_on)?;
            if let Some(constraints) = params.constraints_of(number) {
                let marks = &self.session.updates;
                let known = |position: u32| marks.get(position as usize).filter(is_known).map(|m| m.token);
                constraints
                    .validate(config, length, known)
                    .map_err(|e| Error::invalid(format!("sequence {number}: {e}")))?;
            }
        }
        self.start(prompts.len(), params.sampling);
        self.session.wants_log_probs = params.log_probs;
        self.session.adaptive = params.adaptive;
        let alpha_0 = params.diffused_share(config.variant);
        for (number, (sequence, prompt)) in self.session.sequences.iter_mut().zip(prompts).enumerate() {
            if !goes_on {
                sequence.forget();
            }
            sequence.learn(length, mask, prompt.known.iter().copied());
            sequence.rng = Rng::new(params.seed, number, Purpose::Token);
            sequence.window = params.adaptive.map_or(0, |adaptive| adaptive.window);
            let Sequence { order, tokens, counts, revealed, .. } = sequence;
            let unknown = |p: &u32| tokens.get(*p as usize) == Some(&mask);
            match params.order {
                Order::Given(given) => order.extend(given.iter().copied().filter(unknown)),
                _ => order.extend((0..length as u32).filter(unknown)),
            }
            let tail = order.get_mut(*revealed..).unwrap_or_default();
            sequence.diffused = *revealed + arrange(params, alpha_0, number, tail, counts);
            if let Some(constraints) = params.constraints_of(number) {
                self.session.constraints.push(constraints.sorted());
            }
        }
        self.session.count_steps();
        Ok(())
    }

    /// Checks that a prompt's tokens and positions are the model's and the text's. The known tokens by position are in
    /// `updates` then.
    fn check_prompt(&mut self, number: usize, prompt: &Prompt, length: usize, goes_on: bool) -> Result<()> {
        let config = self.engine.model.config();
        // The spare memory of `updates` holds the known tokens by position.
        let Session { updates: marks, sequences, mask, .. } = &mut self.session;
        let mask = *mask;
        marks.clear();
        marks.resize(length, Update { sequence: 0, position: 0, token: mask });
        let there = sequences.get(number).filter(|_| goes_on).map_or(&[][..], |s| &s.tokens);
        if there.len() > length {
            return Err(Error::invalid(format!("length {length}, but there are {} tokens", there.len())));
        }
        for (mark, token) in marks.iter_mut().zip(there) {
            mark.token = *token;
        }
        for &(position, token) in &prompt.known {
            let bad = |what: &str| {
                Err(Error::invalid(format!("prompt {number}: token {token} at {position}: {what}")))
            };
            if token as usize >= config.vocab_size || token == mask {
                return bad("no such token");
            }
            match marks.get_mut(position as usize) {
                None => return bad("beyond the length"),
                Some(mark) if mark.token != mask => return bad("the position is given twice"),
                Some(mark) => mark.token = token,
            }
        }
        if config.variant == Variant::Ar && !marks.is_sorted_by_key(|mark| mark.token == mask) {
            return Err(Error::invalid(format!(
                "prompt {number}: an autoregressive model takes a prefix only"
            )));
        }
        Ok(())
    }

    /// Begins a generation whose orders and schedules are given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if an order is no permutation, a schedule does not add up, or a token is
    /// outside the vocabulary.
    pub fn begin_planned(&mut self, plans: &[Plan], sampling: Sampling, seed: u64) -> Result<()> {
        sampling.validate()?;
        if plans.is_empty() {
            return Err(Error::invalid("no plan to begin"));
        }
        for plan in plans {
            self.check_begin(plans.len(), plan.order.len())?;
            plan.validate(self.engine.model.config())?;
        }
        self.start(plans.len(), sampling);
        let mask = self.session.mask;
        for (number, (sequence, plan)) in self.session.sequences.iter_mut().zip(plans).enumerate() {
            let known = plan.order.iter().copied().zip(plan.known.iter().copied());
            sequence.forget();
            sequence.learn(plan.order.len(), mask, known);
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

    pub(crate) fn check_begin(&self, sequences: usize, length: usize) -> Result<()> {
        if self.engine.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
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

    pub(crate) fn start(&mut self, sequences: usize, sampling: Sampling) {
        if std::mem::take(&mut self.session.poisoned) {
            self.engine.clear();
            self.session.sequences.iter_mut().for_each(|sequence| sequence.committed = 0);
        }
        self.engine.clear_profile();
        self.session.step_time = Duration::ZERO;
        self.session.sampling_time = Duration::ZERO;
        self.session.active = sequences;
        self.session.next = 0;
        self.session.sampling = sampling;
        self.session.updates.clear();
        self.session.log_probs.clear();
        self.session.wants_log_probs = false;
        self.session.adaptive = None;
        self.session.constraints.clear();
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

    /// Where the time of the generation's steps went, if this library's own kernels ran them.
    pub fn profile(&self) -> Option<Profile> {
        let passes = self.engine.profile()?;
        let Session { step_time, sampling_time, .. } = self.session;
        let known = passes.total() + sampling_time;
        Some(Profile { sampling: sampling_time, rest: step_time.saturating_sub(known), ..passes })
    }

    /// Steps done and steps in all (at most, where they are [`Adaptive`]).
    pub fn progress(&self) -> (usize, usize) {
        (self.session.next, self.session.total)
    }

    /// The tokens of a sequence by position, the mask token where unknown.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such sequence.
    pub fn tokens(&self, sequence: usize) -> Result<&[u32]> {
        Ok(&self.sequence(sequence)?.tokens)
    }

    fn sequence(&self, number: usize) -> Result<&Sequence> {
        let found = self.session.active().get(number);
        found.ok_or_else(|| Error::invalid(format!("there is no sequence {number}")))
    }

    /// The positions of a sequence in generation order: those known beforehand first, then as the steps write them.
    /// It is what [`Context::score_order`] takes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such sequence.
    pub fn order(&self, sequence: usize) -> Result<&[u32]> {
        Ok(&self.sequence(sequence)?.order)
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
    /// Notes how many steps there are in all.
    pub(crate) fn count_steps(&mut self) {
        let left = self.active().iter().map(|s| s.steps_left(self.next)).max().unwrap_or(0);
        self.total = self.next + left;
    }
}
