//! The memory of one context, divided once, and the graphs that were built in it.

use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;

use super::backend::Backend;
use super::buffer::{Buffer, in_host_memory};
use super::device::Device;
use super::graph::{CompleteGraph, Graph, GraphSize};
use super::table::{Tensor, TensorTable, put};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::gguf::TensorInfo;
use crate::memory::{ALIGNMENT, Arena, Region, try_collected, with_room};

/// Graphs of ordinary size that are kept, so that steps find theirs.
const KEPT_GRAPHS: usize = 6;

/// Which graph a run takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GraphShape<'s> {
    /// Graphs of equal keys are equal but for their input.
    pub(crate) key: &'s [u32],
    /// What it may take.
    pub(crate) size: GraphSize,
    /// Whether ggml may replay it as a whole (CUDA graphs).
    pub(crate) replays: bool,
}

/// Sizes of a workspace's parts. [`Workspace::measure`] completes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WorkspaceSize {
    /// Bytes to compute in: caches, activations, results.
    pub(crate) compute: usize,
    /// An ordinary graph, of which some are kept, and the largest.
    pub(crate) ordinary: GraphSize,
    pub(crate) largest: GraphSize,
    /// Most numbers in a graph's key.
    pub(crate) key: usize,
    /// Floats that are copied back from a device that is not the CPU.
    pub(crate) results: usize,
    /// Bytes of scratch memory for ggml's CPU operations.
    pub(crate) work: usize,
    /// Number of weights, and whether the device computes in host memory.
    pub(crate) weights: usize,
    pub(crate) on_host: bool,
}

/// Offsets of a workspace's parts in the arena.
struct Division {
    weights: usize,
    graphs: usize,
    work: usize,
    staging: usize,
    end: usize,
}

impl WorkspaceSize {
    /// The sizes of the graphs that are kept: the largest last.
    fn graphs(&self) -> impl Iterator<Item = GraphSize> {
        let ordinary = if self.ordinary.holds(&self.largest) { self.largest } else { self.ordinary };
        std::iter::repeat_n(ordinary, KEPT_GRAPHS).chain((ordinary != self.largest).then_some(self.largest))
    }

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
        let weights = part(TensorTable::size(self.weights + 1, (0, 0)));
        let graphs = part(self.graphs().map(|graph| graph.table_bytes().next_multiple_of(ALIGNMENT)).sum());
        let work = part(self.work);
        let staging = part(if self.on_host { 0 } else { self.results * size_of::<f32>() });
        Division { weights, graphs, work, staging, end }
    }
}

/// A place for a graph, and the graph that was built there last.
#[derive(Debug)]
struct GraphSlot {
    graph: CompleteGraph,
    table: TensorTable,
    size: GraphSize,
    /// Empty if there is none.
    key: Vec<u32>,
    /// The number of the run that used it last.
    used: u64,
}

/// How often something was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) runs: u64,
    /// Graphs that were built.
    pub(crate) builds: u64,
    /// Copies of inputs to the computing memory, and of results from it.
    pub(crate) uploads: u64,
    pub(crate) downloads: u64,
}

/// A context's memory: the computing buffer with caches and activations, and the arena on the host.
#[derive(Debug)]
pub(crate) struct Workspace {
    // Before `arena`, whose memory they lie in, so that they are dropped first.
    graphs: Vec<GraphSlot>,
    weights: Vec<Tensor<'static>>,
    /// All of the computing memory, as bytes.
    bytes: Tensor<'static>,
    _weights_table: TensorTable,
    buffer: Buffer,
    device: Device,
    size: WorkspaceSize,
    pub(super) counts: Counts,
    arena: Arena,
}

// SAFETY: the handles point into tables that move with them, and `&mut self` guards every change.
unsafe impl Send for Workspace {}

