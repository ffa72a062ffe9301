//! From PyTorch checkpoints to GGUF, without Python and without running what a pickle says.
//!
//! Two kinds of input: a Lightning `.ckpt` as the training code saves it (`checkpoint`, `pickle`, `lightning`),
//! and `model.safetensors` with its `config.json` (`safetensors`). Both become a `source`; `settings` works out
//! the hyperparameters, `fold` what becomes of each tensor, and the weights stream through, one tensor in
//! memory at a time, into an output that gets its name when it is whole.

mod checkpoint;
mod fold;
mod lightning;
mod options;
mod pickle;
mod safetensors;
mod settings;
mod small_file;
mod source;
mod tokenizer;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::atomic_file::{PendingFile, refuse_input_as_output};
use crate::error::{Error, Result};
use crate::forward::count_threads;
use crate::gguf::{Value, Writer};
use crate::model::Config;
use crate::quantize::{Importance, Packing, Policy, Progress, QUANTIZATION_VERSION};
use fold::Recipe;
use source::Source;

pub use options::{Options, Report, TokenizerSource, Weights};

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
    let threads = count_threads(options.threads)?;
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
        writer.set(Config::TOKENIZER_KEY, Value::Str(vocabulary.json));
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
