//! `model.safetensors` with its `config.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::tensor::{Dtype as StoredDtype, Metadata};
use serde_json::Value;

use super::options::WeightSet;
use super::small_file::{read_config, read_small};
use super::source::{Dtype, FoundTokenizer, Source, SourceTensor};
use crate::error::{Error, Result};

/// Largest header that is read, in bytes; a tensor takes about 120, and its text up to twenty times the memory.
const MAX_HEADER: u64 = 2 << 20;

/// Reads the header of a safetensors file, and `config.json` and `tokenizer.json` beside it.
///
/// # Errors
/// [`Error::BadFile`] if the header is damaged or a tensor's type is not f32, f16, bf16 or f64; [`Error::Io`], also if
/// `config.json` is missing.
pub(super) fn open(path: &Path) -> Result<Source> {
    let name = path.display().to_string();
    let bad = |what: String| Error::bad_file(&name, what);
    let io = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(io)?;
    let header_len = u64::from_le_bytes(len);
    if header_len > MAX_HEADER || header_len > file_bytes.saturating_sub(8) {
        return Err(bad(format!(
            "a header of {header_len} bytes in a file of {file_bytes}: not a safetensors file"
        )));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| Error::unreadable(&name, "safetensors header", e))?;
    let data_start = 8 + header_len;
    if metadata.data_len() as u64 != file_bytes - data_start {
        return Err(bad(format!(
            "the header describes {} bytes of tensors, the file has {}",
            metadata.data_len(),
            file_bytes - data_start
        )));
    }
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::Bf16,
            StoredDtype::F64 => Dtype::F64,
            other => {
                return Err(bad(format!(
                    "tensor '{name}' is of type {other:?}; weights are f32, f16, bf16 or f64"
                )));
            }
        };
        let offset = data_start + info.data_offsets.0 as u64;
        tensors.push((name, SourceTensor { dtype, shape: info.shape.clone(), offset }));
    }
    let config_path = path.with_file_name("config.json");
    let config: Value = serde_json::from_slice(&read_config(&config_path)?)
        .map_err(|e| Error::unreadable(config_path.display().to_string(), "JSON", e))?;
    let tokenizer_path = path.with_file_name("tokenizer.json");
    let json = if tokenizer_path.is_file() { Some(read_small(&tokenizer_path)?) } else { None };
    let tokenizer = FoundTokenizer { json, ..FoundTokenizer::default() };
    Source::new(file, path, tensors, config, tokenizer, WeightSet::AsStored)
}
