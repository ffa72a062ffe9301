//! A model file's header: hyperparameters, tensor descriptions and metadata, checked before any weight is read.

use std::collections::HashMap;

use super::config::{Config, EMBEDDING, TensorSpec};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Layout, TensorInfo, TensorType, Value};
use crate::memory::{no_room, with_room};

/// The checked header of a model file.
pub(crate) struct ModelHeader {
    pub(crate) config: Config,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(super) metadata: Vec<(String, Value)>,
}

impl ModelHeader {
    /// Reads and checks everything but the weights. `mask` is the mask token of a model whose file does not say it.
    ///
    /// # Errors
    /// [`Error::BadFile`] naming the key, tensor or offset.
    pub(crate) fn read(bytes: &[u8], file: &str, mask: Option<u32>) -> Result<Self> {
        let gguf = Gguf::parse(bytes, file)?;
        let config = Config::from_gguf_with_mask(&gguf, mask)?;
        let tensors = select_tensors(&gguf, &config)?;
        Ok(Self { config, tensors, metadata: gguf.into_metadata() })
    }
}

/// Size of these tensors in bytes.
pub(crate) fn total_bytes(tensors: &[TensorInfo]) -> usize {
    tensors.iter().map(|t| t.range.len()).sum()
}

/// The file's tensors, in the order of [`Config::tensors`].
///
/// # Errors
/// [`Error::BadFile`] if they are not exactly those, or one has another shape or a type that the forward pass cannot use.
pub(crate) fn select_tensors(gguf: &Gguf, config: &Config) -> Result<Vec<TensorInfo>> {
    let bad = |what: String| Error::bad_file(gguf.file(), what);
    let mut by_name: HashMap<&str, &TensorInfo> = HashMap::new();
    by_name.try_reserve(gguf.tensors().len()).map_err(|_| no_room(size_of_val(gguf.tensors())))?;
    by_name.extend(gguf.tensors().iter().map(|info| (info.name.as_str(), info)));
    // Compare the counts before listing the tensors: a hostile block count must not allocate a long list.
    let expected = config.tensor_count();
    if gguf.tensors().len() != expected {
        let found = gguf.tensors().len();
        return Err(bad(format!("{found} tensors; a model of {} blocks has {expected}", config.block_count)));
    }
    let select = |spec: TensorSpec| {
        let name = &spec.name;
        let info = *by_name.get(name.as_str()).ok_or_else(|| bad(format!("tensor '{name}' is missing")))?;
        if info.dims != spec.dims {
            return Err(bad(format!("tensor '{name}' has the shape {:?}, not {:?}", info.dims, spec.dims)));
        }
        if spec.dims.len() == 1 && info.ty != TensorType::F32 {
            return Err(bad(format!("tensor '{name}' is {}; norms and biases must be f32", info.ty.name())));
        }
        info.copied()
    };
    let mut tensors = with_room(expected)?;
    for spec in config.tensor_specs() {
        tensors.push(select(spec?)?);
    }
    Ok(tensors)
}

/// How the rows of a tensor lie in a file of that layout: only quantized matrices that are multiplied lie in panels. (Rows of
/// the embedding are looked up, and multiplied only if it is the output matrix, too: if it is `tied`.)
pub(crate) fn layout_of(name: &str, ty: TensorType, dims: &[usize], tied: bool, file: Layout) -> Layout {
    let is_multiplied = ty.is_quantized() && dims.len() == 2 && (tied || name != EMBEDDING);
    if is_multiplied { file } else { Layout::Plain }
}
