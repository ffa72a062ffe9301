//! Quantizing: the types of a GGUF's tensors. The input is mapped and the output streamed, so that one quantized tensor,
//! and a few rows per thread, are in memory at a time.
//!
//! `policy` decides the type of each tensor, `pack` quantizes it, `write` writes the file. `calibrate` computes an
//! importance matrix, `importance` is its file.

mod blocks;
mod calibrate;
mod create;
mod importance;
mod options;
mod pack;
mod policy;
mod write;

use std::ops::Range;
use std::path::Path;

use crate::atomic_file::{PendingFile, refuse_input_as_output};
use crate::error::{Error, Result};
use crate::forward::count_threads;
use crate::ggml::dequantize;
use crate::gguf::{Gguf, Layout, TensorInfo, TensorType, Value, Writer};
use crate::memory::{FileBytes, FilePart, collected, copied, extend, try_collected};
use crate::model::{Config, select_tensors};
use crate::simd::DefaultFloats;

pub use calibrate::{ImatrixOptions, Observation, imatrix, observe_text};
pub use create::create_model;
pub(crate) use importance::Importance;
pub use options::{FileOrPath, QuantizeOptions, QuantizeReport};
pub(crate) use pack::Packing;
pub use policy::{Policy, QuantConfig, Rule};
pub use write::Progress;
pub(crate) use write::{OutputTensor, set_type_keys, write_model};

/// Writes the model file `input` to `output` with its matrices in the types that the policy decides. Metadata is copied,
/// except for `general.file_type` and `general.quantization_version`. `progress` is called after each tensor.
///
/// `output` appears, or is replaced, only if everything succeeded.
///
/// # Errors
/// [`Error::BadFile`] naming the key, tensor or offset that is wrong; [`Error::InvalidArgument`] for a policy that does
/// not fit the model, and for an output that exists or is an input; [`Error::Io`].
pub fn quantize(
    input: &Path,
    output: &Path,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport> {
    quantize_file(FileOrPath::Path(input), FileOrPath::Path(output), options, progress)
}

/// As [`quantize`], where input and output may be files that are open, and have no names. Such an output is written from
/// its current position on.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_file(
    input: FileOrPath<'_>,
    output: FileOrPath<'_>,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport> {
    let _floats = DefaultFloats::set();
    let (input_name, output_name) = (input.name(), output.name());
    if let (FileOrPath::Path(input), FileOrPath::Path(output)) = (input, output) {
        refuse_input_as_output(input, output)?;
    }
    let threads = count_threads(options.threads)?;
    let pending = match output {
        FileOrPath::Path(output) => PendingFile::create(output, options.force)?,
        FileOrPath::File(file) => PendingFile::of_open(file, output_name)?,
    };
    let source = match input {
        FileOrPath::Path(input) => FileBytes::map(input)?,
        FileOrPath::File(file) => FileBytes::map_part(&FilePart::of(file, 0, None)?)?,
    };
    let file = input_name.display().to_string();
    let gguf = Gguf::parse(source.bytes(), &file)?;
    let mut config = Config::from_gguf_with_mask(&gguf, options.mask_token)?;
    config.defaults = options.defaults.or(config.defaults);
    config.validate().map_err(Error::InvalidArgument)?;
    let tensors = select_tensors(&gguf, &config)?;
    let stored = collected(tensors.iter().map(|info| info.ty))?;
    let (types, mut notes) = options.policy.types(&config, &stored)?;
    let importance = match &options.importance {
        Some(path) => {
            if let FileOrPath::Path(output) = output {
                refuse_input_as_output(path, output)?;
            }
            Some(Importance::read(path, &config)?)
        }
        None => None,
    };
    notes.extend(requantized(&tensors, &types));
    if let Some(importance) = &importance {
        let packed = tensors.iter().map(|t| t.name.as_str()).zip(types.iter().copied());
        notes.extend(importance.note(packed, config.architecture.tied_output));
    }

    let mut writer = Writer::new();
    for (key, value) in gguf.into_metadata() {
        writer.set(&key, value);
    }
    if options.mask_token.is_some() {
        writer.set("tokenizer.ggml.mask_token_id", Value::U32(config.mask_token_id));
    }
    config.defaults.write(&mut writer);
    // Of tensors that stay as they are, the input says what they are.
    if let Some(ty) = options.policy.tensor_type {
        set_type_keys(&mut writer, ty);
    }
    let bytes_before = tensors.iter().map(|info| info.range.len() as u64).sum();
    let tensors = try_collected(tensors.into_iter().zip(types).map(|(info, ty)| {
        let (name, dims) = (copied(&info.name)?, collected(info.dims.iter().copied())?);
        Ok::<_, Error>(OutputTensor { name, ty, dims, source: info })
    }))?;
    let pack = |tensor: &OutputTensor<TensorInfo>, bytes: &mut Vec<u8>| {
        let (info, ty) = (&tensor.source, tensor.ty);
        let data = &*info.in_layout(source.bytes(), Layout::Plain)?;
        if info.ty == ty {
            return extend(bytes, data);
        }
        let name = info.name.as_str();
        let importance = importance.as_ref().and_then(|all| all.columns(name));
        let packing = Packing { file: &file, name, ty, row_len: info.row_len()?, importance, threads };
        repack(&packing, info.ty, data, bytes)
    };
    let written = write_model(writer, tensors, options.layout, (pending, output_name), pack, progress)?;
    Ok(QuantizeReport {
        parameters: written.parameters,
        tensor_bytes: (bytes_before, written.tensor_bytes),
        file_bytes: (source.bytes().len() as u64, written.file_bytes),
        notes,
    })
}

/// Appends the rows in `data`, which are of type `from`, to `out`.
fn repack(packing: &Packing<'_>, from: TensorType, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let row_bytes = from.row_bytes(packing.row_len).filter(|&bytes| bytes > 0);
    let row_bytes = row_bytes.ok_or_else(|| Error::internal(format!("rows of '{}'", packing.name)))?;
    let fetch = |rows: Range<usize>, values: &mut Vec<f32>| {
        values.resize(rows.len() * packing.row_len, 0.0);
        let rows = data.get(rows.start * row_bytes..rows.end * row_bytes);
        dequantize(from, rows.ok_or_else(|| Error::internal("rows beyond a tensor"))?, values)
    };
    packing.pack(data.len() / row_bytes, fetch, out)
}

/// A note about matrices that are quantized a second time.
fn requantized(tensors: &[TensorInfo], types: &[TensorType]) -> Option<String> {
    let twice = |(info, ty): &(&TensorInfo, &TensorType)| info.ty.is_quantized() && info.ty != **ty;
    let mut twice = tensors.iter().zip(types).filter(twice).filter(|(_, ty)| ty.is_quantized());
    let (first, _) = twice.next()?;
    Some(format!(
        "{} matrices were quantized before ('{}' is {}): their errors add up; better start from f32 or f16",
        twice.count() + 1,
        first.name,
        first.ty.name()
    ))
}
