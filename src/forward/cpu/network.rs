//! What every thread has of one run of the network: the batch, the weights, and the memory that the threads share.

use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::cpu::kernels::activations::ActivationBlock;
use crate::forward::cpu::kernels::cache::{CacheElement, SCALED};
use crate::forward::cpu::kernels::isa::Platform;
use crate::forward::cpu::kernels::weights::Matrix;
use crate::forward::cpu::layout::CpuLayout;
use crate::forward::cpu::threads::clock::Clock;
use crate::forward::cpu::threads::shared::Shared;
use crate::forward::layout::{CacheLayout, Capacity};
use crate::forward::tensors::{Block, NetworkTensors};
use crate::ggml::Weights;
use crate::gguf::TensorInfo;
use crate::memory::{Arena, Region};
use crate::model::Config;

/// One run of the network, as every thread has it. Shapes are those of [`CpuLayout`], with R the rows of the batch.
///
/// Why its shared memory is free of data races: the network is a sequence of operations, each of which begins when the one
/// before has ended for all threads ([`Crew::share`]), and an operation splits what it writes into items, each of which
/// is in the piece of one thread. So what an earlier operation wrote may be read, and what a thread's own piece covers may
/// be written. Memory named `local` has a share for each thread's number, which one thread has in an operation.
pub(super) struct Network<'a> {
    bytes: &'a [u8],
    pub(super) tensors: NetworkTensors<'a, TensorInfo>,
    pub(super) config: &'a Config,
    pub(super) capacity: &'a Capacity,
    pub(super) batch: &'a Batch,
    pub(super) layout: &'a CpuLayout,
    arena: &'a Arena,
    pub(super) x: Shared<'a, f32>,
    pub(super) x_out: Shared<'a, f32>,
    pub(super) h: Shared<'a, f32>,
    pub(super) q: Shared<'a, f32>,
    pub(super) kv: Shared<'a, f32>,
    pub(super) attention: Shared<'a, f32>,
    pub(super) up: Shared<'a, f32>,
    pub(super) logits: Shared<'a, f32>,
    pub(super) rope_table: Shared<'a, f32>,
    pub(super) scores: Shared<'a, f32>,
    pub(super) activations: Shared<'a, ActivationBlock>,
    pub(super) local_h: Shared<'a, f32>,
    pub(super) local_activations: Shared<'a, ActivationBlock>,
    /// The instructions for products and attention.
    pub(super) platform: Platform,
    pub(super) clock: &'a Clock,
}

/// The context's part of a [`Network`].
pub(super) struct Memory<'a> {
    pub(super) layout: &'a CpuLayout,
    /// Used by the network alone, for 'a.
    pub(super) arena: &'a mut Arena,
    pub(super) platform: Platform,
    pub(super) clock: &'a Clock,
}

impl<'a> Network<'a> {
    pub(super) fn new(
        weights: &'a Weights,
        config: &'a Config,
        capacity: &'a Capacity,
        batch: &'a Batch,
        Memory { layout, arena, platform, clock }: Memory<'a>,
    ) -> Result<Self> {
        let arena: &Arena = arena;
        let floats = |region| part::<f32>(arena, region);
        Ok(Self {
            bytes: weights.host_bytes().ok_or_else(|| Error::internal("the weights are not in memory"))?,
            tensors: NetworkTensors::new(weights.tensors(), &config.architecture)?,
            config,
            capacity,
            batch,
            layout,
            arena,
            x: floats(layout.x)?,
            x_out: floats(layout.x_out)?,
            h: floats(layout.h)?,
            q: floats(layout.q)?,
            kv: floats(layout.kv)?,
            attention: floats(layout.attention)?,
            up: floats(layout.up)?,
            logits: floats(layout.logits)?,
            rope_table: floats(layout.rope_table)?,
            scores: floats(layout.scores)?,
            activations: part(arena, layout.activations)?,
            local_h: floats(layout.local_h)?,
            local_activations: part(arena, layout.local_activations)?,
            platform,
            clock,
        })
    }

    /// The weights of a tensor.
    pub(super) fn matrix(&self, tensor: &TensorInfo) -> Result<Matrix<'a>> {
        Matrix::new(self.bytes, tensor)
            .ok_or_else(|| Error::internal(format!("tensor '{}' is not in memory", tensor.name)))
    }

    /// The weights of a block.
    pub(super) fn block(&self, number: usize) -> Result<Block<Matrix<'a>>> {
        self.tensors.block(number, |tensor| self.matrix(tensor))
    }

    /// The keys and values of a block in the cache.
    pub(super) fn block_cache<T: CacheElement + Number>(&self, number: usize) -> Result<BlockCache<'a, T>> {
        let CacheLayout { keys, values, .. } = &self.layout.cache;
        let (Some(&keys), Some(&values)) = (keys.get(number), values.get(number)) else {
            return Err(Error::internal(format!("block {number} has no cache")));
        };
        Ok(BlockCache { keys: self.cache_part(keys)?, values: self.cache_part(values)? })
    }

    fn cache_part<T: CacheElement + Number>(&self, region: Region) -> Result<CachePart<'a, T>> {
        let [numbers, scales] = split_scales(region, T::HAS_SCALES);
        Ok(CachePart { numbers: part(self.arena, numbers)?, scales: part(self.arena, scales)? })
    }
}

/// The keys and values of a block in the cache; see [`CpuLayout`] for their shapes.
#[derive(Clone, Copy)]
pub(super) struct BlockCache<'a, T> {
    pub(super) keys: CachePart<'a, T>,
    pub(super) values: CachePart<'a, T>,
}

/// Keys or values: the numbers, and their scales if they have any.
#[derive(Clone, Copy)]
pub(super) struct CachePart<'a, T> {
    pub(super) numbers: Shared<'a, T>,
    pub(super) scales: Shared<'a, half::f16>,
}

/// The numbers of a region of the cache, and the scales behind them; without scales, all are numbers.
pub(super) fn split_scales(region: Region, has_scales: bool) -> [Region; 2] {
    let Region { offset, len } = region;
    let numbers = if has_scales { len / (SCALED + size_of::<half::f16>()) * SCALED } else { len };
    [Region { offset, len: numbers }, Region { offset: offset + numbers, len: len - numbers }]
}

/// Rows of a piece where a row is little work: pieces for every thread even of two rows, and few pieces of many.
pub(super) fn rows_per_piece(rows: usize) -> usize {
    rows.div_ceil(16).max(1)
}

/// A region of the arena.
pub(super) fn part<T: Number>(arena: &Arena, region: Region) -> Result<Shared<'_, T>> {
    let start = arena.part(region.offset, region.len)?.cast::<T>();
    // SAFETY: the arena is initialised, which any `Number` may be made of, regions are aligned, and only the network
    // uses it. (Regions that share memory are used at different times, as the layout says.)
    Ok(unsafe { Shared::new(start, region.len / size_of::<T>()) })
}

/// Types that any initialised bytes are a value of.
pub(super) trait Number {}
impl Number for f32 {}
impl Number for half::f16 {}
impl Number for i8 {}
impl Number for ActivationBlock {}
