//! A batch of tokens to logits: the network, on the library's own CPU kernels or as a graph on a ggml backend.
//!
//! From below: [`layout`] (limits and K/V cache), [`batch`] (what the network is fed), [`tensors`] (the weights by
//! name); the two runners, [`cpu`] with own kernels and [`graph`] on ggml's backends; [`memory_plan`], which decides between
//! them; [`cores`] and [`thread_pool`]; and here [`ModelRunner`], which has one of them.

mod batch;
mod cancel;
mod cores;
mod cpu;
mod features;
mod graph;
mod layout;
mod memory_plan;
mod params;
mod profile;
mod system_info;
mod tensors;
mod thread_pool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::ggml::{Backend, DrawRow, Workspace};
use crate::log::{LogLevel, log_with, mib};
use crate::memory::Arena;
use crate::model::Model;
use crate::simd::DefaultFloats;
use cpu::{CpuRunner, Crew, Platform, Pool, PoolOptions};
use graph::GraphRunner;
use memory_plan::ArenaPlan;

pub(crate) use batch::{Batch, Row, Segment};
pub use cancel::CancelToken;
#[cfg(feature = "convert")]
pub(crate) use cores::count_threads;
pub use cpu::limits;
pub use layout::KvType;
pub(crate) use layout::{Capacity, Slots};
pub(crate) use memory_plan::MemoryPlan;
pub use params::{ContextParams, Kernels, MemoryUse};
pub use profile::Profile;
pub use system_info::system_info;
pub use thread_pool::{ThreadPool, ThreadPoolParams};

/// A model with the memory and the threads to run it.
#[derive(Debug)]
pub(crate) struct ModelRunner {
    pub(crate) model: Model,
    pub(crate) capacity: Capacity,
    /// Longest sequence in tokens. The cache slots behind it are for the masks of `score`.
    pub(crate) length: usize,
    /// Most rows of prompts in a step beside sequences that are being written.
    pub(crate) prompt_rows: usize,
    compute: Compute,
    pub(crate) cancel: CancelToken,
}

/// The two runners of the network, with their threads and memory.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a context")]
enum Compute {
    /// The library's own CPU kernels.
    Cpu(CpuRunner),
    /// A graph on one of ggml's backends.
    Graph(GraphRunner),
}

/// The logits of a batch, [V] for each row that wants some, and the threads to sample from them.
pub(crate) struct Logits<'a> {
    pub(crate) rows: &'a [f32],
    /// With the number of threads that may take part.
    pool: Option<(&'a Pool, usize)>,
}