impl Workspace {
    /// Completes `size`, whose sizes of graphs and computing memory are given, for `device` and the largest graph, which
    /// `build` makes for weights like `weights`. Nothing is computed and no memory of that size is taken.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an operation that the device does not have; [`Error::OutOfMemory`] for one of larger
    /// tensors than it takes; what `build` returns.
    pub(crate) fn measure(
        threads: usize,
        device: Device,
        weights: &[TensorInfo],
        size: WorkspaceSize,
        build: impl for<'g> FnOnce(&mut Graph<'g>, &[Tensor<'g>]) -> Result<Option<Tensor<'g>>>,
    ) -> Result<WorkspaceSize> {
        let largest = size.largest;
        let mut table = TensorTable::allocate(weights.len(), (0, 0))?;
        let handles = try_collected(weights.iter().map(|t| table.add(t, None)))?;
        let mut graph_table = TensorTable::allocate(largest.tensors, (largest.parts, largest.part_tensors))?;
        let mut complete = CompleteGraph::with_room(largest.parts)?;
        let mut graph = Graph::new(&mut graph_table, &mut complete, None, largest)?;
        let result = build(&mut graph, &handles)?;
        graph.finish(result);
        let on_host = in_host_memory(device);
        // What is larger than the device will find no memory. Until then it can be described.
        if on_host || size.compute <= device.memory_total() {
            complete.check_support(device)?;
        }
        let work = if on_host { super::backend::work_size(&complete, threads) } else { 0 };
        Ok(WorkspaceSize { work, weights: weights.len(), on_host, ..size })
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
        let count = size.weights + 1;
        let mut weights_table = table_at(parts.weights, TensorTable::size(count, (0, 0)), count)?;
        let placed = weights.tensors().iter().zip(weights.placed());
        let handles = try_collected(placed.map(|(info, &placed)| weights_table.add_alias(info, placed)))?;
        weights_table.take()?;
        // SAFETY: the table has room, and no computing memory has more bytes than an i64 can count.
        let bytes = Tensor::new(unsafe {
            ggml_sys::ggml_new_tensor_1d(weights_table.ctx(), ggml_sys::GGML_TYPE_I8, size.compute as i64)
        })?;
        put(bytes, &buffer, 0, buffer.len())?;
        let mut graphs = with_room(size.graphs().count())?;
        let mut start = parts.graphs;
        for of_graph in size.graphs() {
            let table = table_at(start, of_graph.table_bytes(), of_graph.tensors)?;
            start = (start + of_graph.table_bytes()).next_multiple_of(ALIGNMENT);
            let graph = CompleteGraph::with_room(of_graph.parts)?;
            graphs.push(GraphSlot { graph, table, size: of_graph, key: with_room(size.key)?, used: 0 });
        }
        let counts = Counts::default();
        Ok(Self {
            graphs,
            weights: handles,
            bytes,
            _weights_table: weights_table,
            buffer,
            device: weights.device(),
            size,
            counts,
            arena,
        })
    }

    /// The address of a part of the computing memory, on the device.
    pub(super) fn device_address(&self, region: Region) -> Result<NonNull<u8>> {
        self.check(region.offset, region.len)?;
        // SAFETY: the part lies in the buffer.
        let start = unsafe { self.buffer.base().add(region.offset) };
        NonNull::new(start).ok_or_else(|| Error::internal("a buffer without an address"))
    }

    /// Where the model's last tensor, the output's bias, is on the device.
    pub(super) fn output_bias(&self, vocab: usize) -> Result<NonNull<f32>> {
        let bias = self.weights.last().filter(|bias| bias.is_f32() && bias.dims()[0] == vocab);
        let address = bias.and_then(|bias| NonNull::new(bias.get().data.cast()));
        address.ok_or_else(|| Error::internal("an output without a bias"))
    }

    fn check(&self, offset: usize, len: usize) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size.compute => Ok(()),
            _ => Err(Error::internal("a part outside the computing memory")),
        }
    }

    /// Copies bytes from `offset` on of the computing memory to `to`.
    pub(crate) fn read_bytes(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        self.check(offset, to.len())?;
        // SAFETY: the bytes are there, and no graph runs.
        unsafe {
            ggml_sys::ggml_backend_tensor_get(self.bytes.as_ptr(), to.as_mut_ptr().cast(), offset, to.len());
        }
        Ok(())
    }

    /// Copies `from` to the computing memory from `offset` on.
    pub(crate) fn write_bytes(&mut self, offset: usize, from: &[u8]) -> Result<()> {
        self.check(offset, from.len())?;
        // SAFETY: the bytes are there, and no graph runs.
        unsafe {
            ggml_sys::ggml_backend_tensor_set(self.bytes.as_ptr(), from.as_ptr().cast(), offset, from.len());
        }
        Ok(())
    }

    /// Zeroes the caches, activations and results.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Computes the graph of `shape` with `input` on `backend`, after building it with `build` unless it is there, and
    /// returns the numbers of the tensor that `build` named (none: an empty slice). A graph that is there takes no
    /// allocation; on the CPU `ggml_graph_compute` makes and frees an empty ggml context each time.
    ///
    /// # Errors
    /// What `build` returns; [`Error::Unsupported`] for an operation that the device does not have; [`Error::Cancelled`] when
    /// `cancel` is set; [`Error::Device`].
    pub(crate) fn run(
        &mut self,
        backend: &mut Backend,
        cancel: &AtomicBool,
        shape: GraphShape<'_>,
        input: &[i32],
        wants_result: bool,
        build: impl for<'g> FnOnce(&mut Graph<'g>, &[Tensor<'g>]) -> Result<Option<Tensor<'g>>>,
    ) -> Result<&[f32]> {
        self.counts.runs += 1;
        let slot = self.slot(shape, build)?;
        let parts = self.size.divide();
        let work = (self.arena.part(parts.work, self.size.work)?, self.size.work);
        let Some(GraphSlot { graph, .. }) = self.graphs.get(slot) else {
            return Err(Error::internal("a graph without a place"));
        };
        if !self.size.on_host && !shape.replays {
            graph.forbid_replay(self.counts.runs);
        }
        if let Some(tensor) = graph.input {
            backend.upload(tensor, input)?;
            self.counts.uploads += 1;
        }
        backend.compute(graph, work, cancel)?;
        match graph.result {
            Some(result) if wants_result => self.result(result, parts.staging),
            _ => Ok(&[]),
        }
    }

    /// The number of the place where the graph of `shape` is, after building it there with `build` if it is not yet.
    fn slot(
        &mut self,
        shape: GraphShape<'_>,
        build: impl for<'g> FnOnce(&mut Graph<'g>, &[Tensor<'g>]) -> Result<Option<Tensor<'g>>>,
    ) -> Result<usize> {
        let run = self.counts.runs;
        let mut places = self.graphs.iter().enumerate();
        let found = places.clone().find(|(_, slot)| !slot.key.is_empty() && slot.key == shape.key);
        let oldest = || {
            let fits = places.by_ref().filter(|(_, slot)| slot.size.holds(&shape.size));
            // The place of the largest is for what fits nowhere else.
            fits.min_by_key(|&(number, slot)| (number >= KEPT_GRAPHS, slot.used))
        };
        let is_new = found.is_none();
        let place = found.or_else(oldest).map(|(number, _)| number);
        let too_large = || Error::internal("a graph larger than the largest");
        let number = place.ok_or_else(too_large)?;
        let slot = self.graphs.get_mut(number).ok_or_else(too_large)?;
        slot.used = run;
        if is_new {
            slot.key.clear();
            let GraphSlot { graph: complete, table, key, .. } = slot;
            let mut graph = Graph::new(table, complete, Some(&self.buffer), shape.size)?;
            let result = build(&mut graph, &self.weights)?;
            graph.finish(result);
            if !self.size.on_host {
                complete.check_support(self.device)?;
            }
            if shape.key.len() <= key.capacity() {
                key.extend_from_slice(shape.key);
            }
            self.counts.builds += 1;
        }
        Ok(number)
    }

    /// The numbers of `result`, contiguous f32 of a computed graph: in place if they are in host memory, otherwise copied.
    fn result(&mut self, result: NonNull<ggml_sys::ggml_tensor>, staging: usize) -> Result<&[f32]> {
        // SAFETY: the graph's tensors live as long as its table.
        let (len, ty, data) = unsafe {
            let all = ggml_sys::ggml_nelements(result.as_ptr());
            (all as usize, (*result.as_ptr()).type_, (*result.as_ptr()).data)
        };
        if ty != ggml_sys::GGML_TYPE_F32 {
            return Err(Error::internal("only f32 results are read"));
        }
        if self.buffer.is_host() {
            // SAFETY: the tensor has len floats in the workspace's memory, which is borrowed for the result and is
            // written by no one until the next graph.
            return Ok(unsafe { std::slice::from_raw_parts(data.cast::<f32>(), len) });
        }
        if len > self.size.results {
            return Err(Error::internal("the staging memory is too small"));
        }
        let bytes = len * size_of::<f32>();
        let staged: NonNull<f32> = self.arena.part(staging, bytes)?.cast();
        self.counts.downloads += 1;
        // SAFETY: the staging part holds that many floats, is aligned, and is used here alone.
        unsafe {
            ggml_sys::ggml_backend_tensor_get(result.as_ptr(), staged.as_ptr().cast(), 0, bytes);
            Ok(std::slice::from_raw_parts(staged.as_ptr(), len))
        }
    }

    /// What was done so far.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}
