//! Computing an importance matrix: the mean squares of the matrices' inputs while the model generates a given text.

use std::path::Path;

use super::importance;
use crate::atomic_file::{PendingFile, refuse_input_as_output};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::evaluate::{spread, window_length};
use crate::forward::{ContextParams, Kernels, count_threads};
use crate::generate::{GenerateParams, Prompt};
use crate::ggml::{Observed, observe};
use crate::memory::{collected, plain_text, read_at_most, with_room};
use crate::model::{Config, EMBEDDING, LoadOptions, Model, TensorSpec, Variant};
use crate::plan::Plan;
use crate::rng::{Purpose, Rng};
use crate::sample::SamplingParams;
use crate::simd::DefaultFloats;

/// Longest text that is read, in bytes; tokenizing takes a few hundred times as much memory.
const MAX_TEXT: u64 = 64 << 20;

/// How to compute an importance matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImatrixOptions {
    /// Tokens of a piece of text; 0 is [`ContextParams::default_length`].
    pub length: usize,
    /// Most pieces to use, spread evenly over the text; 0 uses all.
    pub pieces: usize,
    /// Steps in which a piece is generated; of BD3-LM at least one for each block. Autoregressive models and WeDLM write as many
    /// tokens at the end of a piece, behind the others as their prompt.
    pub steps: usize,
    /// Seed of the orders in which the pieces are generated, where the model can write in any.
    pub seed: u64,
    /// The mask token of a model whose file does not say it, as in [`LoadOptions::mask_token`].
    pub mask_token: Option<u32>,
    /// CPU threads; 0 uses one per core.
    pub threads: usize,
    /// Replaces an existing output.
    pub force: bool,
}

impl Default for ImatrixOptions {
    /// 64 pieces of the context's default length, in 32 steps each.
    fn default() -> Self {
        Self { length: 0, pieces: 64, steps: 32, seed: 0, mask_token: None, threads: 0, force: false }
    }
}

/// The observed inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// For each matrix that has inputs, its name and the mean square of the inputs by column.
    pub matrices: Vec<(String, Vec<f32>)>,
    /// Number of inputs of the matrix that had most.
    pub rows: u64,
    /// Number of pieces, and tokens of each.
    pub pieces: (usize, usize),
}

