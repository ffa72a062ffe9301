//! What a model file says about itself: hyperparameters, tensors and metadata, checked before a weight is read.

use std::collections::HashMap;

use super::config::{BLOCK_TENSORS, Config, TensorSpec};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, TensorType, Value};

/// The header of a model file.
pub(crate) struct ModelHeader {
    pub(crate) config: Config,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(super) metadata: Vec<(String, Value)>,
}

impl ModelHeader {
    /// Reads and checks everything but the weights themselves.
    pub(crate) fn read(bytes: &[u8], file: &str) -> Result<Self> {
        let gguf = Gguf::parse(bytes, file)?;
        let config = Config::from_gguf(&gguf)?;
        let tensors = select_tensors(&gguf, &config)?;
        Ok(Self { config, tensors, metadata: gguf.into_metadata() })
    }
}

/// Bytes of these tensors.
pub(crate) fn total_bytes(tensors: &[TensorInfo]) -> usize {
    tensors.iter().map(|t| t.range.len()).sum()
}

/// The file's tensors in the order of [`Config::tensors`]: exactly those, of these shapes, and of types that
/// the forward pass can use.
pub(crate) fn select_tensors(gguf: &Gguf, config: &Config) -> Result<Vec<TensorInfo>> {
    let bad = |what: String| Error::bad_file(gguf.file(), what);
    let by_name: HashMap<&str, &TensorInfo> = gguf.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    // Compare counts before making the list: a hostile block count must not make a long one.
    let expected = config.block_count * BLOCK_TENSORS.len() + 5;
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
        Ok(info.clone())
    };
    config.tensors().into_iter().map(select).collect()
}
