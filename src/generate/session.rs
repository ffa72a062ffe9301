//! One generation: what is known, what comes next, and how far the cache is final.

use std::ops::ControlFlow;

use super::clock::StepClock;
use super::draw::{Draw, DrawState, TokenChoice};
use super::finished::TextEnd;
use super::request::{GenerateParams, Prompt};
use super::sequence::Sequence;
use super::stop::{StopReason, StopRules};
use super::update::{Step, Update};
use crate::error::{Error, Result};
use crate::forward::{Batch, ModelRunner, Profile};
use crate::memory::{reserve, with_room};
use crate::model::{Model, Tokenizer};
use crate::plan::{Adaptive, Order, Plan, arrange};
use crate::rng::{Purpose, Rng};
use crate::sample::{Constraints, GrammarState, Grammars, SamplingParams, TokenLogProb};
use crate::simd::DefaultFloats;

/// The state of a generation. Its memory, but for constraints, is reserved when the context is made.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) sequences: Vec<Sequence>,
    /// Sequences in use.
    pub(super) active: usize,
    pub(super) steps_done: usize,
    /// Steps in all (at most, where they are adaptive).
    pub(super) steps_total: usize,
    pub(super) request: SessionRequest,
    pub(super) buffers: StepBuffers,
    pub(super) clock: StepClock,
    /// Why the last step did not end, if it did not.
    pub(crate) interrupted: Option<StopReason>,
    pub(super) grammars: Grammars,
    /// Whether the cache may hold numbers that are not finite.
    pub(super) cache_not_finite: bool,
    pub(super) mask: u32,
    /// The known tokens of a prompt by position, while it is checked.
    pub(super) known: Vec<u32>,
    /// Rows of a strided order, while it is made.
    rows: Vec<u32>,
}

/// What the caller asked for that holds for every step.
#[derive(Debug, Default)]
pub(super) struct SessionRequest {
    pub(super) sampling: SamplingParams,
    /// One per sequence, sorted; empty if there are none.
    pub(super) constraints: Vec<Constraints>,
    /// How far the grammars of the sequences, of those that have one, are matched.
    pub(super) grammars: Vec<Option<GrammarState>>,
    pub(super) adaptive: Option<Adaptive>,
    pub(super) wants_log_probs: bool,
    pub(super) top_log_probs: usize,
    pub(super) stop: StopRules,
}

impl SessionRequest {
    /// The tokenizer, if the bytes of texts are looked at.
    pub(super) fn tokenizer<'m>(&self, model: &'m Model) -> Result<Option<&'m Tokenizer>> {
        if self.stop.need_bytes() { model.tokenizer().map(Some) } else { Ok(None) }
    }
}

/// The memory that a step works in.
#[derive(Debug)]
pub(super) struct StepBuffers {
    pub(super) batch: Batch,
    /// The rows of a batch that become tokens.
    pub(super) draws: Vec<Draw>,
    /// One per thread.
    pub(super) draw_states: Vec<DrawState>,
    /// Random numbers for a device that draws, and the tokens that it drew.
    pub(super) uniforms: Vec<f64>,
    pub(super) drawn: Vec<i32>,
    /// What the last step wrote, its log-probabilities, and the most likely tokens at each position, if they are wanted.
    pub(super) updates: Vec<Update>,
    pub(super) log_probs: Vec<f64>,
    pub(super) top_log_probs: Vec<TokenLogProb>,
    /// The model's confidence in each proposed token of an adaptive step, and whether the token was accepted.
    pub(super) confidences: Vec<f32>,
    pub(super) accepted: Vec<bool>,
}

impl StepBuffers {
    /// Removes the results of the last step.
    pub(super) fn clear(&mut self) {
        self.updates.clear();
        self.log_probs.clear();
        self.top_log_probs.clear();
        self.confidences.clear();
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
        let (mut sequences, mut draw_states) = (with_room(capacity.sequences)?, with_room(runner.threads())?);
        for number in 0..capacity.sequences {
            sequences.push(Sequence::with_capacity(length, number)?);
        }
        for _ in 0..runner.threads() {
            draw_states.push(DrawState::new(config, length)?);
        }
        Ok(Self {
            sequences,
            active: 0,
            steps_done: 0,
            steps_total: 0,
            request: SessionRequest::default(),
            buffers: StepBuffers {
                batch: Batch::with_capacity(capacity.rows, 1 + capacity.sequences.min(capacity.rows))?,
                draws: with_room(capacity.rows)?,
                draw_states,
                uniforms: with_room(capacity.rows)?,
                drawn: with_room(capacity.rows)?,
                updates: with_room(tokens)?,
                log_probs: with_room(tokens)?,
                top_log_probs: Vec::new(),
                confidences: with_room(tokens)?,
                accepted: with_room(tokens)?,
            },
            clock: StepClock::default(),
            interrupted: None,
            grammars: Grammars::default(),
            cache_not_finite: false,
            mask: config.mask_token_id,
            known: with_room(length)?,
            rows: with_room(length)?,
        })
    }