impl Logits<'_> {
    /// Calls `work` with the logits, a state and an item, for every item: on all threads if the library's own kernels
    /// run, otherwise on this one. Each thread has one of `states`, which must be as many.
    pub(crate) fn for_each<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        work: impl Fn(&[f32], &mut S, &mut T) + Sync,
    ) -> Result<()> {
        let logits = self.rows;
        match (self.pool, states) {
            (Some((pool, threads)), states) if items.len() > 1 => {
                // A few nanoseconds for each entry of the vocabulary.
                let nanoseconds = 4 * (logits.len() / items.len()) as u64;
                Crew::lead_all(pool, threads, |crew| {
                    crew.for_each(states, items, nanoseconds, |s, t| work(logits, s, t))
                })
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
    /// Takes the memory of `plan` from `arena`, a function of its size in bytes, and starts the threads, unless there are
    /// those of `pool`.
    ///
    /// # Errors
    /// Those of `arena`; [`Error::BufferTooSmall`]; [`Error::OutOfMemory`]; [`Error::Device`].
    pub(crate) fn new(
        plan: MemoryPlan,
        model: &Model,
        pool: Option<&ThreadPool>,
        arena: impl FnOnce(usize) -> Result<Arena>,
    ) -> Result<Self> {
        // Threads that ggml starts inherit it.
        let _floats = DefaultFloats::set();
        let started = Instant::now();
        let memory = plan.memory_use();
        let MemoryPlan { capacity, length, prompt_rows, threads, arena: plan, .. } = plan;
        let compute = match plan {
            ArenaPlan::Cpu(layout) => {
                let arena = arena(layout.len)?;
                let pool = match pool {
                    Some(pool) => Arc::clone(&pool.0),
                    None => Arc::new(Pool::new(&PoolOptions::new(threads))?),
                };
                Compute::Cpu(CpuRunner::new(layout, pool, arena)?)
            }
            ArenaPlan::Graph(layout, size) => {
                let workspace = Workspace::new(size, arena(size.arena())?, model.plain_weights()?)?;
                let backend = Backend::new(model.weights().device(), threads)?;
                Compute::Graph(GraphRunner::new(backend, workspace, *layout, &capacity)?)
            }
        };
        let cancel = CancelToken::default();
        let runner = Self { model: model.clone(), capacity, length, prompt_rows, compute, cancel };
        log_with(LogLevel::Info, || runner.describe(&memory, started.elapsed()));
        Ok(runner)
    }

    /// What was made, for the log.
    fn describe(&self, memory: &MemoryUse, time: Duration) -> String {
        let Self { model, capacity, length, compute, .. } = self;
        let kernels = match compute {
            Compute::Cpu(_) => format!("esolm's kernels ({})", Platform::detect().name()),
            Compute::Graph(_) => format!("ggml's kernels on {}", model.device()),
        };
        format!(
            "context: {} x {length} tokens, {} rows, {kernels}, {} threads, arena of {} with {} of K/V cache ({:?}), {:.1} ms",
            capacity.sequences,
            capacity.rows,
            self.threads(),
            mib(memory.arena),
            mib(memory.kv_cache),
            capacity.kv,
            time.as_secs_f64() * 1e3,
        )
    }

    /// Runs the network on one batch.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::NotFinite`] if the cache cannot hold a key or value; [`Error::Device`]. The cache's
    /// slots of the batch are then undefined, all others unchanged.
    pub(crate) fn run(&mut self, batch: &Batch) -> Result<Logits<'_>> {
        let Self { model, capacity, compute, cancel, .. } = self;
        batch.check(model.config(), capacity)?;
        match compute {
            Compute::Cpu(cpu) => {
                let (logits, pool) = cpu.run(model.weights(), model.config(), capacity, batch, &cancel.0)?;
                Ok(Logits { rows: logits, pool: Some(pool) })
            }
            Compute::Graph(graph) => {
                let rows = graph.run(model.config(), capacity, batch, &cancel.0)?;
                Ok(Logits { rows, pool: None })
            }
        }
    }

    /// Whether [`ModelRunner::run_and_draw`] can be used.
    pub(crate) fn draws(&self) -> bool {
        matches!(&self.compute, Compute::Graph(graph) if graph.draws)
    }

    /// Runs the network on one batch and draws its tokens on the device, one for each of `rows`: logits stay there.
    ///
    /// # Errors
    /// As [`ModelRunner::run`]; [`Error::NotFinite`].
    pub(crate) fn run_and_draw(&mut self, batch: &Batch, rows: &[DrawRow], tokens: &mut [i32]) -> Result<()> {
        let Self { model, capacity, compute, cancel, .. } = self;
        batch.check(model.config(), capacity)?;
        match compute {
            Compute::Cpu(_) => Err(Error::internal("the CPU draws itself")),
            Compute::Graph(graph) => {
                graph.run_and_draw(model.config(), capacity, batch, &cancel.0, (rows, tokens))
            }
        }
    }

    /// Says which tokens [`ModelRunner::run_and_draw`] must not draw for sequence `sequence`: a bit each.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) fn ban(&mut self, sequence: usize, bits: &[u32]) -> Result<()> {
        match &mut self.compute {
            Compute::Cpu(_) => Ok(()),
            Compute::Graph(graph) => graph.ban(sequence, bits),
        }
    }

    /// Has at most `threads` threads compute from now on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 or more than there were at first.
    pub(crate) fn set_threads(&mut self, threads: usize) -> Result<()> {
        let most = match &self.compute {
            Compute::Cpu(cpu) => cpu.most_threads(),
            Compute::Graph(graph) => graph.backend.most_threads(),
        };
        if !(1..=most).contains(&threads) {
            return Err(Error::invalid(format!("{threads} threads; this context was made for 1 to {most}")));
        }
        match &mut self.compute {
            Compute::Cpu(cpu) => cpu.set_threads(threads),
            Compute::Graph(graph) => graph.backend.set_threads(threads),
        }
        Ok(())
    }

    /// Number of threads that compute.
    pub(crate) fn threads(&self) -> usize {
        match &self.compute {
            Compute::Cpu(cpu) => cpu.threads(),
            Compute::Graph(graph) => graph.backend.threads(),
        }
    }

    /// The time of all batches since [`ModelRunner::clear_profile`]; nothing for ggml's kernels.
    pub(crate) fn profile(&self) -> Option<Profile> {
        match &self.compute {
            Compute::Cpu(cpu) => Some(cpu.profile()),
            Compute::Graph(_) => None,
        }
    }

    pub(crate) fn clear_profile(&self) {
        if let Compute::Cpu(cpu) = &self.compute {
            cpu.clear_profile();
        }
    }

    /// Most masks of a scoring batch: half of its rows, as the token of each mask is fed too, and no more than have
    /// slots.
    pub(crate) fn max_scored_masks(&self) -> usize {
        (self.capacity.rows / 2).min(self.capacity.slots - self.length)
    }

    /// Appends the keys and values of `slots` to `out`: the keys of all blocks, then the values of all blocks, each as
    /// [Dh, count, H], with its scales behind it if it has any, whatever the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn save_cache(&self, slots: Slots, out: &mut Vec<u8>) -> Result<()> {
        match &self.compute {
            Compute::Cpu(cpu) => cpu.save(self.model.config(), &self.capacity, slots, out),
            Compute::Graph(graph) => graph.save(self.model.config(), &self.capacity, slots, out),
        }
    }

    /// Restores keys and values of `slots`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Internal`].
    pub(crate) fn load_cache(&mut self, slots: Slots, bytes: &[u8]) -> Result<()> {
        match &mut self.compute {
            Compute::Cpu(cpu) => cpu.load(self.model.config(), &self.capacity, slots, bytes),
            Compute::Graph(graph) => graph.load(self.model.config(), &self.capacity, slots, bytes),
        }
    }

    /// Whether [`ModelRunner::copy_cache`] takes no memory of its own, and no way to a device and back.
    pub(crate) fn copies_in_place(&self) -> bool {
        matches!(self.compute, Compute::Cpu(_))
    }

    /// Copies keys and values of `slots` to the first slots of another sequence.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Internal`].
    pub(crate) fn copy_cache(&mut self, slots: Slots, to: usize) -> Result<()> {
        match &mut self.compute {
            Compute::Cpu(cpu) => cpu.copy(self.model.config(), &self.capacity, slots, to),
            Compute::Graph(graph) => graph.copy(self.model.config(), &self.capacity, slots, to),
        }
    }

    /// Clears the cache, after a failure that may have left numbers that are not finite in it.
    pub(crate) fn clear_cache(&mut self) {
        match &mut self.compute {
            // The CPU kernels read only what the same generation has written.
            Compute::Cpu(_) => (),
            Compute::Graph(graph) => graph.clear(),
        }
    }
}
