//! Where the CPU runner's memory lies in the arena.

use crate::error::Result;
use crate::forward::cpu::kernels::activations::{ActivationBlock, BLOCK};
use crate::forward::cpu::kernels::attention::TILE;
use crate::forward::layout::{CacheLayout, Capacity, Regions};
use crate::memory::Region;
use crate::model::Config;

/// Up to this many rows, each thread computes the input of a product or of a head for itself, in memory of its own:
/// faster than a share of it in an operation before.
pub(super) const MAX_LOCAL_ROWS: usize = 4;

/// The regions of the arena. With D the width, F the MLP's, Q that of queries, K that of keys, H heads of keys of Dh, V the
/// vocabulary, R rows, S slots, B sequences, T threads.
#[derive(Debug, Clone)]
pub(crate) struct CpuLayout {
    /// Keys of each block [KEY_GROUP, Dh, S / KEY_GROUP, H, B]: those of neighbouring slots are interleaved. Values
    /// [Dh, S, H, B].
    pub(crate) cache: CacheLayout,
    /// The residual stream [D, R], and its rows that want logits.
    pub(super) x: Region,
    pub(super) x_out: Region,
    /// A norm of the residual stream [D, R].
    pub(super) h: Region,
    /// Queries [Q, R]; keys and values before they are cached [2K, R]; the output of attention [Q, R].
    pub(super) q: Region,
    pub(super) kv: Region,
    pub(super) attention: Region,
    /// The hidden layer of the MLP [F, R]. In the same memory as attention's.
    pub(super) up: Region,
    /// Logits [V, R]. In the same memory as attention's.
    pub(super) logits: Region,
    /// Cosines and sines of each row's rotation [Dh, R], for all blocks.
    pub(super) rope_table: Region,
    /// Attention scores [TILE, S, T].
    pub(super) scores: Region,
    /// The input of the next product, quantized [max(D, F, Q), R].
    pub(super) activations: Region,
    /// h [D, MAX_LOCAL_ROWS, T] and activations [max(D, F, Q), MAX_LOCAL_ROWS, T] of each thread.
    pub(super) local_h: Region,
    pub(super) local_activations: Region,
    /// T.
    pub(super) threads: usize,
    /// Bytes of all.
    pub(crate) len: usize,
}

impl CpuLayout {
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if it is larger than the address space; [`crate::Error::OutOfMemory`].
    pub(crate) fn new(config: &Config, capacity: &Capacity, threads: usize) -> Result<Self> {
        const F32: usize = size_of::<f32>();
        let (d, f, r) = (config.embedding_length, config.feed_forward_length, capacity.rows);
        let mut regions = Regions::default();
        let cache = CacheLayout::new(config, capacity, &mut regions)?;
        let [x, x_out, h] = [(); 3].map(|()| regions.take(&[d, r], F32));
        // Attention, MLP and output follow one another, so they share this memory.
        let start = regions.next();
        let (query, key) = (config.query_length(), config.kv_length());
        let kv = regions.take(&[2, key, r], F32);
        let [q, attention] = [(); 2].map(|()| regions.take(&[query, r], F32));
        regions.restart(start);
        let up = regions.take(&[f, r], F32);
        regions.restart(start);
        let logits = regions.take(&[config.vocab_size, r], F32);
        regions.skip_to_end();
        let blocks = d.max(f).max(query).div_ceil(BLOCK);
        let rope_table = regions.take(&[config.head_dim(), r], F32);
        let scores = regions.take(&[TILE, capacity.slots, threads], F32);
        let activations = regions.take(&[blocks, r], size_of::<ActivationBlock>());
        let local_h = regions.take(&[d, MAX_LOCAL_ROWS, threads], F32);
        let local_activations =
            regions.take(&[blocks, MAX_LOCAL_ROWS, threads], size_of::<ActivationBlock>());
        let len = regions.finish()?;
        Ok(Self {
            cache,
            x,
            x_out,
            h,
            q,
            kv,
            attention,
            up,
            logits,
            rope_table,
            scores,
            activations,
            local_h,
            local_activations,
            threads,
            len,
        })
    }
}
