//! A context: one caller's memory and threads for generating from a model. The main entry point of the library.

mod join;
mod score;
mod speed;
mod state;

use std::ops::ControlFlow;
use std::path::Path;

use crate::error::Result;
use crate::forward::{CancelToken, ContextParams, MemoryPlan, MemoryUse, ModelRunner, Profile, ThreadPool};
use crate::generate::{GenerateParams, Prompt, Session, Step, StopReason, TextEnd, TokenChoice};
use crate::memory::Arena;
use crate::model::{LoadOptions, Model};
use crate::plan::Plan;
#[cfg(feature = "capi")]
use crate::sample::TokenLogProb;
use crate::sample::{LogitsRow, Sampler, SamplingParams};

/// Runs a model for one caller at a time. Memory for generating is allocated when it is made; constraints, scoring and
/// saved states allocate more.
#[derive(Debug)]
pub struct Context {
    runner: ModelRunner,
    session: Session,
}

/// Making a context, and what it is made of.
impl Context {
    /// Makes a context in memory of its own.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if the parameters exceed the model; [`crate::Error::Unsupported`] for a
    /// cache in q8_0 or an operation that kernels or device do not have; [`crate::Error::OutOfMemory`].
    pub fn new(model: &Model, params: &ContextParams) -> Result<Self> {
        Self::in_pool(model, params, None)
    }

    /// Makes a context that computes with the threads of `pool`, which it keeps alive, if its kernels are the library's.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub fn with_pool(model: &Model, params: &ContextParams, pool: &ThreadPool) -> Result<Self> {
        Self::in_pool(model, params, Some(pool))
    }

    /// Makes a context that computes with the threads of `pool`, or with its own.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub(crate) fn in_pool(model: &Model, params: &ContextParams, pool: Option<&ThreadPool>) -> Result<Self> {
        Self::new_in(model, params, pool, Arena::allocate)
    }

    /// Makes a context in the arena that `arena` returns for the number of bytes needed.
    ///
    /// # Errors
    /// As [`Context::new`]; what `arena` returns.
    pub(crate) fn new_in(
        model: &Model,
        params: &ContextParams,
        pool: Option<&ThreadPool>,
        arena: impl FnOnce(usize) -> Result<Arena>,
    ) -> Result<Self> {
        let plan = MemoryPlan::for_model(model, &ThreadPool::in_pool(*params, pool))?;
        let runner = ModelRunner::new(plan, model, pool, arena)?;
        Ok(Self { session: Session::new(&runner)?, runner })
    }

    /// The memory that a context with these parameters takes, to the byte.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if the parameters exceed the model.
    pub fn memory_use(model: &Model, params: &ContextParams) -> Result<MemoryUse> {
        Ok(MemoryPlan::for_model(model, params)?.memory_use())
    }

    /// The memory that the model in the file at `path` and a context with these parameters would take. Reads the header
    /// of the file, not the weights.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Context::memory_use`].
    pub fn estimate(
        path: impl AsRef<Path>,
        options: &LoadOptions<'_>,
        params: &ContextParams,
    ) -> Result<MemoryUse> {
        Ok(MemoryPlan::for_file(path.as_ref(), options, params)?.memory_use())
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.runner.model
    }

    /// A token that cancels calls of this context from any thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.runner.cancel.clone()
    }

    /// Longest sequence in tokens.
    pub fn length(&self) -> usize {
        self.runner.length
    }
}

/// Generating.
impl Context {
    /// Begins a generation with one sequence per prompt; it replaces the current one. Where the prompts are long together, the first
    /// steps write nothing yet ([`ContextParams::prompt_rows`]). What prompts have in common is read once, in models that keep keys
    /// and values, with the library's own kernels, if it is at least half of the later prompt and worth a copy. Allocates only for constraints.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there are too many prompts, a parameter is out of range or not supported by
    /// this variant, a prompt's position or token is out of range, or a constraint cannot be met;
    /// [`crate::Error::Cancelled`]. After an error the current generation is unchanged.
    pub fn begin(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>) -> Result<()> {
        self.session.begin(&mut self.runner, prompts, params)
    }