    /// The sequences in use.
    pub(super) fn active(&self) -> &[Sequence] {
        self.sequences.get(..self.active).unwrap_or_default()
    }

    /// Begins a generation of one sequence per prompt; see [`Context::begin`](crate::Context::begin).
    pub(crate) fn begin(
        &mut self,
        runner: &mut ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        self.prepare(runner, prompts, params, false)
    }

    /// Goes on from the known tokens; see [`Context::extend`](crate::Context::extend).
    pub(crate) fn extend(
        &mut self,
        runner: &mut ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        let variant = runner.model.config().variant;
        if !variant.is_causal() {
            let name = variant.name();
            return Err(Error::Unsupported(format!(
                "variant '{name}': it cannot be extended, only causal models (Eso-LM (B), AR) can"
            )));
        }
        if prompts.len() != self.active {
            let (given, active) = (prompts.len(), self.active);
            return Err(Error::invalid(format!("{given} prompts to go on with {active} sequences")));
        }
        self.prepare(runner, prompts, params, true)
    }

    /// Begins a generation, or with `resume` goes on from the known tokens.
    fn prepare(
        &mut self,
        runner: &mut ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
        resume: bool,
    ) -> Result<()> {
        let _floats = DefaultFloats::set();
        let total = if params.length == 0 { runner.length } else { params.length };
        check_begin(runner, prompts.len(), total)?;
        // Everything is checked before anything changes.
        params.validate(runner.model.config(), prompts.len())?;
        let stop = StopRules::new(params, &runner.model)?;
        let longest =
            prompts.iter().enumerate().map(|(i, prompt)| self.length_of(i, prompt, params, total, resume));
        let longest = longest.max().unwrap_or(total);
        let mut grammars = Vec::new();
        for (number, prompt) in prompts.iter().enumerate() {
            let length = self.length_of(number, prompt, params, total, resume);
            params.order.validate(length)?;
            self.check_prompt(runner, number, prompt, length, resume)?;
            if let Some(constraints) = params.constraints_of(number) {
                let known = |position: u32| {
                    self.known.get(position as usize).copied().filter(|&token| token != self.mask)
                };
                constraints
                    .validate(runner.model.config(), longest, known)
                    .map_err(|e| Error::invalid(format!("sequence {number}: {e}")))?;
                self.add_grammar(runner, (number, constraints), params, &mut grammars)?;
            }
        }
        let tops = params.top_log_probs.saturating_mul(prompts.len()).saturating_mul(longest);
        reserve(&mut self.buffers.top_log_probs, tops)?;
        self.start(runner, prompts.len(), params.sampling);
        self.request.grammars = grammars;
        self.request.wants_log_probs = params.log_probs || params.top_log_probs > 0;
        self.request.top_log_probs = params.top_log_probs;
        self.request.adaptive = params.adaptive;
        self.request.stop = stop;
        let model = runner.model.clone();
        let tokenizer = self.request.tokenizer(&model)?;
        let plan_params = params.plan_params(runner.model.config());
        let mask = self.mask;
        for (number, prompt) in prompts.iter().enumerate() {
            let length = self.length_of(number, prompt, params, total, resume);
            let Some(sequence) = self.sequences.get_mut(number) else { break };
            if !resume {
                sequence.reset();
            }
            sequence.set_known(length, mask, prompt.known.iter().copied())?;
            sequence.begin_text(mask, &self.request.stop, tokenizer)?;
            sequence.rng = Rng::new(params.seed, number, Purpose::Token);
            sequence.window = params.adaptive.map_or(0, |adaptive| adaptive.window);
            let Sequence { order, tokens, counts, revealed, .. } = sequence;
            let unknown = |p: &u32| tokens.get(*p as usize) == Some(&mask);
            match params.order {
                Order::Custom(given) => order.extend(given.iter().copied().filter(unknown)),
                _ => order.extend((0..length as u32).filter(unknown)),
            }
            let tail = order.get_mut(*revealed..).unwrap_or_default();
            sequence.diffused = *revealed + arrange(&plan_params, number, tail, counts, &mut self.rows);
            if let Some(constraints) = params.constraints_of(number) {
                self.request.constraints.push(constraints.sorted());
            }
        }
        self.count_steps();
        Ok(())
    }

