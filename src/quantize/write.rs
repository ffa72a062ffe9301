//! Writing a model file: what `convert` and `quantize` have in common.

use std::path::Path;

use super::blocks::BlockWriter;
use crate::atomic_file::PendingFile;
use crate::error::{Error, Result};
use crate::gguf::{Layout, TensorType, Value, Writer, convert};
use crate::model::{OUTPUT, layout_of};

/// `general.quantization_version`: the layout of the blocks, ggml's `GGML_QNT_VERSION`.
const QUANTIZATION_VERSION: u32 = 2;

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

/// A tensor to write. `source` is what its bytes are made from.
pub(crate) struct OutputTensor<S> {
    pub(crate) name: String,
    pub(crate) ty: TensorType,
    /// Shape, fastest dimension first.
    pub(crate) dims: Vec<usize>,
    pub(crate) source: S,
}

/// What was written.
pub(crate) struct Written {
    /// Number of weights.
    pub(crate) parameters: u64,
    /// Bytes of the tensors.
    pub(crate) tensor_bytes: u64,
    /// Size of the file.
    pub(crate) file_bytes: u64,
}

/// Sets the metadata keys that describe the tensors' types. `file` is the type of most of them.
pub(crate) fn set_type_keys(writer: &mut Writer, file: TensorType) {
    writer.set("general.file_type", Value::U32(file.file_type()));
    writer.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
}

/// Writes a file with the metadata of `writer` and these tensors, in this order and layout, and renames it to `output`, for which
/// `pending` was created. `pack` appends a tensor's rows to a vector; `progress` is called after each tensor.
///
/// # Errors
/// What `pack` returns; [`Error::InvalidArgument`] for a tensor that GGUF cannot hold; [`Error::Io`].
pub(crate) fn write_model<S>(
    mut writer: Writer,
    tensors: Vec<OutputTensor<S>>,
    layout: Layout,
    (pending, output): (PendingFile, &Path),
    mut pack: impl FnMut(&OutputTensor<S>, &mut Vec<u8>) -> Result<()>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Written> {
    let mut parameters = 0;
    let tied = !tensors.iter().any(|tensor| tensor.name == OUTPUT);
    for tensor in &tensors {
        let layout = layout_of(&tensor.name, tensor.ty, &tensor.dims, tied, layout);
        writer.declare_in(&tensor.name, tensor.ty, layout, &tensor.dims)?;
        parameters += tensor.dims.iter().map(|&dim| dim as u64).product::<u64>();
    }
    writer.set_file_name(output.display().to_string());
    let tensor_bytes = writer.tensor_bytes();
    let mut done = Progress { tensors: 0, total_tensors: tensors.len(), bytes: 0, total_bytes: tensor_bytes };
    let mut next = tensors.iter();
    let mut rows = Vec::new();
    writer.write(&mut BlockWriter::new(pending.file())?, |name, bytes| {
        let tensor = next.next().filter(|tensor| tensor.name == name);
        let tensor = tensor.ok_or_else(|| Error::internal(format!("tensor '{name}' is out of order")))?;
        match layout_of(name, tensor.ty, &tensor.dims, tied, layout) {
            Layout::Plain => pack(tensor, bytes)?,
            Layout::Panels => {
                rows.clear();
                pack(tensor, &mut rows)?;
                *bytes = convert(tensor.ty, &tensor.dims, &rows, Layout::Panels)?;
            }
        }
        done.tensors += 1;
        done.bytes += bytes.len() as u64;
        progress(done);
        Ok(())
    })?;
    Ok(Written { parameters, tensor_bytes, file_bytes: pending.commit()? })
}
