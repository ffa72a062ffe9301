//! The readers of bytes that are not trusted, for the targets of `fuzz/`: from memory, so that an execution takes
//! microseconds. Only `--cfg fuzzing` builds it.

pub use crate::convert::fuzzing::{Shapes, Storages, safetensors, zip};
use crate::error::{Error, Result};
use crate::model::{Config, ModelHeader, parse_tokenizer};
use crate::quantize::Importance;

/// The header of a model file.
pub fn model_header(bytes: &[u8]) -> Result<()> {
    ModelHeader::read(bytes, "model.gguf", None).map(|_| ())
}

/// An importance matrix, for a model with these hyperparameters.
pub fn importance(bytes: &[u8], config: &Config) -> Result<()> {
    Importance::parse(bytes, "imatrix.gguf", config).map(|_| ())
}

/// A `tokenizer.json`.
pub fn tokenizer(json: &str) -> Result<()> {
    parse_tokenizer(json).map(|_| ()).map_err(|cause| Error::tokenizer(cause.to_string()))
}
