//! The memory that a context needs, computed before any of it is allocated.

use std::path::Path;

use super::batch::Batch;
use super::cores::count_threads;
use super::cpu::{CpuLayout, CpuRunner};
use super::graph::{GraphLayout, Inputs, Style, build, graph_sizes, most_key};
use super::layout::{Capacity, SLOT_GROUP};
use super::params::{ContextParams, Kernels, MemoryUse};
use crate::error::{Error, Result};
use crate::ggml::{Device, Workspace, WorkspaceSize, alignment, in_host_memory};
use crate::gguf::{Layout, TensorInfo};
use crate::memory::FileBytes;
use crate::model::{Config, LoadOptions, Model, ModelHeader, total_bytes};

/// Rows of a batch unless said otherwise: enough for matrix kernels to run at full speed.
const DEFAULT_BATCH_ROWS: usize = 128;
/// Rows of prompts in a step beside sequences that are being written, and on a device.
const DEFAULT_PROMPT_ROWS: usize = 64;
const DEVICE_PROMPT_ROWS: usize = 512;
/// Rows of a batch on a device, for each sequence, and the limits of it for all.
const DEVICE_ROWS_EACH: usize = 128;
const DEVICE_ROWS: (usize, usize) = (512, 16384);
/// Most slots for masks on a device, where every sequence's take memory.
const DEVICE_MASKS: usize = 256;
/// On a device slots are a multiple of this: where the masks of single rows begin is then a multiple of 256 bytes, which ggml's Vulkan
/// backend may ask for.
const DEVICE_SLOT_GROUP: usize = 128;
/// Most rows: batches are indexed with 32 bits, also by ggml.
const MAX_ROWS: usize = 1 << 24;

/// The limits of a context and the memory that it needs.
pub(crate) struct MemoryPlan {
    pub(crate) capacity: Capacity,
    /// Longest sequence in tokens.
    pub(crate) length: usize,
    pub(crate) prompt_rows: usize,
    pub(crate) threads: usize,
    pub(super) arena: ArenaPlan,
    /// Bytes of the weights.
    weights: usize,
}

/// What the arena holds, which depends on the runner.
pub(super) enum ArenaPlan {
    /// For the library's own CPU kernels.
    Cpu(CpuLayout),
    /// For a ggml graph.
    Graph(Box<GraphLayout>, WorkspaceSize),
}

impl ArenaPlan {
    /// The arena for a graph in this style.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an operation that the device does not have; [`Error::InvalidArgument`];
    /// [`Error::OutOfMemory`].
    pub(super) fn graph(
        config: &Config,
        tensors: &[TensorInfo],
        device: Device,
        capacity: &Capacity,
        threads: usize,
        style: Style,
    ) -> Result<Self> {
        let mut inputs = Inputs::new(capacity, style)?;
        inputs.fill(&Batch::largest(capacity)?, capacity, false);
        let layout = GraphLayout::new(config, capacity, style, alignment(device))?;
        let [ordinary, largest] = graph_sizes(config, capacity, style);
        let size = WorkspaceSize {
            compute: layout.len,
            ordinary,
            largest,
            key: most_key(capacity),
            results: config.vocab_size * capacity.rows,
            ..WorkspaceSize::default()
        };
        let size = Workspace::measure(threads, device, tensors, size, |graph, weights| {
            build(graph, weights, config, capacity, &layout, &inputs)
        })?;
        Ok(Self::Graph(Box::new(layout), size))
    }
}

