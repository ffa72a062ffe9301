//! What a context computes with: threads, memory, and one of the two ways through the network.

use crate::config::Config;
use crate::context::{CancelToken, ContextParams, Kernels, MemoryUse};
use crate::cpu::{self, Slots};
use crate::error::{Error, Result};
use crate::forward::{self, Pass};
use crate::ggml::{Backend, Device, Memory, Workspace, WorkspaceSize, count_threads, in_host_memory};
use crate::gguf::TensorInfo;
use crate::kv_cache::{Capacity, Layout, SLOT_GROUP};
use crate::model::{Model, total_bytes};
use crate::profile::Profile;

/// Rows of a pass unless said otherwise: enough for matrix kernels to run at full speed.
const DEFAULT_PASS_ROWS: usize = 128;

/// The part that computes: model, threads, memory.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) model: Model,
    pub(crate) capacity: Capacity,
    /// Longest sequence. The slots behind it are for the masks of `score`.
    pub(crate) length: usize,
    compute: Compute,
    pub(crate) cancel: CancelToken,
}

/// Threads and memory of one of the two ways through the network.
#[derive(Debug)]
enum Compute {
    /// A loop of this library's own.
    Cpu(cpu::Engine),
    /// A graph that a backend of ggml runs.
    Graph { backend: Backend, workspace: Workspace, layout: Layout },
}

/// What a context of some parameters will be, before its memory is taken.
pub(crate) struct Plan {
    pub(crate) capacity: Capacity,
    pub(crate) length: usize,
    pub(crate) threads: usize,
    layout: Layout,
    size: Size,
    weights: usize,
}

/// How much memory the two ways need.
enum Size {
    Cpu(usize),
    Graph(WorkspaceSize),
}

impl Plan {
    /// # Errors
    /// [`Error::InvalidArgument`] if the parameters exceed the model; [`Error::Unsupported`] for a variant that the device
    /// or the kernels do not run.
    pub(crate) fn new(
        config: &Config,
        tensors: &[TensorInfo],
        device: Device,
        params: &ContextParams,
    ) -> Result<Self> {
        let or = |value: usize, default: usize| if value == 0 { default } else { value };
        let length = or(params.length, config.context_length);
        if length > config.context_length {
            let longest = config.context_length;
            return Err(Error::invalid(format!("length {length}; the model's context is {longest} tokens")));
        }
        let sequences = or(params.sequences, 1);
        if sequences > 1 << 16 {
            return Err(Error::invalid(format!("{sequences} sequences; at most {}", 1 << 16)));
        }
        let rows = or(params.pass_rows, DEFAULT_PASS_ROWS);
        // More than the text: `score` has masks besides, half of the rows of its passes.
        let masks = (rows / 2).min(length).max(1);
        let slots = length.next_multiple_of(SLOT_GROUP) + masks.next_multiple_of(SLOT_GROUP);
        let rows = rows.min(sequences.saturating_mul(slots));
        let causal = config.variant.is_causal();
        // Rows that see each other both ways go through the network together, a whole sequence at a time.
        let rows = if causal { rows } else { rows.max(slots) };
        let threads = count_threads(params.threads)?;
        let capacity = Capacity { sequences, slots, rows, kv: params.kv_type };
        let own = params.kernels == Kernels::Own && in_host_memory(device) && cpu::Engine::supports(config);
        if !(own || causal) {
            let variant = config.variant.name();
            return Err(Error::Unsupported(format!(
                "variant '{variant}' on this device with these kernels: it runs on the CPU with esolm's own"
            )));
        }
        let layout = Layout::new(config, &capacity, !own)?;
        let size = if own {
            Size::Cpu(cpu::Engine::memory(&layout, config, &capacity, threads)?)
        } else {
            let most = forward::most_tensors(config, sequences.min(rows));
            Size::Graph(Workspace::measure(
                threads,
                device,
                tensors,
                (layout.len, most, config.vocab_size * rows),
                |graph, weights| {
                    let pass = Pass::largest(&capacity);
                    forward::build(graph, weights, config, &capacity, &layout, &pass)
                },
            )?)
        };
        Ok(Self { capacity, length, threads, layout, size, weights: total_bytes(tensors) })
    }

    /// As [`Plan::new`], for a model that is open.
    pub(crate) fn for_model(model: &Model, params: &ContextParams) -> Result<Self> {
        Self::new(model.config(), model.tensors(), model.weights().device(), params)
    }

    pub(crate) fn memory_use(&self) -> MemoryUse {
        let kv_cache = self.layout.cache_len;
        let (arena, beside) = match self.size {
            Size::Cpu(arena) => (arena, arena - self.layout.len),
            Size::Graph(size) => (size.arena(), size.work),
        };
        MemoryUse { weights: self.weights, arena, kv_cache, compute: self.layout.len - kv_cache + beside }
    }

    /// Takes the memory and starts the threads.
    pub(crate) fn start(self, model: &Model, arena: impl FnOnce(usize) -> Result<Memory>) -> Result<Engine> {
        let Self { capacity, length, threads, layout, size, .. } = self;
        let compute = match size {
            Size::Cpu(len) => {
                let config = model.config();
                Compute::Cpu(cpu::Engine::new(layout, config, &capacity, threads, arena(len)?)?)
            }
            Size::Graph(size) => {
                let workspace = Workspace::new(size, arena(size.arena())?, model.weights())?;
                let backend = Backend::new(model.weights().device(), threads)?;
                Compute::Graph { backend, workspace, layout }
            }
        };
        Ok(Engine { model: model.clone(), capacity, length, compute, cancel: CancelToken::default() })
    }
}

