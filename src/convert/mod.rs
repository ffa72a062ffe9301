//! Converting PyTorch models to GGUF, without Python and without executing pickles.
//!
//! There are two kinds of input: what `torch.save` wrote, a Lightning `.ckpt` of the training code or a bare state
//! dictionary (`checkpoint`, `pickle`, `lightning`), and `model.safetensors`, whole or in shards (`safetensors`). With the
//! `config.json` and the tokenizer beside it (`tokenizer_files`) it is read into a `source`. `variant` and `settings`
//! determine the hyperparameters from its `facts`, and `fold` what each tensor is computed from; then the tensors are written
//! one at a time.

mod checkpoint;
mod facts;
mod fold;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod json;
mod lightning;
mod names;
mod options;
mod pickle;
mod qwen;
mod safetensors;
mod settings;
mod small_file;
mod source;
mod tokenizer;
mod tokenizer_files;
mod variant;
mod zip;

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::atomic_file::{PendingFile, refuse_input_as_output};
use crate::error::{Error, Result};
use crate::forward::count_threads;
use crate::gguf::{Value, Writer};
use crate::memory::{collected, copied, extend, open_regular, push, try_collected, with_room};
use crate::model::Config;
use crate::quantize::{
    Importance, OutputTensor, Packing, Policy, Progress, Rule, set_type_keys, write_model,
};
use crate::simd::DefaultFloats;
use fold::Recipe;
use source::Source;
use tokenizer::Vocabulary;

pub use options::{Options, Report, SpecialToken, TokenizerSource, WeightSet};

/// Converts `input` to the GGUF file `output`: a Lightning checkpoint, a state dictionary, a safetensors file, the index of
/// a sharded one, or a directory with one of these. `progress` is called after each tensor.
///
/// Nothing in the input is executed. `output` appears, or is replaced, only if everything succeeded.
///
/// # Errors
/// [`Error::BadFile`] naming the tensor or key that is damaged, missing, unexpected or contradictory, and for a
/// tokenizer that is damaged or not the model's; [`Error::Unsupported`] for models that esolm cannot run (time
/// conditioning, other algorithms, RoPE scaling); [`Error::InvalidArgument`] for an option that is missing or contradicts the input, and
/// for an output that exists or is an input; [`Error::Io`].
pub fn convert(
    input: &Path,
    output: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let _floats = DefaultFloats::set();
    let weights = weights_file(input)?;
    let given = options.tokenizer.iter().chain(&options.importance).cloned();
    let beside = tokenizer_files::paths(&weights)
        .chain(["config.json", qwen::GENERATION_CONFIG].map(|name| weights.with_file_name(name)))
        .chain([weights.clone()]);
    for file in beside.chain(given) {
        refuse_input_as_output(&file, output)?;
    }
    let threads = count_threads(options.threads)?;
    let pending = PendingFile::create(output, options.force)?;
    let mut source = open(&weights, options)?;
    for file in source.paths() {
        refuse_input_as_output(file, output)?;
    }
    let mut vocabulary = tokenizer::find(&mut source, options)?;
    let is_qwen = source::is_qwen(&source.config);
    let settings = match is_qwen {
        true => qwen::settings(&source, vocabulary.as_ref(), options)?,
        false => settings::settings(&mut source, vocabulary.as_ref(), options)?,
    };
    let config = settings.config;
    let mut notes = settings.notes;
    if let Some(found) = &vocabulary {
        let fits = match is_qwen {
            true => found.check_within(config.vocab_size),
            false => found.check(config.vocab_size, config.mask_token_id),
        };
        match fits {
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
            Err(what) => return Err(Error::bad_file(&found.file, what)),
        }
    }
    if vocabulary.is_none() {
        let whose = match is_qwen {
            true => "the tokenizer.json that it was published with",
            false => "for the authors' models GPT-2's tokenizer.json",
        };
        notes.push(format!(
            "no tokenizer: the model works on token ids; give one with --tokenizer, which is {whose}"
        ));
    }
    let recipes = match is_qwen {
        true => qwen::recipes(&mut source, &config)?,
        false => fold::recipes(&mut source, &config)?,
    };
    notes.splice(0..0, std::mem::take(&mut source.notes));
    let rules = try_collected(options.rules.iter().map(Rule::copied))?;
    let policy = Policy { rules, ..Policy::new(options.tensor_type) };
    let (types, replaced) = policy.types(&config, &[])?;
    notes.extend(replaced);
    let importance = match &options.importance {
        Some(path) => Some(Importance::read(path, &config)?),
        None => None,
    };
    let specs = config.tensors()?;
    if let Some(importance) = &importance {
        let packed = specs.iter().map(|spec| spec.name.as_str()).zip(types.iter().copied());
        notes.extend(importance.note(packed, config.architecture.tied_output));
    }

    let mut writer = Writer::new();
    config.write(&mut writer)?;
    writer.set("general.name", Value::Str(model_name(output, options)?));
    set_type_keys(&mut writer, options.tensor_type);
    let tokenizer = vocabulary.as_ref().map_or(TokenizerSource::None, |v| v.source);
    if let Some(Vocabulary { json, .. }) = vocabulary {
        writer.set(Config::TOKENIZER_KEY, Value::Str(json));
    }
    if let Some(template) = source.tokenizer.chat_template.take() {
        writer.set(Config::CHAT_TEMPLATE_KEY, Value::Str(template));
    }
    let specs = specs.into_iter().zip(types).zip(recipes);
    let tensors = collected(specs.map(|((spec, ty), recipe)| OutputTensor {
        name: spec.name,
        ty,
        dims: spec.dims,
        source: recipe,
    }))?;
    let (file, kind) = (copied(source.path())?, source.weights);
    let pack = |tensor: &OutputTensor<Recipe>, bytes: &mut Vec<u8>| {
        let name = tensor.name.as_str();
        let importance = importance.as_ref().and_then(|all| all.columns(name));
        let row_len = row_len(&tensor.source, &source)?;
        let packing = Packing { file: &file, name, ty: tensor.ty, row_len, importance, threads };
        write_tensor(&mut source, &packing, &tensor.source, bytes)
    };
    let written = write_model(writer, tensors, options.layout, (pending, output), pack, progress)?;
    let (parameters, bytes) = (written.parameters, written.file_bytes);
    Ok(Report { config, parameters, bytes, weights: kind, tokenizer, notes })
}

