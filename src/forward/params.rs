//! The parameters of a context: its limits, kernels and threads; and its memory use.

use super::layout::KvType;
use crate::model::Config;

/// The limits of a context. A zero stands for the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextParams {
    /// Most sequences generated side by side (default 1).
    pub sequences: usize,
    /// Longest sequence in tokens (default: the model's context length, at most 4096; maximum: the model's).
    pub length: usize,
    /// Most rows (tokens) of a batch, which is what one run of the network is fed (default 128). A step of more rows
    /// takes several batches, with the same result; smaller batches need less memory. A text is scored in one batch if
    /// this is twice its number of tokens.
    pub batch_rows: usize,
    /// Most rows of prompts that a step feeds for sequences that [join](crate::Context::add_sequence), so that a long prompt does
    /// not delay the others: it takes several steps, with the same result (default 64, on devices 512; chunked prefill). While
    /// no sequence is being written, as at the beginning of a generation, a step feeds as many as `batch_rows`, if that is more,
    /// so that a caller hears of the reading and can end it. BD3-LM feeds whole blocks, Eso-LM (A) and MDLM feed prompts whole.
    pub prompt_rows: usize,
    /// CPU threads (default: one per core that the process may use, on Linux and Android of the fast kind if there are several; in
    /// a pool, as many as that has). Fewer can take part later: [`Context::set_threads`](crate::Context::set_threads).
    pub threads: usize,
    /// Precision of the K/V cache.
    pub kv_type: KvType,
    /// Which CPU kernels to use.
    pub kernels: Kernels,
}

impl ContextParams {
    /// The longest default of [`ContextParams::length`]: the cache of a longer sequence is large.
    pub const DEFAULT_LENGTH: usize = 4096;

    /// What a [`ContextParams::length`] of 0 stands for with a model.
    pub fn default_length(config: &Config) -> usize {
        config.context_length.min(Self::DEFAULT_LENGTH)
    }
}

/// Which CPU kernels to use. (Other devices always use ggml's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// This library's kernels, made for small batches over a long cache. (A model whose widths are not multiples of 8
    /// runs on ggml's all the same.)
    #[default]
    Own,
    /// ggml's. They do not check whether keys and values fit in an f16 cache (see [`KvType::F16`]).
    Ggml,
}

/// Where memory goes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The model's weights: in the mapped file, in memory of their own or on the device. Contexts share them. Where ggml's
    /// kernels run on the CPU and matrices lie in panels, a copy of all in plain rows is counted, too.
    pub weights: usize,
    /// The arena: all host memory of the context. On the CPU, `kv_cache` and `compute` are in it.
    pub arena: usize,
    /// The K/V cache.
    pub kv_cache: usize,
    /// Activations, logits and the working memory of operations.
    pub compute: usize,
}
