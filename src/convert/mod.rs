//! From PyTorch checkpoints to GGUF, without Python and without running what a pickle says.
//!
//! Two kinds of input: a Lightning `.ckpt` as the training code saves it (`checkpoint`, `pickle`, `lightning`),
//! and `model.safetensors` with its `config.json` (`safetensors`). Both become a `source`; `settings` works out
//! the hyperparameters, `fold` what becomes of each tensor, and the weights stream through, one tensor in
//! memory at a time, into an output that gets its name when it is whole.
//!
//! `policy` says which type each tensor gets and `pack` packs it; `quantize` does the same to a file that is GGUF
//! already. `imatrix` finds out what each column of a matrix is worth, `importance` is the file that says so.

mod checkpoint;
mod fold;
mod imatrix;
mod importance;
mod lightning;
mod pack;
mod pickle;
mod policy;
mod quantize;
mod safetensors;
mod settings;
mod source;
mod tokenizer;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::config::{Config, TOKENIZER_KEY, Variant};
use crate::error::{Error, Result};
use crate::gguf::{TensorType, Value, Writer};
use crate::output::PendingFile;
use fold::Recipe;
pub use imatrix::{ImatrixOptions, Observation, imatrix, observe_text};
use importance::Importance;
use pack::Packing;
pub use policy::{Policy, QuantConfig, Rule};
pub use quantize::{QuantizeOptions, QuantizeReport, quantize};
use source::Source;

/// Longest `config.json` or `tokenizer.json` that is read.
const MAX_SMALL_FILE: u64 = 64 << 20;
/// `general.quantization_version`: the blocks' layout, ggml's `GGML_QNT_VERSION`.
const QUANTIZATION_VERSION: u32 = 2;

/// What to convert, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// A `tokenizer.json` to put into the file instead of the one that comes with the weights.
    pub tokenizer: Option<PathBuf>,
    /// The type of the matrices. Vectors (norms, biases) are always f32.
    pub tensor_type: TensorType,
    /// Exact types of some matrices, by name; the last rule that matches holds. Without one, a matrix has
    /// what [`Policy::new`] says.
    pub rules: Vec<Rule>,
    /// A file of `esolm imatrix`: which columns of which matrix matter most.
    pub importance: Option<PathBuf>,
    /// Threads that pack; 0 takes one per core. The output does not depend on it.
    pub threads: usize,
    /// Takes the weights of the last training step instead of their moving average (EMA).
    pub raw_weights: bool,
    /// The variant, where the configuration does not say it.
    pub variant: Option<Variant>,
    /// The number of attention heads, where neither configuration nor tensors say it.
    pub head_count: Option<usize>,
    /// The longest sequence, where the configuration does not say it.
    pub context_length: Option<usize>,
    /// The token that begins a text, if neither configuration nor tokenizer says so.
    pub bos_token_id: Option<u32>,
    /// `general.name`; `None` takes the output's file name without its ending and type.
    pub name: Option<String>,
    /// Replaces an output that exists.
    pub force: bool,
}

impl Default for Options {
    /// f32, averaged weights, everything else as the input says.
    fn default() -> Self {
        Self {
            tokenizer: None,
            tensor_type: TensorType::F32,
            rules: Vec::new(),
            importance: None,
            threads: 0,
            raw_weights: false,
            variant: None,
            head_count: None,
            context_length: None,
            bos_token_id: None,
            name: None,
            force: false,
        }
    }
}

/// Which of a checkpoint's weights were converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// The moving average of a training checkpoint.
    Ema,
    /// The last step's weights of a training checkpoint.
    Raw,
    /// The only ones there are: a published file has one set.
    AsStored,
}

/// Where the tokenizer in the file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerSource {
    /// [`Options::tokenizer`].
    Given,
    /// The checkpoint's hyperparameters.
    Embedded,
    /// `tokenizer.json` beside the weights.
    Beside,
    /// The file has no tokenizer.
    None,
}

/// What was converted.
#[derive(Debug, Clone)]
pub struct Report {
    /// The hyperparameters in the file.
    pub config: Config,
    /// Number of weights in the file.
    pub parameters: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Which weights were taken.
    pub weights: Weights,
    /// Where the tokenizer came from.
    pub tokenizer: TokenizerSource,
    /// What else a person should know, one sentence each.
    pub notes: Vec<String>,
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tensors written.
    pub tensors: usize,
    /// Tensors in the file.
    pub total_tensors: usize,
    /// Bytes of tensors written.
    pub bytes: u64,
    /// Bytes of tensors in the file.
    pub total_bytes: u64,
}

