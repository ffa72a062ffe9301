//! Threads and memory of the CPU's own way through the network.

use std::sync::atomic::AtomicBool;

use half::f16;

use crate::error::{Error, Result};
use crate::forward::Batch;
use crate::forward::Profile;
use crate::forward::cpu::kernels::activations::{BLOCK, Rounded};
use crate::forward::cpu::kernels::attention::TILE;
use crate::forward::cpu::kernels::isa::Machine;
use crate::forward::cpu::layers::{ALONE, Network};
use crate::forward::cpu::threads::clock::{Clock, Part};
use crate::forward::cpu::threads::pool::Pool;
use crate::forward::cpu::threads::shared::Shared;
use crate::forward::layout::{Capacity, KvType, Layout};
use crate::ggml::Weights;
use crate::memory::{ALIGNMENT, Arena, Region};
use crate::model::Config;
use crate::simd::LANES;

/// Threads and memory for passes on the CPU.
#[derive(Debug)]
pub(crate) struct CpuRunner {
    pool: Pool,
    pub(super) arena: Arena,
    pub(super) layout: Layout,
    beside: Beside,
    machine: Machine,
    clock: Clock,
}

/// What lies behind the layout that all ways through the network share. With D the width, F the MLP's, R rows and S
/// slots, Dh a head's:
#[derive(Debug, Clone, Copy)]
struct Beside {
    /// Rotations of each row [Dh, R], which all blocks use.
    angles: Region,
    /// Attention scores of each thread [TILE, S].
    scores: Region,
    /// Rounded rows [max(D, F), R].
    rounded: Region,
    /// Few rows of each thread, two of the kind [D, ALONE] and rounded ones [max(D, F), ALONE].
    own: [Region; 2],
    own_rounded: Region,
    /// Bytes up to the last one's end.
    end: usize,
}

impl Beside {
    fn new(layout: &Layout, config: &Config, capacity: &Capacity, threads: usize) -> Option<Self> {
        let mut end = layout.len;
        let mut take = |dims: [usize; 3]| {
            let len = dims.into_iter().try_fold(1usize, usize::checked_mul)?;
            let region = Region { offset: end, len };
            end = end.checked_add(len)?.checked_next_multiple_of(ALIGNMENT)?;
            (end < isize::MAX as usize).then_some(region)
        };
        let widest = config.embedding_length.max(config.feed_forward_length);
        let angles = take([config.head_dim(), size_of::<f32>(), capacity.rows])?;
        let scores = take([capacity.slots, TILE * size_of::<f32>(), threads])?;
        let rounded = take([widest.div_ceil(BLOCK), size_of::<Rounded>(), capacity.rows])?;
        let mut own = || take([config.embedding_length, ALONE * size_of::<f32>(), threads]);
        let own = [own()?, own()?];
        let own_rounded = take([widest.div_ceil(BLOCK), ALONE * size_of::<Rounded>(), threads])?;
        Some(Self { angles, scores, rounded, own, own_rounded, end })
    }
}

impl CpuRunner {
    /// Whether a model of this shape can be computed here: everything in whole vectors.
    pub(crate) fn supports(config: &Config) -> bool {
        [config.embedding_length, config.feed_forward_length, config.head_dim()]
            .iter()
            .all(|n| n.is_multiple_of(LANES))
    }

    /// Bytes of memory that an engine of `threads` needs.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if that is larger than the address space.
    pub(crate) fn memory(
        layout: &Layout,
        config: &Config,
        capacity: &Capacity,
        threads: usize,
    ) -> Result<usize> {
        let beside = Beside::new(layout, config, capacity, threads);
        beside
            .map(|b| b.end)
            .ok_or_else(|| Error::invalid("the context would be larger than the address space"))
    }

    /// An engine in `arena`, with `threads` threads.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if the arena is; those of starting threads.
    pub(crate) fn new(
        layout: Layout,
        config: &Config,
        capacity: &Capacity,
        threads: usize,
        arena: Arena,
    ) -> Result<Self> {
        let pool = Pool::new(threads)?;
        let needed = Self::memory(&layout, config, capacity, pool.threads())?;
        match Beside::new(&layout, config, capacity, pool.threads()) {
            Some(beside) if arena.len() >= needed => {
                Ok(Self { pool, arena, layout, beside, machine: Machine::detect(), clock: Clock::new() })
            }
            _ => Err(Error::BufferTooSmall { given: arena.len(), needed }),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Time of all passes since the last [`CpuRunner::clear_profile`]; no more than products and attention.
    pub(crate) fn profile(&self) -> Profile {
        Profile {
            blocks: self.clock.total(Part::Products),
            attention: self.clock.total(Part::Attention),
            vocabulary: self.clock.total(Part::Vocabulary),
            ..Profile::default()
        }
    }

    pub(crate) fn clear_profile(&self) {
        self.clock.clear();
    }

    /// Runs `pass`, whose numbers the caller has checked. Returns the logits [V, outputs], and the threads, who may
    /// go on with them.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `cancel` is set; [`Error::Internal`].
    pub(crate) fn run(
        &mut self,
        weights: &Weights,
        config: &Config,
        capacity: &Capacity,
        batch: &Batch,
        cancel: &AtomicBool,
    ) -> Result<(&[f32], &mut Pool)> {
        let bytes = weights.host_bytes().ok_or_else(|| Error::internal("the weights are not in memory"))?;
        let Self { pool, arena, layout, beside, machine, clock } = self;
        let floats = |region| part::<f32>(arena, region);
        let network = Network {
            bytes,
            weights,
            config,
            capacity,
            batch,
            layout,
            arena,
            angles: floats(beside.angles)?,
            x: floats(layout.x)?,
            x_out: floats(layout.x_out)?,
            h: floats(layout.h)?,
            h_out: floats(layout.h_out)?,
            q: floats(layout.q)?,
            kv: floats(layout.qkv)?,
            attention: floats(layout.attention)?,
            up: floats(layout.up)?,
            logits: floats(layout.logits)?,
            scores: floats(beside.scores)?,
            rounded: part(arena, beside.rounded)?,
            own: [floats(beside.own[0])?, floats(beside.own[1])?],
            own_rounded: part(arena, beside.own_rounded)?,
            machine: *machine,
            clock,
        };
        clock.start();
        pool.run(cancel, &|worker| match capacity.kv {
            KvType::F16 => network.run::<f16>(worker),
            KvType::F32 => network.run::<f32>(worker),
        })?;
        let len = batch.outputs.len() * config.vocab_size;
        let logits = floats(layout.logits)?;
        // SAFETY: the pool is through; the borrow of `self` keeps the next pass away.
        Ok((unsafe { logits.read(0..len) }, pool))
    }
}

/// A part of the arena.
fn part<T: Number>(arena: &Arena, region: Region) -> Result<Shared<'_, T>> {
    let start = arena.part(region.offset, region.len)?.cast::<T>();
    // SAFETY: the arena is zeroed memory, which is numbers, its parts are aligned, and `&mut CpuRunner` makes its call
    // the only user. (Parts that share memory are used one after the other.)
    Ok(unsafe { Shared::new(start, region.len / size_of::<T>()) })
}

/// What may be made of any bytes.
trait Number {}
impl Number for f32 {}
impl Number for Rounded {}
