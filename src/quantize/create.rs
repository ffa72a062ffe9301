//! Model files whose weights a function makes, a few rows at a time: so that a large one takes no memory for it.

use std::ops::Range;

use super::options::{FileOrPath, QuantizeOptions, QuantizeReport};
use super::pack::Packing;
use super::write::{OutputTensor, Progress, set_type_keys, write_model};
use crate::atomic_file::PendingFile;
use crate::error::{Error, Result};
use crate::forward::count_threads;
use crate::gguf::Writer;
use crate::memory::{collected, copied, try_collected};
use crate::model::{Config, TensorSpec};
use crate::simd::DefaultFloats;

/// Writes a model with these hyperparameters to `output`, whose matrices have the types that the policy decides. `values`
/// appends the values of a range of a tensor's rows to a vector (a vector is one row); it is called from several threads.
/// `progress` is called after each tensor.
///
/// # Errors
/// [`Error::InvalidArgument`] for hyperparameters or a policy that do not fit, and for an output that exists;
/// [`Error::Internal`] if there are other values than rows; [`Error::Io`].
pub fn create_model(
    config: &Config,
    output: FileOrPath<'_>,
    options: &QuantizeOptions,
    values: impl Fn(&TensorSpec, Range<usize>, &mut Vec<f32>) + Sync,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport> {
    let _floats = DefaultFloats::set();
    config.validate().map_err(Error::InvalidArgument)?;
    let name = output.name();
    let threads = count_threads(options.threads)?;
    let (types, notes) = options.policy.types(config, &[])?;
    let pending = match output {
        FileOrPath::Path(output) => PendingFile::create(output, options.force)?,
        FileOrPath::File(file) => PendingFile::of_open(file, name)?,
    };
    let mut writer = Writer::new();
    config.write(&mut writer)?;
    if config.llama_architecture().is_some() {
        // As llama.cpp has a file without a vocabulary.
        writer.set_text("tokenizer.ggml.model", "no_vocab");
    }
    if let Some(ty) = options.policy.tensor_type {
        set_type_keys(&mut writer, ty);
    }
    let tensors = try_collected(config.tensors()?.into_iter().zip(types).map(|(spec, ty)| {
        let (name, dims) = (copied(&spec.name)?, collected(spec.dims.iter().copied())?);
        Ok::<_, Error>(OutputTensor { name, ty, dims, source: spec })
    }))?;
    let file = name.display().to_string();
    let pack = |tensor: &OutputTensor<TensorSpec>, bytes: &mut Vec<u8>| {
        let row_len = tensor.dims.first().copied().unwrap_or(1);
        let rows = tensor.dims.iter().skip(1).product::<usize>();
        let (name, ty) = (tensor.name.as_str(), tensor.ty);
        let packing = Packing { file: &file, name, ty, row_len, importance: None, threads };
        let fetch = |rows: Range<usize>, to: &mut Vec<f32>| {
            let expected = rows.len() * row_len;
            values(&tensor.source, rows, to);
            match to.len() == expected {
                true => Ok(()),
                false => Err(Error::internal(format!("{} values of '{name}', not {expected}", to.len()))),
            }
        };
        packing.pack(rows, fetch, bytes)
    };
    let written = write_model(writer, tensors, options.layout, (pending, name), pack, progress)?;
    Ok(QuantizeReport {
        parameters: written.parameters,
        tensor_bytes: (written.tensor_bytes, written.tensor_bytes),
        file_bytes: (written.file_bytes, written.file_bytes),
        notes,
    })
}