/// Converts `input`, a Lightning checkpoint, a safetensors file or a directory with `model.safetensors`, to the
/// GGUF file `output`. `progress` is called after each tensor.
///
/// Nothing in the input is executed, and nothing appears under the output's name unless all went well.
///
/// # Errors
/// [`Error::BadFile`] naming the tensor or key that is damaged, missing, too many or contradictory;
/// [`Error::Unsupported`] for models that cannot run (time conditioning, other algorithms);
/// [`Error::InvalidArgument`] for an option that is missing or contradicts the input, and an output that exists or is read;
/// [`Error::Tokenizer`] for a tokenizer that is not the model's; [`Error::Io`].
pub fn convert(
    input: &Path,
    output: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let weights = weights_file(input);
    let beside = ["config.json", "tokenizer.json"].map(|name| weights.with_file_name(name));
    let given = options.tokenizer.iter().chain(&options.importance);
    for file in beside.iter().chain([&weights]).chain(given) {
        refuse_input_as_output(file, output)?;
    }
    let threads = pack::count_threads(options.threads)?;
    let pending = PendingFile::create(output, options.force)?;
    let mut source = open(&weights, options)?;
    let mut vocabulary = tokenizer::find(&mut source, options)?;
    let settings = settings::settings(&mut source, vocabulary.as_ref(), options)?;
    let config = settings.config;
    let mut notes = std::mem::take(&mut source.notes);
    notes.extend(settings.notes);
    if let Some(found) = &vocabulary {
        match found.check(config.vocab_size, config.mask_token_id) {
            Ok(()) => {
                if let Some(text) = found.text(config.mask_token_id) {
                    let id = config.mask_token_id;
                    notes.push(format!("the tokenizer calls the mask token {id} '{text}'"));
                }
            }
            Err(what) if found.source == TokenizerSource::Embedded => {
                notes.push(format!("the checkpoint's tokenizer is left out: {what}"));
                vocabulary = None;
            }
            Err(what) => return Err(Error::Tokenizer(what)),
        }
    }
    let recipes = fold::recipes(&mut source, &config)?;
    let policy = Policy { rules: options.rules.clone(), ..Policy::new(options.tensor_type) };
    let (types, replaced) = policy.types(&config)?;
    notes.extend(replaced);
    let importance = match &options.importance {
        Some(path) => Some(Importance::read(path, &config)?),
        None => None,
    };

    let mut writer = Writer::new();
    config.write(&mut writer);
    writer.set("general.name", Value::Str(model_name(output, options)));
    writer.set("general.file_type", Value::U32(options.tensor_type.file_type()));
    writer.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    let tokenizer = vocabulary.as_ref().map_or(TokenizerSource::None, |v| v.source);
    if let Some(vocabulary) = vocabulary {
        writer.set(TOKENIZER_KEY, Value::Str(vocabulary.json));
    }
    let mut status = Progress { tensors: 0, total_tensors: recipes.len(), bytes: 0, total_bytes: 0 };
    let mut parameters = 0;
    let mut jobs = Vec::with_capacity(recipes.len());
    for ((spec, recipe), ty) in config.tensors().into_iter().zip(recipes).zip(types) {
        writer.declare(&spec.name, ty, &spec.dims)?;
        status.total_bytes += ty.tensor_bytes(&spec.dims).unwrap_or(0) as u64;
        parameters += spec.dims.iter().product::<usize>() as u64;
        jobs.push((ty, recipe));
    }
    let mut jobs = jobs.into_iter();
    let mut out = BufWriter::new(pending.file());
    writer.write(&mut out, |name, bytes| {
        let (ty, recipe) = jobs.next().ok_or_else(|| Error::internal("a tensor without a recipe"))?;
        let importance = importance.as_ref().and_then(|all| all.columns(name));
        let file = source.path().to_owned();
        let packing =
            Packing { file: &file, name, ty, row_len: row_len(&recipe, &source), importance, threads };
        write_tensor(&mut source, &packing, &recipe, bytes)?;
        status.tensors += 1;
        status.bytes += bytes.len() as u64;
        progress(status);
        Ok(())
    })?;
    out.flush().map_err(|e| Error::io(output, e))?;
    drop(out);
    let bytes = pending.commit()?;
    Ok(Report { config, parameters, bytes, weights: source.weights, tokenizer, notes })
}

