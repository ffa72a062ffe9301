//! Constants of the format that reader and writer share.

use super::value::Value;

/// The file's first four bytes.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// The only version that is read and written.
pub(super) const VERSION: u32 = 3;
/// Longest tensor name that ggml keeps, in bytes (its `GGML_MAX_NAME` less the terminator).
pub(super) const MAX_TENSOR_NAME: usize = 63;
/// Most dimensions of a tensor.
pub(crate) const MAX_DIMS: usize = 4;

/// Key of the data alignment, and its value when the key is absent.
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment that is accepted: a huge one could push every offset out of range.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// The alignment of tensor data, in bytes, that this metadata asks for.
///
/// # Errors
/// What is wrong with the key's value.
pub(super) fn alignment(metadata: &[(String, Value)]) -> Result<u64, String> {
    let Some((_, value)) = metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match *value {
        Value::U32(a) if a.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&a.into()) => Ok(a.into()),
        _ => Err(format!("key '{ALIGNMENT_KEY}' is {value}, not a power of two from 8 to {MAX_ALIGNMENT}")),
    }
}
