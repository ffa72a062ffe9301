//! A batch of tokens to logits: the network, on the library's own CPU kernels or as a graph on a ggml backend.
//!
//! [`Batch`] is what the network is fed, [`layout`] what lies where in memory, [`MemoryPlan`] how much of it there
//! will be. [`cpu`] runs the network with own kernels, [`graph`] describes it to ggml.

mod batch;
mod cancel;
mod cpu;
mod graph;
mod layout;
mod memory_plan;
mod params;
mod profile;

use crate::error::{Error, Result};
use crate::ggml::{Backend, Workspace};
use crate::memory::Arena;
use crate::model::Model;
use cpu::{CpuRunner, Pool};
use layout::Layout;
use memory_plan::ArenaSize;

pub(crate) use batch::{Batch, Row, Segment};
pub use cancel::CancelToken;
pub use layout::KvType;
pub(crate) use layout::{Capacity, Slots};
pub(crate) use memory_plan::MemoryPlan;
pub(crate) use params::count_threads;
pub use params::{ContextParams, Kernels, MemoryUse};
pub use profile::Profile;

/// A model with the memory and threads to run it.
#[derive(Debug)]
pub(crate) struct ModelRunner {
    pub(crate) model: Model,
    pub(crate) capacity: Capacity,
    /// Longest sequence. The slots behind it are for the masks of `score`.
    pub(crate) length: usize,
    compute: Compute,
    pub(crate) cancel: CancelToken,
}

/// The two implementations of the forward pass, with their threads and memory.
#[derive(Debug)]
enum Compute {
    /// The library's own CPU kernels.
    Cpu(CpuRunner),
    /// A graph on one of ggml's backends.
    Graph { backend: Backend, workspace: Workspace, layout: Layout },
}

/// The logits of a batch, [V] for each row that wants some, and the threads to sample from them.
pub(crate) struct Logits<'a> {
    pub(crate) rows: &'a [f32],
    pool: Option<&'a mut Pool>,
}

impl Logits<'_> {
    /// Calls `work` on every item, on all threads if they are this library's own. Each thread uses one of `states`,
    /// of which there must be one per thread.
    pub(crate) fn for_each<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        work: impl Fn(&[f32], &mut S, &mut T) + Sync,
    ) -> Result<()> {
        let logits = self.rows;
        match (&mut self.pool, states) {
            (Some(pool), states) if items.len() > 1 => {
                pool.for_each(states, items, |s, t| work(logits, s, t))
            }
            (_, [state, ..]) => {
                items.iter_mut().for_each(|item| work(logits, state, item));
                Ok(())
            }
            _ => Err(Error::internal("no sampling state")),
        }
    }
}

impl ModelRunner {
    /// Takes the memory that `plan` says from `arena` and starts the threads.
    ///
    /// # Errors
    /// What `arena` returns; [`Error::BufferTooSmall`]; [`Error::OutOfMemory`]; [`Error::Device`].
    pub(crate) fn new(
        plan: MemoryPlan,
        model: &Model,
        arena: impl FnOnce(usize) -> Result<Arena>,
    ) -> Result<Self> {
        let MemoryPlan { capacity, length, threads, layout, .. } = plan;
        let compute = match plan.arena {
            ArenaSize::Cpu(len) => {
                Compute::Cpu(CpuRunner::new(layout, model.config(), &capacity, threads, arena(len)?)?)
            }
            ArenaSize::Graph(size) => {
                let workspace = Workspace::new(size, arena(size.arena())?, model.weights())?;
                let backend = Backend::new(model.weights().device(), threads)?;
                Compute::Graph { backend, workspace, layout }
            }
        };
        Ok(Self { model: model.clone(), capacity, length, compute, cancel: CancelToken::default() })
    }

    /// Sends one batch through the network.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Device`]. The cache's slots of the batch are then undefined, all others
    /// unchanged.
    pub(crate) fn run(&mut self, batch: &Batch) -> Result<Logits<'_>> {
        let Self { model, capacity, compute, cancel, .. } = self;
        batch.check(model.config(), capacity)?;
        match compute {
            Compute::Cpu(cpu) => {
                let (logits, pool) = cpu.run(model.weights(), model.config(), capacity, batch, &cancel.0)?;
                Ok(Logits { rows: logits, pool: Some(pool) })
            }
            Compute::Graph { backend, workspace, layout } => {
                let logits = workspace.run(backend, &cancel.0, |graph, weights| {
                    graph::build(graph, weights, model.config(), capacity, layout, batch)
                })?;
                Ok(Logits { rows: logits, pool: None })
            }
        }
    }

    /// Number of threads that compute.
    pub(crate) fn threads(&self) -> usize {
        match &self.compute {
            Compute::Cpu(cpu) => cpu.threads(),
            Compute::Graph { backend, .. } => backend.threads(),
        }
    }

    /// Where the time of the batches went since [`ModelRunner::clear_profile`]; nothing for ggml's kernels.
    pub(crate) fn profile(&self) -> Option<Profile> {
        match &self.compute {
            Compute::Cpu(cpu) => Some(cpu.profile()),
            Compute::Graph { .. } => None,
        }
    }

    pub(crate) fn clear_profile(&self) {
        if let Compute::Cpu(cpu) = &self.compute {
            cpu.clear_profile();
        }
    }

    /// Most masks of a scoring batch: half of its rows, since each mask's token is fed too, and as many as have slots.
    pub(crate) fn max_scored_masks(&self) -> usize {
        (self.capacity.rows / 2).min(self.capacity.slots - self.length)
    }

    /// Whether a row may attend to any slots, not only to those up to its own.
    pub(crate) fn has_free_masks(&self) -> bool {
        matches!(self.compute, Compute::Cpu(_))
    }

    /// Whether keys and values can be copied out of the cache.
    pub(crate) fn can_save_cache(&self) -> bool {
        matches!(self.compute, Compute::Cpu(_))
    }

    /// Appends the keys and values of `slots` to `out`, or nothing if they cannot be copied.
    pub(crate) fn save_cache(&self, slots: Slots, out: &mut Vec<u8>) -> Result<()> {
        match &self.compute {
            Compute::Cpu(cpu) => cpu.save(self.model.config(), &self.capacity, slots, out),
            Compute::Graph { .. } => Ok(()),
        }
    }

    /// Restores keys and values of `slots`. False if this device cannot take them.
    pub(crate) fn load_cache(&mut self, slots: Slots, bytes: &[u8]) -> Result<bool> {
        match &mut self.compute {
            Compute::Cpu(cpu) => cpu.load(self.model.config(), &self.capacity, slots, bytes).map(|()| true),
            Compute::Graph { .. } => Ok(false),
        }
    }

    /// Clears the cache, after a failure that may have left numbers in it that are not finite.
    pub(crate) fn clear_cache(&mut self) {
        match &mut self.compute {
            // The CPU kernels read nothing that the same generation has not written.
            Compute::Cpu(_) => (),
            Compute::Graph { workspace, .. } => workspace.clear(),
        }
    }
}