/// The file that holds the weights: `input` itself, or the one in the directory `input`.
fn weights_file(input: &Path) -> PathBuf {
    if input.is_dir() { input.join("model.safetensors") } else { input.to_owned() }
}

/// Opens the weights by what the file is, not by what it is called.
fn open(path: &Path, options: &Options) -> Result<Source> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(8).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    match *start.as_slice() {
        [b'P', b'K', ..] => checkpoint::open(path, options.raw_weights),
        [b'G', b'G', b'U', b'F', ..] => Err(Error::invalid(format!(
            "{} is a model file already; `esolm quantize` changes its types",
            path.display()
        ))),
        // A safetensors file begins with a length of 8 bytes.
        _ if start.len() < 8 => Err(Error::bad_file(
            path.display().to_string(),
            "neither a training checkpoint nor a safetensors file",
        )),
        // A pickle that is no zip: what torch.save wrote before version 1.6.
        [0x80, 2..=5, ..] if path.extension().is_none_or(|e| e != "safetensors") => {
            Err(Error::Unsupported(format!(
                "{}: a checkpoint in PyTorch's old format; load and save it again with PyTorch 1.6 or later",
                path.display()
            )))
        }
        _ if options.raw_weights => Err(Error::invalid(format!(
            "--raw-weights: {} is no training checkpoint, it has one set of weights",
            path.display()
        ))),
        _ => safetensors::open(path),
    }
}

/// Appends a tensor's bytes, made by its recipe, to `out`.
fn write_tensor(
    source: &mut Source,
    packing: &Packing<'_>,
    recipe: &Recipe,
    out: &mut Vec<u8>,
) -> Result<()> {
    let row_len = packing.row_len;
    let mut pack = |values: &[f32]| {
        let fetch = |rows: std::ops::Range<usize>, to: &mut Vec<f32>| {
            let rows = values.get(rows.start * row_len..rows.end * row_len);
            to.extend_from_slice(rows.ok_or_else(|| Error::internal("rows beyond a tensor"))?);
            Ok(())
        };
        packing.pack(values.len() / row_len.max(1), fetch, out)
    };
    let (from, factors) = match recipe {
        Recipe::Constant(values) => return pack(values),
        Recipe::Copy(from) => (from, None),
        Recipe::Scale(from, factors) => (from, Some(factors)),
    };
    source.rows(from, |first, values| {
        if let Some(factors) = factors {
            for (row, factor) in values.chunks_mut(row_len).zip(factors.iter().skip(first)) {
                row.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
            }
        }
        pack(values)
    })
}

/// The length of a tensor's rows in the source. A vector's rows are single numbers.
fn row_len(recipe: &Recipe, source: &Source) -> usize {
    match recipe {
        Recipe::Constant(values) => values.len(),
        Recipe::Copy(from) | Recipe::Scale(from, _) => {
            source.shape(from).map_or(1, |shape| shape.iter().skip(1).product())
        }
    }
}

fn model_name(output: &Path, options: &Options) -> String {
    if let Some(name) = &options.name {
        return name.clone();
    }
    let stem = output.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let ending = format!("-{}", options.tensor_type.name());
    stem.strip_suffix(&ending).map(str::to_owned).unwrap_or(stem)
}

/// Reads a configuration or tokenizer whole, unless it is absurdly large.
fn read_small(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_SMALL_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_SMALL_FILE {
        let what =
            format!("more than {} MiB is too long for JSON that describes a model", MAX_SMALL_FILE >> 20);
        return Err(Error::bad_file(path.display().to_string(), what));
    }
    Ok(bytes)
}

/// Stops `force` from replacing what is read, also through a link.
fn refuse_input_as_output(input: &Path, output: &Path) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(input), Ok(output)) if input == output => {
            Err(Error::invalid(format!("{} is both input and output", output.display())))
        }
        _ => Ok(()),
    }
}
