//! GGUF version 3: a bounds-checked reader for untrusted bytes, and a writer.
//!
//! A file is a header (metadata and tensor descriptions) followed by the tensors' data. The reader works on
//! any byte slice (a mapped file, a caller's memory). Whatever the counts in the file say, it never allocates more
//! than a small multiple of the file's actual size.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod format;
mod panels;
mod reader;
mod tensor;
mod tensor_type;
mod value;
mod writer;

pub(crate) use format::MAX_DIMS;
pub use panels::Layout;
#[cfg(any(test, feature = "convert"))]
pub(crate) use panels::convert;
pub(crate) use panels::{PANEL_ROWS, copy_block};
pub use reader::Gguf;
pub use tensor::TensorInfo;
pub use tensor_type::TensorType;
pub(crate) use value::Quoted;
pub use value::{Array, Value};
pub use writer::Writer;