/// Computes an importance matrix for [`quantize`](super::quantize()) from the model file `model` and the text file `text`,
/// and writes it to `output`. Of the text a byte-order mark is left out, and the `\r` of `\r\n`. `progress` is called with the pieces
/// done and the number of pieces.
///
/// # Errors
/// As [`Model::open`] and [`observe_text`]; [`Error::InvalidArgument`] for an output that exists or is an input;
/// [`Error::Io`]; [`Error::BadFile`] for a text that is not UTF-8 or larger than 64 MiB.
pub fn imatrix(
    model: &Path,
    text: &Path,
    output: &Path,
    options: &ImatrixOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Observation> {
    refuse_input_as_output(model, output)?;
    refuse_input_as_output(text, output)?;
    let pending = PendingFile::create(output, options.force)?;
    let bytes = read_at_most(text, MAX_TEXT)?;
    let content = String::from_utf8(bytes)
        .map_err(|e| Error::unreadable(text.display().to_string(), "the text is not UTF-8", e))?;
    let content = plain_text(content)?;
    let mask_token = options.mask_token;
    let model =
        Model::open(model, &LoadOptions { device: "cpu".into(), mask_token, ..LoadOptions::default() })?;
    let tokens = model.tokenizer()?.encode_corpus(&content)?;
    let observation = observe_text(&model, &tokens, options, progress)?;
    importance::write((&mut pending.file(), output), &observation.matrices, observation.rows)?;
    pending.commit()?;
    Ok(observation)
}

/// Lets the model generate pieces of the text `tokens` as it generates texts (in random orders with several tokens per step, in
/// blocks, in a sliding window, or one by one), and observes the inputs of its matrices. `progress` is called with the pieces done and the number of
/// pieces.
///
/// # Errors
/// [`Error::InvalidArgument`] for an empty text, tokens that the model cannot generate, and options that do not fit it;
/// [`Error::NotFinite`]; [`Error::Unsupported`] if the model is not on the CPU.
pub fn observe_text(
    model: &Model,
    tokens: &[u32],
    options: &ImatrixOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Observation> {
    let _floats = DefaultFloats::set();
    let config = model.config();
    let length = window_length(options.length, config)?.min(tokens.len());
    let least = if needs_prompt(config) { 2 } else { 1 };
    if length < least || options.steps == 0 {
        return Err(Error::invalid(format!(
            "an importance matrix of this model needs a text of {least} tokens or more, and at least one step"
        )));
    }
    if let Some(token) = tokens.iter().find(|&&token| !config.is_writable(token)) {
        return Err(Error::invalid(format!(
            "the text has the token {token}, which the model cannot generate"
        )));
    }
    let texts = spread(tokens, length, options.pieces);
    let pieces = texts.len();
    // Only ggml's graphs are observed, not esolm's own kernels.
    let kernels = Kernels::Ggml;
    // Its threads wait by spinning: more of them than processors take minutes for what takes a second.
    let processors = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    let threads = count_threads(options.threads)?.min(processors);
    let params = ContextParams { length, threads, kernels, ..ContextParams::default() };
    let mut context = Context::new(model, &params)?;
    let ((), observed) = observe(model.plain_weights()?, || {
        for (piece, text) in texts.enumerate() {
            generate_piece(&mut context, text, options, piece)?;
            progress(piece + 1, pieces);
        }
        Ok(())
    })?;
    let rows = observed.iter().map(|o| o.rows).max().unwrap_or(0);
    let mut matrices = with_room(observed.len())?;
    for matrix in observed.into_iter().filter(|o| o.rows > 0) {
        matrices.push(mean_squares(matrix)?);
    }
    // Every matrix has inputs but the embedding, whose rows are looked up, unless it is the output's as well.
    let has_inputs = |spec: &TensorSpec| {
        spec.dims.len() > 1 && (config.architecture.tied_output || spec.name != EMBEDDING)
    };
    if matrices.len() != config.tensors()?.iter().filter(|spec| has_inputs(spec)).count() {
        return Err(Error::internal(format!("inputs of {} matrices were observed", matrices.len())));
    }
    Ok(Observation { matrices, rows, pieces: (pieces, length) })
}

/// Whether pieces are written behind a prompt.
fn needs_prompt(config: &Config) -> bool {
    matches!(config.variant, Variant::Ar | Variant::WeDlm)
}

/// Generates one piece of text.
fn generate_piece(context: &mut Context, text: &[u32], options: &ImatrixOptions, piece: usize) -> Result<()> {
    let config = context.model().config();
    let request = GenerateParams {
        length: text.len(),
        ignore_eos: true,
        sampling: SamplingParams::FULL,
        seed: options.seed.wrapping_add(piece as u64),
        ..GenerateParams::DEFAULT
    };
    match config.variant {
        Variant::Ar | Variant::WeDlm => {
            let (prompt, _) = text.split_at(text.len() - options.steps.min(text.len() - 1));
            let alpha_0 = if config.variant == Variant::WeDlm { 1.0 } else { 0.0 };
            context.begin(&[Prompt::prefix(prompt)?], &GenerateParams { alpha_0, ..request })?;
        }
        Variant::Bd3Lm => {
            let steps = options.steps.min(text.len()).div_ceil(text.len().div_ceil(config.block_length));
            context.begin(&[Prompt::default()], &GenerateParams { steps, ..request })?;
        }
        Variant::EsoB | Variant::EsoA | Variant::Mdlm => {
            let plan = random_plan(config, text.len(), options, piece)?;
            context.begin_with_plans(&[plan], SamplingParams::FULL, 0)?;
        }
    }
    let token = |position: u32| {
        let token = text.get(position as usize).copied();
        token.ok_or_else(|| Error::internal("a step generated a token beyond the text"))
    };
    while context.step_with_tokens(|_, row| token(row.position))?.is_some() {}
    Ok(())
}

/// A random order, with about as many tokens in each step.
fn random_plan(config: &Config, length: usize, options: &ImatrixOptions, piece: usize) -> Result<Plan> {
    let mut order: Vec<u32> = collected(0..length as u32)?;
    crate::plan::order::random(&mut order, length, &mut Rng::new(options.seed, piece, Purpose::Order));
    let steps = options.steps.min(length);
    let until = |step: usize| (step * length / steps) as u32;
    let counts = collected((0..steps).map(|step| until(step + 1) - until(step)))?;
    // Steps of several tokens are those of the diffusion phase.
    let diffusion = if config.variant == Variant::EsoA { length } else { 0 };
    Ok(Plan { known: vec![], order, counts, diffusion })
}

fn mean_squares(observed: Observed) -> Result<(String, Vec<f32>)> {
    let mean = |square: &f64| (square / observed.rows as f64) as f32;
    let columns: Vec<f32> = collected(observed.squares.iter().map(mean))?;
    if !columns.iter().all(|v| v.is_finite()) {
        return Err(Error::NotFinite(format!("the inputs of '{}' are not finite", observed.name)));
    }
    Ok((observed.name, columns))
}