/// The logits of a pass, row by row of the vocabulary's length, one row per output; and who may go on with them.
pub(crate) struct Output<'a> {
    pub(crate) logits: &'a [f32],
    pool: Option<&'a mut cpu::Pool>,
}

impl Output<'_> {
    /// Has `work` done on every item, by all threads if they are this library's. Each has a state of its own, of
    /// which there must be one per thread.
    pub(crate) fn for_each<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        work: impl Fn(&[f32], &mut S, &mut T) + Sync,
    ) -> Result<()> {
        let logits = self.logits;
        match (&mut self.pool, states) {
            (Some(pool), states) if items.len() > 1 => {
                pool.for_each(states, items, |s, t| work(logits, s, t))
            }
            (_, [state, ..]) => {
                items.iter_mut().for_each(|item| work(logits, state, item));
                Ok(())
            }
            _ => Err(Error::internal("no memory to work in")),
        }
    }
}

impl Engine {
    /// Runs one pass.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Device`]. The cache's slots of the pass are then undefined, all others
    /// untouched.
    pub(crate) fn run(&mut self, pass: &Pass) -> Result<Output<'_>> {
        let Self { model, capacity, compute, cancel, .. } = self;
        check(model, capacity, pass)?;
        match compute {
            Compute::Cpu(engine) => {
                let (logits, pool) =
                    engine.run(model.weights(), model.config(), capacity, pass, &cancel.0)?;
                Ok(Output { logits, pool: Some(pool) })
            }
            Compute::Graph { backend, workspace, layout } => {
                let logits = workspace.run(backend, &cancel.0, |graph, weights| {
                    forward::build(graph, weights, model.config(), capacity, layout, pass)
                })?;
                Ok(Output { logits, pool: None })
            }
        }
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        match &self.compute {
            Compute::Cpu(engine) => engine.threads(),
            Compute::Graph { backend, .. } => backend.threads(),
        }
    }

    /// Where the time of the passes went since the last clearing, if this library's own kernels ran them.
    pub(crate) fn profile(&self) -> Option<Profile> {
        match &self.compute {
            Compute::Cpu(engine) => Some(engine.profile()),
            Compute::Graph { .. } => None,
        }
    }

    pub(crate) fn clear_profile(&self) {
        if let Compute::Cpu(engine) = &self.compute {
            engine.clear_profile();
        }
    }

    /// Masks of `score` that go through at once: half of the rows, since each one's token does too, and as many as have
    /// slots.
    pub(crate) fn scored_at_once(&self) -> usize {
        (self.capacity.rows / 2).min(self.capacity.slots - self.length)
    }

    /// Whether a row's view is free, not only causal.
    pub(crate) fn sees_any_slots(&self) -> bool {
        matches!(self.compute, Compute::Cpu(_))
    }

    /// Whether keys and values can be had from this device.
    pub(crate) fn can_save_cache(&self) -> bool {
        matches!(self.compute, Compute::Cpu(_))
    }

    /// Adds the keys and values of `slots` to `out`, if they can be had.
    pub(crate) fn save_cache(&self, slots: Slots, out: &mut Vec<u8>) -> Result<()> {
        match &self.compute {
            Compute::Cpu(engine) => engine.save(self.model.config(), &self.capacity, slots, out),
            Compute::Graph { .. } => Ok(()),
        }
    }

    /// Puts keys and values of `slots` back. False if this device cannot take them.
    pub(crate) fn load_cache(&mut self, slots: Slots, bytes: &[u8]) -> Result<bool> {
        match &mut self.compute {
            Compute::Cpu(engine) => {
                engine.load(self.model.config(), &self.capacity, slots, bytes).map(|()| true)
            }
            Compute::Graph { .. } => Ok(false),
        }
    }

    /// Forgets the cache, after a failure that may have left numbers in it that are not finite.
    pub(crate) fn clear(&mut self) {
        match &mut self.compute {
            // Nothing is read here that the same generation has not written.
            Compute::Cpu(_) => (),
            Compute::Graph { workspace, .. } => workspace.clear(),
        }
    }
}

/// What neither way would forgive: indices outside the vocabulary, the cache or the pass.
fn check(model: &Model, capacity: &Capacity, pass: &Pass) -> Result<()> {
    let below = |values: &[i32], limit: usize| values.iter().all(|&v| v >= 0 && (v as usize) < limit);
    let rows = pass.tokens.len();
    let config = model.config();
    let sizes = rows > 0
        && rows <= capacity.rows
        && pass.positions.len() == rows
        && pass.sees.len() == rows
        && pass.and_itself.len() == rows
        && pass.outputs.len() == pass.output_positions.len()
        && pass.segments.iter().map(|s| s.rows).sum::<usize>() == rows;
    let indices = below(&pass.tokens, config.vocab_size)
        && below(&pass.positions, config.context_length)
        && below(&pass.output_positions, config.context_length)
        && below(&pass.outputs, rows);
    let segments = pass.segments.iter().all(|s| {
        s.sequence < capacity.sequences
            && s.rows > 0
            && s.first_slot + s.rows <= capacity.slots
            && s.outputs <= s.rows
            && pass
                .sees
                .get(s.first_row..s.first_row + s.rows)
                .is_some_and(|sees| sees.iter().all(|&n| n as usize <= s.first_slot + s.rows))
    });
    match sizes && indices && segments {
        true => Ok(()),
        false => Err(Error::internal("a pass outside the context's limits")),
    }
}