impl MemoryPlan {
    /// The plan for a model of this shape on `device`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the parameters exceed the model; [`Error::Unsupported`] for an operation that the
    /// device does not have.
    pub(crate) fn new(
        config: &Config,
        tensors: &[TensorInfo],
        device: Device,
        params: &ContextParams,
    ) -> Result<Self> {
        let or = |value: usize, default: usize| if value == 0 { default } else { value };
        let length = or(params.length, ContextParams::default_length(config));
        if length > config.context_length {
            let longest = config.context_length;
            return Err(Error::invalid(format!("length {length}; the model's context is {longest} tokens")));
        }
        let sequences = or(params.sequences, 1);
        if sequences > 1 << 16 {
            return Err(Error::invalid(format!("{sequences} sequences; at most {}", 1 << 16)));
        }
        let on_host = in_host_memory(device);
        let default_rows = if on_host {
            DEFAULT_BATCH_ROWS
        } else {
            sequences.saturating_mul(DEVICE_ROWS_EACH).clamp(DEVICE_ROWS.0, DEVICE_ROWS.1)
        };
        let rows = or(params.batch_rows, default_rows);
        // More slots than the text needs: scoring puts masks behind it, up to half of a batch's rows.
        let masks = (rows / 2).min(length).max(1);
        let masks = if on_host { masks } else { masks.min(DEVICE_MASKS) };
        let group = if on_host { SLOT_GROUP } else { DEVICE_SLOT_GROUP };
        let slots = (length.next_multiple_of(SLOT_GROUP) + masks.next_multiple_of(SLOT_GROUP))
            .next_multiple_of(group);
        let rows = rows.min(sequences.saturating_mul(slots)).min(MAX_ROWS);
        // Bidirectional attention needs all rows of a sequence in one batch.
        // Those of a block, too.
        let rows = match config.variant.keeps_cache() {
            true => rows.max(config.block_length.next_multiple_of(SLOT_GROUP)),
            false => rows.max(slots),
        };
        let prompt_rows = if on_host { DEFAULT_PROMPT_ROWS } else { DEVICE_PROMPT_ROWS };
        let prompt_rows = or(params.prompt_rows, prompt_rows);
        let threads = count_threads(params.threads)?;
        let capacity = Capacity { sequences, slots, rows, kv: params.kv_type };
        let own = params.kernels == Kernels::Own && on_host && CpuRunner::supports(config);
        let scaled = params.kv_type.tensor_type().block_len();
        if params.kv_type.has_scales() && !(own && config.head_dim().is_multiple_of(scaled)) {
            let what = "a K/V cache in q8_0 needs the library's own CPU kernels and heads whose width is a multiple of 32; \
                        choose f16 (kv_type, --kv-type f16)";
            return Err(Error::Unsupported(what.into()));
        }
        let arena = match own {
            true => ArenaPlan::Cpu(CpuLayout::new(config, &capacity, threads)?),
            false => Self::measure_graph(config, tensors, device, &capacity, threads)?,
        };
        let copy = if own || !on_host { 0 } else { copy_in_plain_rows(tensors) };
        Ok(Self {
            capacity,
            length,
            prompt_rows,
            threads,
            arena,
            weights: total_bytes(tensors).saturating_add(copy),
        })
    }

    /// The graph: with attention in one operation on the CPU, and on a device where keys and values are in half precision
    /// and the device has it.
    fn measure_graph(
        config: &Config,
        tensors: &[TensorInfo],
        device: Device,
        capacity: &Capacity,
        threads: usize,
    ) -> Result<ArenaPlan> {
        let measure = |style| ArenaPlan::graph(config, tensors, device, capacity, threads, style);
        if in_host_memory(device) {
            return measure(Style::HOST);
        }
        if !Style::wants_flash(capacity) {
            return measure(Style::device(false));
        }
        measure(Style::device(true)).or_else(|error| match error {
            Error::Unsupported(_) => measure(Style::device(false)),
            error => Err(error),
        })
    }

    /// As [`MemoryPlan::new`], for a model that is open.
    pub(crate) fn for_model(model: &Model, params: &ContextParams) -> Result<Self> {
        Self::new(model.config(), model.tensors(), model.weights().device(), params)
    }

    /// As [`MemoryPlan::new`], for a model file of which only the header is read.
    ///
    /// # Errors
    /// As [`Model::open`] and [`MemoryPlan::new`].
    pub(crate) fn for_file(path: &Path, options: &LoadOptions<'_>, params: &ContextParams) -> Result<Self> {
        let device = Device::find(&options.device)?;
        let file = FileBytes::map(path)?;
        let ModelHeader { config, mut tensors, .. } =
            ModelHeader::read(file.bytes(), &path.display().to_string(), options.mask_token)?;
        for tensor in &mut tensors {
            tensor.layout = options.layout(tensor, &config, device);
            let len = tensor.len_in(tensor.layout).unwrap_or(tensor.range.len());
            tensor.range.end = tensor.range.start + len;
        }
        Self::new(&config, &tensors, device, params)
    }

    /// Where the memory goes.
    pub(crate) fn memory_use(&self) -> MemoryUse {
        let (arena, kv_cache, compute) = match &self.arena {
            ArenaPlan::Cpu(layout) => (layout.len, layout.cache.len, layout.len - layout.cache.len),
            ArenaPlan::Graph(layout, size) => {
                (size.arena(), layout.cache.len, layout.len - layout.cache.len + size.work)
            }
        };
        MemoryUse { weights: self.weights, arena, kv_cache, compute }
    }
}

/// Bytes of the copy that ggml takes of tensors of which some lie in panels (`Weights::in_plain_rows`).
fn copy_in_plain_rows(tensors: &[TensorInfo]) -> usize {
    if tensors.iter().all(|tensor| tensor.layout == Layout::Plain) {
        return 0;
    }
    let lens = tensors.iter().map(|tensor| tensor.len_in(Layout::Plain).unwrap_or(tensor.range.len()));
    lens.fold(0, usize::saturating_add)
}
