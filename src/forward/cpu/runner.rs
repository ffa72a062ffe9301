//! The CPU runner: memory and threads that run the network with the library's own kernels.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use half::f16;

use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::cpu::kernels::isa::Platform;
use crate::forward::cpu::layout::CpuLayout;
use crate::forward::cpu::network::{Memory, Network, part};
use crate::forward::cpu::threads::clock::{Clock, Part};
use crate::forward::cpu::threads::crew::Crew;
use crate::forward::cpu::threads::pool::Pool;
use crate::forward::layout::{Capacity, KvType};
use crate::forward::profile::Profile;
use crate::ggml::Weights;
use crate::memory::Arena;
use crate::model::Config;
use crate::simd::LANES;

/// The memory of a context on the CPU, and the threads that help it.
#[derive(Debug)]
pub(crate) struct CpuRunner {
    pool: Arc<Pool>,
    /// Threads that take part.
    threads: usize,
    pub(super) arena: Arena,
    pub(super) layout: CpuLayout,
    platform: Platform,
    clock: Clock,
}

impl CpuRunner {
    /// Whether the kernels can run a model of this shape: all widths are whole vectors.
    pub(crate) fn supports(config: &Config) -> bool {
        [config.embedding_length, config.feed_forward_length, config.head_dim()]
            .iter()
            .all(|n| n.is_multiple_of(LANES))
    }

    /// A runner in `arena`, with as many threads of the pool as the layout is for.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if the arena is.
    pub(crate) fn new(layout: CpuLayout, pool: Arc<Pool>, arena: Arena) -> Result<Self> {
        if arena.len() < layout.len {
            return Err(Error::BufferTooSmall { given: arena.len(), needed: layout.len });
        }
        let threads = layout.threads.min(pool.threads());
        Ok(Self { pool, threads, arena, layout, platform: Platform::detect(), clock: Clock::new() })
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// As many as the layout has memory for and the pool has.
    pub(crate) fn most_threads(&self) -> usize {
        self.layout.threads.min(self.pool.threads())
    }

    /// Has this many threads take part, [`CpuRunner::most_threads`] at most.
    pub(crate) fn set_threads(&mut self, threads: usize) {
        self.threads = threads.min(self.most_threads());
    }

    /// The time of all batches since the last [`CpuRunner::clear_profile`]; products and attention only.
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

    /// Runs the network on `batch`, which the caller has checked. Returns the logits [V, M], and the threads, for what
    /// the caller does with them.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `cancel` is set; [`Error::NotFinite`] if the cache cannot hold a key or value;
    /// [`Error::Internal`].
    pub(crate) fn run(
        &mut self,
        weights: &Weights,
        config: &Config,
        capacity: &Capacity,
        batch: &Batch,
        cancel: &AtomicBool,
    ) -> Result<(&[f32], (&Pool, usize))> {
        let Self { pool, threads, arena, layout, platform, clock } = self;
        let memory = Memory { layout, arena: &mut *arena, platform: *platform, clock };
        let network = Network::new(weights, config, capacity, batch, memory)?;
        clock.start();
        Crew::lead(pool, *threads, cancel, |crew| match capacity.kv {
            KvType::F16 => network.run::<f16>(crew),
            KvType::F32 => network.run::<f32>(crew),
            KvType::Q8_0 => network.run::<i8>(crew),
        })?;
        let logits = part::<f32>(arena, layout.logits)?;
        // SAFETY: no thread is at work; the borrow of the runner keeps the next run away.
        Ok((unsafe { logits.read(0..batch.outputs.len() * config.vocab_size) }, (pool, *threads)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::batch::Segment;
    use crate::forward::cpu::threads::pool::PoolOptions;
    use crate::ggml::Device;
    use crate::gguf::{Layout, TensorInfo, TensorType};
    use crate::memory::FileBytes;
    use crate::model::{Architecture, Variant};

    const CONFIG: Config = Config {
        variant: Variant::EsoB,
        block_length: 0,
        context_length: 8,
        embedding_length: 8,
        block_count: 2,
        feed_forward_length: 8,
        head_count: 1,
        architecture: Architecture::DIT,
        norm_epsilon: 1e-5,
        rope_freq_base: 1e4,
        vocab_size: 8,
        mask_token_id: 7,
        eos_token_id: None,
        other_eos_token_ids: Vec::new(),
        bos_token_id: None,
        prepend_token_id: None,
        needs_first_token: false,
        diffusion_only: false,
        train_alpha_0: None,
        defaults: crate::model::Defaults::NONE,
    };

    /// Runs a batch of one row on `tensors` in front of enough zeros.
    fn run(tensors: Vec<TensorInfo>) -> Result<Vec<f32>> {
        let file = FileBytes::copy_of(&[0; 4096], &|_| Ok(()))?;
        let weights = Weights::new(Device::find("cpu")?, tensors, file, &|_| Layout::Plain, &|_| Ok(()))?;
        let capacity = Capacity { sequences: 1, slots: 32, rows: 1, kv: KvType::F32 };
        let layout = CpuLayout::new(&CONFIG, &capacity, 2)?;
        let arena = Arena::allocate(layout.len)?;
        let pool = Arc::new(Pool::new(&PoolOptions::new(2))?);
        let mut runner = CpuRunner::new(layout, pool, arena)?;
        let segment = Segment { sequence: 0, first_row: 0, rows: 1, first_slot: 0, outputs: 1 };
        let batch = Batch {
            tokens: vec![0],
            positions: vec![0],
            visible_slots: vec![1],
            sees_itself: vec![false],
            outputs: vec![0],
            output_positions: vec![0],
            segments: vec![segment],
        };
        let (logits, _) = runner.run(&weights, &CONFIG, &capacity, &batch, &AtomicBool::new(false))?;
        Ok(logits.to_vec())
    }

    /// The tensors of the model, of zeros.
    fn tensors() -> Vec<TensorInfo> {
        let tensor = |name: &str, rows: usize| TensorInfo {
            name: name.into(),
            ty: TensorType::F32,
            layout: Layout::Plain,
            dims: vec![8, rows],
            range: 0..32 * rows,
        };
        let config = CONFIG;
        let block = config.architecture.block_tensors().map(|part| {
            let (_, rows) = part.dims(&CONFIG.widths());
            tensor(part.name(), rows.unwrap_or(1))
        });
        let blocks = block.clone().chain(block);
        let ends =
            [("output_norm.weight", 1), ("output_norm.bias", 1), ("output.weight", 8), ("output.bias", 1)];
        [tensor("token_embd.weight", 8)]
            .into_iter()
            .chain(blocks)
            .chain(ends.map(|(name, rows)| tensor(name, rows)))
            .collect()
    }

    #[test]
    fn missing_weights_are_an_internal_error() {
        assert_eq!(run(tensors()).unwrap(), [0.0; 8]);
        // All tensors; those of a block; the bytes of one, which only the threads find out.
        let mut cut = tensors();
        cut[11].range = 0..16;
        for (tensors, what) in [(vec![], "model"), (tensors()[..15].to_vec(), "block 1"), (cut, "norm")] {
            let failed = run(tensors);
            assert!(matches!(&failed, Err(Error::Internal(e)) if e.contains(what)), "{failed:?}");
        }
    }
}
