//! The memory of one context, divided once.

use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;

use super::backend::Backend;
use super::buffer::{Buffer, in_host_memory};
use super::device::Device;
use super::graph::{Graph, Tensor, TensorTable};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::gguf::TensorInfo;
use crate::memory::{ALIGNMENT, Arena, Region};

/// Sizes of a workspace's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkspaceSize {
    /// Bytes to compute in: caches, activations, results.
    pub(crate) compute: usize,
    /// Maximum number of tensors of a graph.
    pub(crate) tensors: usize,
    /// Bytes of scratch memory for ggml's CPU operations.
    pub(crate) work: usize,
    /// Floats that are copied back from a device that is not the CPU.
    pub(crate) results: usize,
    /// Number of weights.
    weights: usize,
    on_host: bool,
}

/// Offsets of a workspace's parts in the arena.
struct Division {
    weights: usize,
    graph: usize,
    work: usize,
    staging: usize,
    end: usize,
}

impl WorkspaceSize {
    /// Bytes of host memory: the arena's size. On the CPU it holds everything; for another device the caches
    /// and activations are on the device.
    pub(crate) fn arena(&self) -> usize {
        self.divide().end
    }

    fn divide(&self) -> Division {
        let mut end = 0;
        let mut part = |len: usize| {
            let start = end;
            end = (start + len).next_multiple_of(ALIGNMENT);
            start
        };
        // The computing memory comes first: its offset is zero in the arena as in a device's buffer.
        part(if self.on_host { self.compute } else { 0 });
        let weights = part(TensorTable::size(self.weights, false));
        let graph = part(TensorTable::size(self.tensors, true));
        let work = part(self.work);
        let staging = part(if self.on_host { 0 } else { self.results * size_of::<f32>() });
        Division { weights, graph, work, staging, end }
    }
}

/// A context's memory: the arena, its parts, and descriptions of the weights for its graphs. Each context has its own
/// descriptions, since ggml writes into them.
#[derive(Debug)]
pub(crate) struct Workspace {
    // Before `arena`, whose memory they lie in, so that they are dropped first.
    weights: Vec<Tensor<'static>>,
    _weights_table: TensorTable,
    graph: TensorTable,
    buffer: Buffer,
    size: WorkspaceSize,
    arena: Arena,
}

// SAFETY: the weights' handles point into `_weights_table`, which moves with them.
unsafe impl Send for Workspace {}

impl Workspace {
    /// What a workspace needs on `device` to run the largest graph that `build` makes for weights like `tensors`,
    /// with `threads` of the CPU. `compute` bytes are computed in, a graph has at most `tensors` tensors, and a
    /// result at most `results` floats. Nothing is computed and no memory of that size is taken.
    pub(crate) fn measure(
        threads: usize,
        device: Device,
        weights: &[TensorInfo],
        (compute, tensors, results): (usize, usize, usize),
        build: impl for<'g> FnOnce(&mut Graph<'g>, &[Tensor<'g>]) -> Result<Option<Tensor<'g>>>,
    ) -> Result<WorkspaceSize> {
        let count = weights.len();
        let mut table = TensorTable::allocate(count)?;
        let handles = weights.iter().map(|t| table.add(t, None)).collect::<Result<Vec<_>>>()?;
        let mut graph_table = TensorTable::allocate(tensors)?;
        let mut graph = graph_table.graph(None, tensors)?;
        build(&mut graph, &handles)?;
        graph.check_support(device)?;
        let on_host = in_host_memory(device);
        let work = if on_host { super::backend::work_size(&graph, threads) } else { 0 };
        Ok(WorkspaceSize { compute, tensors, work, results, weights: count, on_host })
    }

    /// Divides `arena`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if the arena is; [`Error::OutOfMemory`].
    pub(crate) fn new(size: WorkspaceSize, arena: Arena, weights: &Weights) -> Result<Self> {
        let parts = size.divide();
        if arena.len() < parts.end {
            return Err(Error::BufferTooSmall { given: arena.len(), needed: parts.end });
        }
        let mut buffer = match size.on_host {
            // SAFETY: the arena is dropped after the buffer, and this part belongs to the buffer alone.
            true => unsafe { Buffer::wrap(arena.part(0, size.compute)?, size.compute)? },
            false => Buffer::allocate(weights.device(), size.compute)?,
        };
        if !size.on_host {
            // Cache slots beyond a sequence's end are multiplied by zero, so they must be finite. The arena
            // is zero already.
            buffer.clear();
        }
        let table_at = |start, len, count| {
            // SAFETY: the arena is dropped after the table, and this part belongs to the table alone.
            unsafe { TensorTable::within(arena.part(start, len)?, len, count) }
        };
        let mut weights_table =
            table_at(parts.weights, TensorTable::size(size.weights, false), size.weights)?;
        let handles = weights
            .tensors()
            .iter()
            .zip(weights.placed())
            .map(|(info, &placed)| weights_table.add_alias(info, placed))
            .collect::<Result<Vec<_>>>()?;
        let graph = table_at(parts.graph, TensorTable::size(size.tensors, true), size.tensors)?;
        Ok(Self { weights: handles, _weights_table: weights_table, graph, buffer, size, arena })
    }

    /// The address of a part of the computing memory, on the device.
    pub(super) fn device_address(&self, region: Region) -> Result<NonNull<u8>> {
        let end = region.offset.checked_add(region.len);
        if end.is_none_or(|end| end > self.buffer.len()) {
            return Err(Error::internal("a part outside the computing memory"));
        }
        // SAFETY: the part lies in the buffer.
        let start = unsafe { self.buffer.base().add(region.offset) };
        NonNull::new(start).ok_or_else(|| Error::internal("a buffer without an address"))
    }

    /// Zeroes the caches, activations and results.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Builds a graph with `build`, computes it on `backend`, and returns the numbers of the tensor that
    /// `build` names (none: an empty slice). The library itself
    /// allocates nothing; on the CPU `ggml_graph_compute` makes and frees an empty ggml context each time.
    ///
    /// # Errors
    /// What `build` returns; [`Error::Cancelled`] when `cancel` is set; [`Error::Device`].
    pub(crate) fn run(
        &mut self,
        backend: &mut Backend,
        cancel: &AtomicBool,
        build: impl for<'g> FnOnce(&mut Graph<'g>, &[Tensor<'g>]) -> Result<Option<Tensor<'g>>>,
    ) -> Result<&[f32]> {
        let parts = self.size.divide();
        let work = (self.arena.part(parts.work, self.size.work)?, self.size.work);
        let staging = match self.size.on_host {
            true => 0,
            false => self.size.results,
        };
        let staged: NonNull<f32> = self.arena.part(parts.staging, staging * size_of::<f32>())?.cast();
        let mut graph = self.graph.graph(Some(&self.buffer), self.size.tensors)?;
        let result = build(&mut graph, &self.weights)?;
        if !self.size.on_host {
            graph.forbid_replay();
        }
        backend.compute(&graph, work, cancel)?;
        // SAFETY: the staging part holds that many floats, is aligned, and is used here alone.
        let staging = unsafe { std::slice::from_raw_parts_mut(staged.as_ptr(), staging) };
        match result {
            Some(result) => graph.read(result, staging),
            None => Ok(&[]),
        }
    }
}
