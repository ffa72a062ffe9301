//! A context: one caller's memory and threads for generating from a model. The door to everything below.

use std::ops::ControlFlow;
use std::path::Path;

use crate::error::Result;
use crate::forward::{CancelToken, ContextParams, MemoryPlan, MemoryUse, ModelRunner, Profile};
use crate::generate::{GenerateParams, Prompt, Session, Step, TokenChoice};
use crate::memory::Arena;
use crate::model::{LoadOptions, Model};
use crate::plan::Plan;
use crate::sample::{Choice, Sampler, Sampling};
use crate::score::{self, ScoreParams, TextScore};

/// Runs a model for one caller at a time. All memory is taken when it is made.
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
    /// [`crate::Error::InvalidArgument`] if the parameters exceed the model; [`crate::Error::OutOfMemory`].
    pub fn new(model: &Model, params: &ContextParams) -> Result<Self> {
        Self::new_in(model, params, Arena::allocate)
    }

    /// Makes a context in the arena that `arena` returns for the number of bytes needed.
    ///
    /// # Errors
    /// As [`Context::new`]; what `arena` returns.
    pub(crate) fn new_in(
        model: &Model,
        params: &ContextParams,
        arena: impl FnOnce(usize) -> Result<Arena>,
    ) -> Result<Self> {
        let runner = ModelRunner::new(MemoryPlan::for_model(model, params)?, model, arena)?;
        Ok(Self { session: Session::new(&runner), runner })
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

    /// Number of threads that compute.
    pub fn threads(&self) -> usize {
        self.runner.threads()
    }

    /// Longest sequence in tokens.
    pub fn length(&self) -> usize {
        self.runner.length
    }
}

/// Generating.
impl Context {
    /// Begins a generation of one sequence per prompt, in place of the last one. Allocates nothing, unless there are
    /// constraints or an order is given.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there are too many prompts, a parameter is out of range or cannot be met by this
    /// kind of model, a prompt's position or token is out of range, or a constraint cannot be kept;
    /// [`crate::Error::Cancelled`]; the last generation is then still there.
    pub fn begin(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>) -> Result<()> {
        self.session.begin(&mut self.runner, prompts, params)
    }

    /// Goes on from the tokens that are known, with their keys and values, in place of the steps that are left: a
    /// finished generation becomes the beginning of a longer text. There is a prompt for each sequence, of further
    /// known tokens (none is an empty prompt). The random numbers begin anew, so `params` should have another seed.
    ///
    /// # Errors
    /// As [`Context::begin`], also if the text would be shorter than it is; [`crate::Error::Unsupported`] if the model's
    /// cache does not outlast a step: Eso-LM (A) and MDLM.
    pub fn extend(&mut self, prompts: &[Prompt], params: &GenerateParams<'_>) -> Result<()> {
        self.session.extend(&mut self.runner, prompts, params)
    }

    /// Begins a generation whose orders and schedules are given.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if an order is no permutation, a schedule does not add up, or a token is
    /// outside the vocabulary.
    pub fn begin_planned(&mut self, plans: &[Plan], sampling: Sampling, seed: u64) -> Result<()> {
        self.session.begin_planned(&mut self.runner, plans, sampling, seed)
    }

