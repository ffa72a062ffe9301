//! The types of a model file's tensors. The input is mapped and the output streamed: one packed tensor, and a few
//! rows per thread, are in memory at a time.
//!
//! `policy` says which type each tensor gets and `pack` packs it. `calibrate` finds out what each column of a matrix
//! is worth, `importance` is the file that says so.

mod calibrate;
mod importance;
mod pack;
mod policy;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::atomic_file::{PendingFile, refuse_input_as_output};
use crate::error::{Error, Result};
use crate::forward::count_threads;
use crate::ggml::dequantize;
use crate::gguf::{Gguf, TensorInfo, TensorType, Value, Writer};
use crate::memory::FileBytes;
use crate::model::{Config, select_tensors};

pub use calibrate::{ImatrixOptions, Observation, imatrix, observe_text};
pub(crate) use importance::Importance;
pub(crate) use pack::Packing;
pub use policy::{Policy, QuantConfig, Rule};

/// `general.quantization_version`: the blocks' layout, ggml's `GGML_QNT_VERSION`.
pub(crate) const QUANTIZATION_VERSION: u32 = 2;

/// How far a conversion or quantization is.
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

/// How to quantize a model file.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// Which type each tensor gets.
    pub policy: Policy,
    /// A file of `esolm imatrix`: which columns of which matrix matter most.
    pub importance: Option<PathBuf>,
    /// Threads that pack; 0 takes one per core. The output does not depend on it.
    pub threads: usize,
    /// Replaces an output that exists.
    pub force: bool,
}

impl QuantizeOptions {
    /// The default policy for type `ty`, without importance, on all cores.
    pub fn new(ty: TensorType) -> Self {
        Self { policy: Policy::new(ty), importance: None, threads: 0, force: false }
    }
}

/// What became of a model file.
#[derive(Debug, Clone)]
pub struct QuantizeReport {
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the tensors, before and after.
    pub tensor_bytes: (u64, u64),
    /// Size of the input and of the output.
    pub file_bytes: (u64, u64),
    /// What else a person should know, one sentence each.
    pub notes: Vec<String>,
}

impl QuantizeReport {
    /// Bits per weight in the output, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        self.tensor_bytes.1 as f64 * 8.0 / self.parameters as f64
    }
}

/// Writes the model file `input` to `output` with its matrices in the types that the policy says. Metadata is
/// kept, except for `general.file_type` and `general.quantization_version`. `progress` is called after each
/// tensor.
///
/// Nothing appears under the output's name unless all went well.
///
/// # Errors
/// [`Error::BadFile`] naming the key, tensor or offset that is wrong; [`Error::InvalidArgument`] for a policy
/// that does not fit the model, and an output that exists or is the input; [`Error::Io`].
pub fn quantize(
    input: &Path,
    output: &Path,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport> {
    refuse_input_as_output(input, output)?;
    let threads = count_threads(options.threads)?;
    let pending = PendingFile::create(output, options.force)?;
    let source = FileBytes::map(input)?;
    let file = input.display().to_string();
    let gguf = Gguf::parse(source.bytes(), &file)?;
    let config = Config::from_gguf(&gguf)?;
    let tensors = select_tensors(&gguf, &config)?;
    let (types, mut notes) = options.policy.types(&config)?;
    let importance = match &options.importance {
        Some(path) => {
            refuse_input_as_output(path, output)?;
            Some(Importance::read(path, &config)?)
        }
        None => None,
    };
    notes.extend(requantized(&tensors, &types));
    if let Some(importance) = &importance {
        notes.extend(importance.note(tensors.iter().map(|t| t.name.as_str()).zip(types.iter().copied())));
    }

    let mut writer = Writer::new();
    for (key, value) in gguf.into_metadata() {
        writer.set(&key, value);
    }
    writer.set("general.file_type", Value::U32(options.policy.tensor_type.file_type()));
    writer.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    let mut status = Progress { tensors: 0, total_tensors: tensors.len(), bytes: 0, total_bytes: 0 };
    let (mut parameters, mut bytes_before) = (0, 0);
    for (info, &ty) in tensors.iter().zip(&types) {
        writer.declare(&info.name, ty, &info.dims)?;
        parameters += info.dims.iter().map(|&d| d as u64).product::<u64>();
        bytes_before += info.range.len() as u64;
        status.total_bytes += ty.tensor_bytes(&info.dims).unwrap_or(0) as u64;
    }
    let mut jobs = tensors.iter().zip(&types);
    let mut out = BufWriter::new(pending.file());
    writer.write(&mut out, |name, bytes| {
        let (info, &ty) = jobs.next().ok_or_else(|| Error::internal("a tensor that is not declared"))?;
        let data = source.bytes().get(info.range.clone());
        let data = data.ok_or_else(|| Error::internal(format!("tensor '{name}' is outside its file")))?;
        if info.ty == ty {
            bytes.extend_from_slice(data);
        } else {
            let row_len = info.dims.first().copied().unwrap_or(1);
            let importance = importance.as_ref().and_then(|all| all.columns(name));
            let packing = Packing { file: &file, name, ty, row_len, importance, threads };
            repack(&packing, info.ty, data, bytes)?;
        }
        status.tensors += 1;
        status.bytes += bytes.len() as u64;
        progress(status);
        Ok(())
    })?;
    out.flush().map_err(|e| Error::io(output, e))?;
    drop(out);
    let file_bytes = (source.bytes().len() as u64, pending.commit()?);
    Ok(QuantizeReport { parameters, tensor_bytes: (bytes_before, status.total_bytes), file_bytes, notes })
}

/// Appends the rows in `data`, packed as `from`, to `out`.
fn repack(packing: &Packing<'_>, from: TensorType, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let row_bytes = from.row_bytes(packing.row_len).filter(|&bytes| bytes > 0);
    let row_bytes = row_bytes.ok_or_else(|| Error::internal(format!("rows of '{}'", packing.name)))?;
    let fetch = |rows: std::ops::Range<usize>, values: &mut Vec<f32>| {
        values.resize(rows.len() * packing.row_len, 0.0);
        let rows = data.get(rows.start * row_bytes..rows.end * row_bytes);
        dequantize(from, rows.ok_or_else(|| Error::internal("rows beyond a tensor"))?, values)
    };
    packing.pack(data.len() / row_bytes, fetch, out)
}

/// A sentence about matrices that lose precision a second time.
fn requantized(tensors: &[TensorInfo], types: &[TensorType]) -> Option<String> {
    let twice = |(info, ty): &(&TensorInfo, &TensorType)| info.ty.is_quantized() && info.ty != **ty;
    let mut twice = tensors.iter().zip(types).filter(twice).filter(|(_, ty)| ty.is_quantized());
    let (first, _) = twice.next()?;
    Some(format!(
        "{} matrices were quantized before ('{}' is {}): their errors add up; better begin with f32 or f16",
        twice.count() + 1,
        first.name,
        first.ty.name()
    ))
}
