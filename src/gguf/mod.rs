//! GGUF version 3: a bounded reader for untrusted bytes and a writer.
//!
//! A file is a header (metadata and tensor descriptions) followed by the tensors' data. The reader works on
//! any byte slice (a mapped file, a caller's memory) and never allocates more than a small multiple of the
//! bytes that are really there, whatever the counts in the file say.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod reader;
mod tensor_type;
mod value;
mod writer;

pub use reader::{Gguf, TensorInfo};
pub use tensor_type::TensorType;
pub use value::Value;
pub use writer::Writer;

/// `GGUF` as the file's first four bytes.
const MAGIC: [u8; 4] = *b"GGUF";
/// The one version that is read and written.
const VERSION: u32 = 3;
/// Key of the data alignment, and its value when the key is absent.
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Longest tensor name that ggml keeps (its `GGML_MAX_NAME` less the terminator).
const MAX_TENSOR_NAME: usize = 63;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 4;