    /// Runs one step and says what it wrote; nothing when the generation is finished. Takes no memory. (ggml's
    /// kernels on the CPU, if they were asked for, take and return two small blocks at each pass.)
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`]; [`crate::Error::NotFinite`]; [`crate::Error::Device`]. The state is as before the call.
    pub fn step(&mut self) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::Sample)
    }

    /// As [`Context::step`], with `edit` changing the logits that each token is drawn from: it is called after the
    /// constraints were applied, before temperature, top-k and nucleus. Minus infinity rules a token out (the mask
    /// token always is); [`Choice::logits`] are the network's own.
    ///
    /// # Errors
    /// As [`Context::step`]; what `edit` returns; [`crate::Error::InvalidArgument`] if it leaves NaN, infinity, or no token
    /// that can be drawn.
    pub fn step_editing(
        &mut self,
        mut change: impl FnMut(&Choice<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::Logits(&mut change))
    }

    /// As [`Context::step`], with every token chosen by `choose` from the network's own logits. Constraints do not
    /// bind it.
    ///
    /// # Errors
    /// As [`Context::step`]; what `choose` returns; [`crate::Error::InvalidArgument`] if it chooses the mask or a token
    /// outside the vocabulary.
    pub fn step_choosing(
        &mut self,
        mut choose: impl FnMut(&mut Sampler, &Choice<'_>) -> Result<u32>,
    ) -> Result<Option<Step<'_>>> {
        self.session.step(&mut self.runner, TokenChoice::Token(&mut choose))
    }

    /// Generates to the end. `on_step` sees every step and may stop it.
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

    /// Runs the steps that are left of a generation that was begun.
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
    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.session.sequences()
    }

    /// Steps done and steps in all (at most, where they are [`crate::Adaptive`]).
    pub fn progress(&self) -> (usize, usize) {
        self.session.progress()
    }

    /// Where the time of the generation's steps went, if this library's own kernels ran them.
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

    /// The positions of a sequence in generation order: those known beforehand first, then as the steps write them.
    /// It is what [`Context::score_order`] takes.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn order(&self, sequence: usize) -> Result<&[u32]> {
        self.session.order(sequence)
    }

    /// The text of a sequence's finished beginning: up to the first unknown or end-of-text token. Whole UTF-8
    /// characters; it only ever grows during a generation.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence; [`crate::Error::Tokenizer`].
    pub fn text(&self, sequence: usize) -> Result<String> {
        self.model().tokenizer()?.decode_prefix(self.tokens(sequence)?)
    }
}

/// Saved states.
impl Context {
    /// Everything known of the current generation, tokens, order, keys and values, as bytes for
    /// [`Context::restore`]. Steps that are left are not part of it, nor are parameters, constraints and random numbers:
    /// [`Context::extend`] takes new ones. A generation that is saved halfway so goes on from the same tokens, but not to
    /// the same text. (A device that is not the CPU with the library's own kernels leaves keys and values out; they are
    /// computed again then.)
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] as for [`Context::extend`], or if the weights are not in main memory.
    pub fn save(&self) -> Result<Vec<u8>> {
        self.session.save(&self.runner)
    }

    /// Writes what [`Context::save`] gives to a file. One that is there is replaced when the new one is whole and on the
    /// disk, not before.
    ///
    /// # Errors
    /// As [`Context::save`]; [`crate::Error::Io`]; [`crate::Error::InvalidArgument`] if `path` is a directory or no file name.
    pub fn save_to(&self, path: impl AsRef<Path>) -> Result<()> {
        self.session.save_to(&self.runner, path.as_ref())
    }

    /// The bytes that [`Context::save`] would give, which takes no time.
    ///
    /// # Errors
    /// As [`Context::save`].
    pub fn saved_size(&self) -> Result<usize> {
        self.session.saved_size(&self.runner)
    }

    /// Takes up a saved state in place of the current generation: its tokens are known, no steps are left, and
    /// [`Context::extend`] goes on. Keys and values of another precision than this context's are computed again, as a
    /// message (see [`crate::set_log_receiver`]) says.
    ///
    /// # Errors
    /// [`crate::Error::BadFile`] if the bytes are damaged or of another model; [`crate::Error::InvalidArgument`] if the context is
    /// too small for it; [`crate::Error::Unsupported`] as for [`Context::save`]. The current generation is then still there.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        self.session.restore(&mut self.runner, bytes)
    }
}

/// Scoring a given text.
impl Context {
    /// Scores a text of any length. It is cut into windows of the context's length, one after the other, the last
    /// of what is left, and each is scored by itself, as in training: its first token is given nothing.
    /// `progress` gets the windows done and all windows, and may stop. Ends the context's generation.
    ///
    /// With W rows for a window of W tokens, an order costs about 2 W rows (tokens and masks), a draw W rows of
    /// diffusion and, if alpha_0 < 1, 2 W of the sequential phase. What is drawn depends on the parameters and
    /// the lengths alone, so it is the same for all models of a kind. (Windows go one by one: a pass is full enough
    /// with one. Side by side they would be 2 to 11 % faster, by the time of passes of 128 rows against 64.)
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for a text of no token or tokens that are not the model's, several orders left to
    /// right, more than 2^20 orders or draws, and an alpha_0 outside 0 to 1; [`crate::Error::Unsupported`] for orders or alpha_0 < 1 with MDLM, and random
    /// orders or diffusion with autoregression; [`crate::Error::Cancelled`]; those of [`Context::step`].
    pub fn score_text(
        &mut self,
        tokens: &[u32],
        params: &ScoreParams,
        progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<TextScore> {
        score::score_text(&mut self.runner, &mut self.session, tokens, params, progress)
    }

    /// Log-probabilities (natural) of the tokens at `order[known..]`, each given those before it in the order, as
    /// generation one token at a time would have it. `tokens` is the text by position; the first `known` positions of
    /// `order` are given. Ends the context's generation.
    ///
    /// Of Eso-LM (A) that is the sequential phase: what is given sees itself both ways, and what its diffusion phase wrote
    /// one by one is the first of [`Context::score_masked`] for each number of known tokens.
    ///
    /// Source: the reference's `_any_order_ar_loss` and `_reconstruction_loss`, which run all tokens and all masks
    /// in one pass. So does this if the context has as many rows; otherwise some go through at a time, with the same
    /// result.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if the order is no permutation of the text's positions, or not left to right in an
    /// autoregressive model; [`crate::Error::Unsupported`] for MDLM, which has no such order; those of [`Context::step`].
    pub fn score_order(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        score::score_order(&mut self.runner, &mut self.session, tokens, order, known)
    }

    /// Log-probabilities (natural) of the tokens at `order[known..]`, all unknown, given the first `known`: one step of
    /// diffusion. Ends the context's generation.
    ///
    /// # Errors
    /// As [`Context::score_order`]; [`crate::Error::Unsupported`] for an autoregressive model.
    pub fn score_masked(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        score::score_masked(&mut self.runner, &mut self.session, tokens, order, known)
    }
}