/// The files that a directory's weights may be in, in the order in which they are looked for.
const WEIGHTS: [&str; 3] = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];

/// The file that contains the weights, or the index of its shards: `input`, or a file in the directory `input`, where it
/// has one of the usual names or is the only one with the ending of a checkpoint.
fn weights_file(input: &Path) -> Result<PathBuf> {
    if !input.is_dir() {
        return Ok(input.to_owned());
    }
    if let Some(usual) = WEIGHTS.iter().map(|name| input.join(name)).find(|path| path.is_file()) {
        return Ok(usual);
    }
    let mut others = Vec::new();
    for entry in std::fs::read_dir(input).map_err(|e| Error::io(input, e))? {
        let path = entry.map_err(|e| Error::io(input, e))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("ckpt" | "pt" | "bin" | "safetensors")) && path.is_file() {
            push(&mut others, path)?;
        }
    }
    match others.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::bad_file(
            input.display().to_string(),
            "a directory without model.safetensors, pytorch_model.bin or a file .ckpt, .pt or .bin",
        )),
        several => Err(Error::invalid(format!("{}: which of {} files?", input.display(), several.len()))),
    }
}

/// Opens the file by its content, not by its name.
fn open(path: &Path, options: &Options) -> Result<Source> {
    let mut start = with_room(8)?;
    let (file, _) = open_regular(path)?;
    file.take(8).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    match *start.as_slice() {
        // The length of a safetensors header may begin with the first two.
        [b'P', b'K', 3, 4, ..] => checkpoint::open(path, options.raw_weights),
        [b'G', b'G', b'U', b'F', ..] => Err(Error::invalid(format!(
            "{} is a GGUF file already; `esolm quantize` changes its types",
            path.display()
        ))),
        // A safetensors file begins with a length of 8 bytes.
        _ if start.len() < 8 => Err(Error::bad_file(
            path.display().to_string(),
            "neither a training checkpoint nor a safetensors file",
        )),
        // A bare pickle, without a zip around it: what torch.save wrote before version 1.6.
        [0x80, 2..=5, ..] if path.extension().is_none_or(|e| e != "safetensors") => {
            Err(Error::unsupported(format!(
                "{}: a checkpoint in PyTorch's old format; load and save it again with PyTorch 1.6 or later",
                path.display()
            )))
        }
        _ if options.raw_weights => Err(checkpoint::one_set(&path.display().to_string())),
        _ if path.extension().is_some_and(|ending| ending == "json") => safetensors::open_index(path),
        _ => safetensors::open(path),
    }
}

/// Computes a tensor by its recipe, quantizes it and appends its bytes to `out`.
fn write_tensor(
    source: &mut Source,
    packing: &Packing<'_>,
    recipe: &Recipe,
    out: &mut Vec<u8>,
) -> Result<()> {
    let row_len = packing.row_len;
    let mut pack = |values: &[f32]| {
        let fetch = |rows: Range<usize>, to: &mut Vec<f32>| {
            let rows = values.get(rows.start * row_len..rows.end * row_len);
            extend(to, rows.ok_or_else(|| Error::internal("rows beyond a tensor"))?)
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

/// Elements of a row as [`Source::rows`] counts them: the rows of a vector have one element each.
fn row_len(recipe: &Recipe, source: &Source) -> Result<usize> {
    match recipe {
        Recipe::Constant(values) => Ok(values.len()),
        Recipe::Copy(from) | Recipe::Scale(from, _) => match source.shape(from) {
            Some([_, rest @ ..]) => Ok(rest.iter().product()),
            _ => Err(Error::internal(format!("the shape of tensor '{from}'"))),
        },
    }
}

/// The name that the options give, or the output's file name without its ending and type: `stories` for
/// `stories-q8_0.gguf`.
fn model_name(output: &Path, options: &Options) -> Result<String> {
    if let Some(name) = &options.name {
        return copied(name);
    }
    let stem = output.file_stem().ok_or_else(|| Error::internal("an output without a name"))?;
    let stem = stem.to_string_lossy();
    let ending = format!("-{}", options.tensor_type.name());
    copied(stem.strip_suffix(&ending).unwrap_or(&stem))
}
