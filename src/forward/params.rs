//! What a context is made for: its limits, its kernels and its threads.

use super::layout::KvType;
use crate::error::{Error, Result};
use crate::ggml::MAX_THREADS;

/// The limits of a context. A zero stands for the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextParams {
    /// Most sequences generated side by side (default 1).
    pub sequences: usize,
    /// Longest sequence in tokens (default and maximum: the model's context length).
    pub length: usize,
    /// Most rows that go through the network at once (default 128). A step of more rows takes several passes,
    /// with the same result; fewer rows need less memory. A text is scored in an order in one pass if this is twice
    /// its tokens.
    pub batch_rows: usize,
    /// CPU threads (default: one per core).
    pub threads: usize,
    /// Precision of the K/V cache.
    pub kv_type: KvType,
    /// Who computes on the CPU.
    pub kernels: Kernels,
}

/// Who computes on the CPU. (Other devices are always ggml's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// This library's kernels, made for few rows over a long cache. (A model whose widths are no multiples of
    /// 8 is ggml's all the same.)
    #[default]
    Own,
    /// ggml's. They do not look for keys and values that an f16 cache cannot hold (see [`KvType::F16`]).
    Ggml,
}

/// Where memory goes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The model's weights, in the mapped file, in memory of their own or on the device; contexts share them.
    pub weights: usize,
    /// The arena: all host memory of the context. On the CPU the other two are in it.
    pub arena: usize,
    /// The K/V cache.
    pub kv_cache: usize,
    /// Activations, logits and the working memory of operations.
    pub compute: usize,
}

/// The number of threads for `threads` as a caller gives it: one per core for 0.
///
/// # Errors
/// [`Error::InvalidArgument`] for more than [`MAX_THREADS`].
pub(crate) fn count_threads(threads: usize) -> Result<usize> {
    match threads {
        0 => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)),
        1..=MAX_THREADS => Ok(threads),
        _ => Err(Error::invalid(format!("{threads} threads; at most {MAX_THREADS}"))),
    }
}