    /// Begins a generation whose orders and schedules are given; see
    /// [`Context::begin_with_plans`](crate::Context::begin_with_plans).
    pub(crate) fn begin_with_plans(
        &mut self,
        runner: &mut ModelRunner,
        plans: &[Plan],
        sampling: SamplingParams,
        seed: u64,
    ) -> Result<()> {
        let _floats = DefaultFloats::set();
        sampling.validate()?;
        if plans.is_empty() {
            return Err(Error::invalid("no plan to begin"));
        }
        for plan in plans {
            check_begin(runner, plans.len(), plan.order.len())?;
            plan.validate(runner.model.config())?;
        }
        self.start(runner, plans.len(), sampling);
        let mask = self.mask;
        for (number, (sequence, plan)) in self.sequences.iter_mut().zip(plans).enumerate() {
            let known = plan.order.iter().copied().zip(plan.known.iter().copied());
            sequence.reset();
            sequence.set_known(plan.order.len(), mask, known)?;
            sequence.begin_text(mask, &self.request.stop, None)?;
            sequence.rng = Rng::new(seed, number, Purpose::Token);
            sequence.diffused = plan.known.len() + plan.diffusion;
            sequence.order.clone_from(&plan.order);
            sequence.counts.clone_from(&plan.counts);
        }
        self.count_steps();
        Ok(())
    }

    /// Ends the generation. Memory stays.
    pub(crate) fn reset(&mut self) {
        self.active = 0;
        self.steps_done = 0;
        self.steps_total = 0;
        self.clock = StepClock::default();
        self.interrupted = None;
        self.buffers.clear();
    }

    /// Makes room for a generation of so many sequences in place of the last one.
    pub(super) fn start(&mut self, runner: &mut ModelRunner, sequences: usize, sampling: SamplingParams) {
        if std::mem::take(&mut self.cache_not_finite) {
            runner.clear_cache();
            self.sequences.iter_mut().for_each(|sequence| sequence.committed = 0);
        }
        runner.clear_profile();
        self.clock = StepClock::default();
        self.active = sequences;
        self.steps_done = 0;
        self.interrupted = None;
        self.buffers.clear();
        self.request.stop = StopRules::default();
        self.request.sampling = sampling.resolved(&runner.model.config().defaults);
        self.request.constraints.clear();
        self.request.grammars.clear();
        self.request.adaptive = None;
        self.request.wants_log_probs = false;
        self.request.top_log_probs = 0;
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
                self.interrupted = Some(StopReason::Cancelled);
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Number of sequences in use.
    pub(crate) fn sequences(&self) -> usize {
        self.active
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
        Ok(&self.sequence(sequence)?.tokens)
    }

    /// Which part of a sequence's tokens is its text.
    pub(crate) fn text_end(&self, sequence: usize) -> Result<TextEnd> {
        Ok(self.sequence(sequence)?.text_end())
    }

    /// Why a sequence's text ended; `None` while there are steps left to write it.
    pub(crate) fn stop_reason(&self, sequence: usize) -> Result<Option<StopReason>> {
        Ok(self.sequence(sequence)?.stop_reason().or(self.interrupted))
    }

    /// The positions of a sequence in generation order.
    pub(crate) fn order(&self, sequence: usize) -> Result<&[u32]> {
        Ok(&self.sequence(sequence)?.order)
    }

    fn sequence(&self, number: usize) -> Result<&Sequence> {
        let found = self.active().get(number);
        found.ok_or_else(|| Error::invalid(format!("there is no sequence {number}")))
    }

    /// Works out how many steps there are in all.
    pub(super) fn count_steps(&mut self) {
        let left = self.active().iter().map(|s| s.steps_left(self.steps_done)).max().unwrap_or(0);
        self.steps_total = self.steps_done + left;
    }
}
/// Checks that a generation of so many sequences of `length` tokens fits the context.
pub(super) fn check_begin(runner: &ModelRunner, sequences: usize, length: usize) -> Result<()> {
    if runner.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let most = runner.capacity.sequences;
    if sequences == 0 || sequences > most {
        return Err(Error::invalid(format!("{sequences} sequences; the context holds 1 to {most}")));
    }
    if length == 0 || length > runner.length {
        let longest = runner.length;
        return Err(Error::invalid(format!("length {length}; the context holds 1 to {longest} tokens")));
    }
    Ok(())
}