    /// Continues from the tokens known so far, reusing their keys and values; remaining steps are dropped. So a
    /// finished generation becomes the beginning of a longer text. `prompts` has one entry per sequence with further
    /// known tokens (or none), an empty one for each that was removed. The random numbers start again from `params.seed`, so use another seed.
    ///
    /// # Errors
    /// As [`Context::begin`], also if the new length is below the current one; [`crate::Error::Unsupported`] for
    /// Eso-LM (A) and MDLM, whose cache cannot be reused.
    pub fn extend(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>) -> Result<()> {
        self.session.extend(&mut self.runner, prompts, params)
    }

    /// Begins a generation with explicit orders and schedules, one [`Plan`] per sequence. The first step reads all that is known.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there are too many plans, one is too long, an order is not a permutation, a
    /// schedule does not add up, a token is outside the vocabulary, sampling is out of range, or
    /// one does not write block by block though the model does (BD3-LM); [`crate::Error::Cancelled`].
    pub fn begin_with_plans(&mut self, plans: &[Plan], sampling: SamplingParams, seed: u64) -> Result<()> {
        self.session.begin_with_plans(&mut self.runner, plans, sampling, seed)
    }

    /// Runs one step. Returns what it wrote, or `None` when the generation is finished. Allocates nothing. (ggml's CPU
    /// kernels, if chosen, allocate and free two small blocks per batch.)
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`]; [`crate::Error::NotFinite`]; [`crate::Error::Device`];
    /// [`crate::Error::InvalidArgument`] if the constraints of a sequence leave no token: then [`Context::stop_reason`] is
    /// [`StopReason::Error`] for this one alone, and the others go on once it is removed. After an error the generation is as
    /// before the call, but for [`crate::Error::OutOfMemory`] where more than 1 MiB of new text ([`GenerateParams::step_text`])
    /// has no room: then the tokens are written, and their text comes with the next step.
    pub fn step(&mut self) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::Sample)
    }

    /// As [`Context::step`], with a logits processor: `process` changes the logits that each token is sampled from.
    /// It is called after the constraints and before temperature, top-k and nucleus. Minus infinity excludes a token
    /// (the mask token always is excluded); [`LogitsRow::logits`] holds the network's own logits.
    ///
    /// # Errors
    /// As [`Context::step`]; what `process` returns; [`crate::Error::InvalidArgument`] if it leaves NaN, infinity, or
    /// no token that can be drawn.
    pub fn step_with_logits(
        &mut self,
        mut process: impl FnMut(&LogitsRow<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::Logits(&mut process))
    }

    /// As [`Context::step_with_logits`] for the sequences that `of` names; the others are as in [`Context::step`].
    #[cfg(feature = "capi")]
    pub(crate) fn step_with_logits_of(
        &mut self,
        of: impl Fn(usize) -> bool,
        mut process: impl FnMut(&LogitsRow<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::LogitsOf { change: &mut process, of: &of })
    }

    /// As [`Context::step`], with `choose` instead of the sampler: it picks every token from the network's own logits.
    /// Constraints do not apply.
    ///
    /// # Errors
    /// As [`Context::step`]; what `choose` returns; [`crate::Error::InvalidArgument`] if it chooses the mask or a token
    /// outside the vocabulary.
    pub fn step_with_tokens(
        &mut self,
        mut choose: impl FnMut(&mut Sampler, &LogitsRow<'_>) -> Result<u32>,
    ) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::Token(&mut choose))
    }

    /// Begins a generation and runs it to the end. `on_step` is called with every step, also of those that only feed a part of
    /// the prompts; breaking cancels.
    ///
    /// # Errors
    /// As [`Context::begin`] and [`Context::step`]; [`crate::Error::Cancelled`] if `on_step` breaks.
    pub fn generate(
        &mut self,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
        on_step: impl FnMut(&Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.begin(prompts, params)?;
        self.finish(on_step)
    }

    /// Runs the remaining steps of the current generation.
    ///
    /// # Errors
    /// As [`Context::step`]; [`crate::Error::Cancelled`] if `on_step` breaks.
    pub fn finish(&mut self, on_step: impl FnMut(&Step<'_>) -> ControlFlow<()>) -> Result<()> {
        self.session.finish(&mut self.runner, on_step)
    }

    /// Ends the generation: its tokens, its texts and its steps are gone. Memory and threads stay.
    pub fn reset(&mut self) {
        self.session.reset();
    }
}

/// The current generation.
impl Context {
    /// Number of sequences: they are numbered from 0 on. Those that [`Context::remove_sequence`] has removed count, too, if one
    /// with a larger number is there.
    pub fn sequences(&self) -> usize {
        self.session.sequences()
    }

    /// Steps done and steps in all (at most, where they are [`crate::Adaptive`] or look ahead).
    pub fn progress(&self) -> (usize, usize) {
        self.session.progress()
    }

    /// How many of the most likely tokens a step reports for each update, those of the last step, and the most that a step
    /// of this generation may have.
    #[cfg(feature = "capi")]
    pub(crate) fn top_log_probs(&self) -> (usize, &[TokenLogProb], usize) {
        self.session.top_log_probs()
    }

    /// Where the time of the generation's steps went; `None` for ggml's kernels.
    pub fn profile(&self) -> Option<Profile> {
        self.session.profile(&self.runner)
    }

    /// The tokens of a sequence by position, the mask token where unknown.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn tokens(&self, sequence: usize) -> Result<&[u32]> {
        self.session.tokens(sequence)
    }

    /// The positions of a sequence in generation order: the known ones first, then in the order of the steps; after
    /// [`Context::restore`] from left to right. (While a window slides the known ones only: which ones it fills next is not known.)
    /// [`Context::score_order`] takes that of a whole text.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn order(&self, sequence: usize) -> Result<&[u32]> {
        self.session.order(sequence)
    }

    /// The network's logits at `positions` of a sequence that are not written yet, given the tokens that are: `out` gets
    /// `[V]` for each position, V the size of the vocabulary. Each position is taken by itself, as if it were the next and
    /// only one of a step. (MDLM sees that the other positions are unknown.) Runs the network and changes nothing of the
    /// generation. Allocates nothing.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence, a position is beyond the text, known, or given
    /// twice, or `out` has another length; [`crate::Error::Unsupported`] for any but the next position of an
    /// autoregressive model; those of [`Context::step`].
    pub fn logits(&mut self, sequence: usize, positions: &[u32], out: &mut [f32]) -> Result<()> {
        self.session.logits(&mut self.runner, sequence, positions, out)
    }

    /// As [`Context::logits`], but the probabilities that the token would be drawn with: after the generation's
    /// constraints, temperature and filters. They sum to 1.
    ///
    /// # Errors
    /// As [`Context::logits`].
    pub fn probabilities(&mut self, sequence: usize, positions: &[u32], out: &mut [f32]) -> Result<()> {
        self.session.probabilities(&mut self.runner, sequence, positions, out)
    }

    /// The text of a sequence up to the first unknown token, or to what ended it, in whole UTF-8 characters, without the
    /// tokens that begin and end a text. During a generation it only grows.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence; [`crate::Error::Tokenizer`].
    pub fn text(&self, sequence: usize) -> Result<String> {
        let TextEnd { tokens, bytes, complete } = self.text_end(sequence)?;
        let tokens = self.tokens(sequence)?.get(..tokens).unwrap_or_default();
        self.model().tokenizer()?.text(tokens, bytes, complete)
    }

    /// Why the text of a sequence ended; `None` while it is being written. The tokens then are those up to its end, with
    /// the one that ended it.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn stop_reason(&self, sequence: usize) -> Result<Option<StopReason>> {
        self.session.stop_reason(sequence)
    }

    /// Notes that the caller has cancelled the generation behind a step.
    #[cfg(feature = "capi")]
    pub(crate) fn interrupt(&mut self) {
        self.session.interrupt(Some(StopReason::Cancelled));
    }

    /// Which part of a sequence's tokens is its text.
    pub(crate) fn text_end(&self, sequence: usize) -> Result<TextEnd> {
        self.session.text_end(sequence)
    }
}
