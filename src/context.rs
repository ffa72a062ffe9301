//! A context: one caller's memory and threads for generating from a model.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Engine, Plan};
use crate::error::Result;
use crate::ggml::{Device, Memory, WeightsSource};
use crate::kv_cache::KvType;
use crate::model::{Contents, LoadOptions, Model};
use crate::session::Session;

/// The limits of a context. A zero stands for the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextParams {
    /// Most sequences generated side by side (default 1).
    pub sequences: usize,
    /// Longest sequence in tokens (default and maximum: the model's context length).
    pub length: usize,
    /// Most rows that go through the network at once (default 128). A step of more rows takes several passes,
    /// with the same result; fewer rows need less memory. A text is scored in an order in one pass if this is twice
    /// its tokens.
    pub pass_rows: usize,
    /// CPU threads (default: one per core).
    pub threads: usize,
    /// Precision of the K/V cache.
    pub kv_type: KvType,
    /// Who computes on the CPU.
    pub kernels: Kernels,
}

/// Who computes on the CPU. (Other devices are always ggml's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// This library's kernels, made for few rows over a long cache. (A model whose widths are no multiples of
    /// 8 is ggml's all the same.)
    #[default]
    Own,
    /// ggml's. They do not look for keys and values that an f16 cache cannot hold (see [`KvType::F16`]).
    Ggml,
}

/// Where memory goes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The model's weights, in the mapped file, in memory of their own or on the device; contexts share them.
    pub weights: usize,
    /// The arena: all host memory of the context. On the CPU the other two are in it.
    pub arena: usize,
    /// The K/V cache.
    pub kv_cache: usize,
    /// Activations, logits and the working memory of operations.
    pub compute: usize,
}

/// Stops a generation from another thread. Clones stop the same context.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(pub(crate) Arc<AtomicBool>);

impl CancelToken {
    /// Makes the running call, if there is one, and every later one end with [`crate::Error::Cancelled`], until
    /// [`CancelToken::reset`]. So it does not matter whether it comes before a call or while it runs.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes an earlier [`CancelToken::cancel`] back.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it was fired.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a model for one caller at a time. All memory is taken when it is made.
#[derive(Debug)]
pub struct Context {
    pub(crate) engine: Engine,
    pub(crate) session: Session,
}

impl Context {
    /// Makes a context in memory of its own.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if the parameters exceed the model; [`crate::Error::OutOfMemory`].
    pub fn new(model: &Model, params: &ContextParams) -> Result<Self> {
        Self::new_in(model, params, Memory::allocate)
    }

    /// Makes a context in the arena that `arena` gives when it is told how many bytes are needed.
    ///
    /// # Errors
    /// As [`Context::new`]; what `arena` returns.
    pub(crate) fn new_in(
        model: &Model,
        params: &ContextParams,
        arena: impl FnOnce(usize) -> Result<Memory>,
    ) -> Result<Self> {
        let plan = Plan::for_model(model, params)?;
        let session = Session::new(model.config(), &plan.capacity, plan.length, plan.threads);
        Ok(Self { engine: plan.start(model, arena)?, session })
    }

    /// The memory that a context with these parameters takes, to the byte.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if the parameters exceed the model.
    pub fn memory_use(model: &Model, params: &ContextParams) -> Result<MemoryUse> {
        Ok(Plan::for_model(model, params)?.memory_use())
    }

    /// The memory that the model in the file at `path` and a context with these parameters would take. Reads what the
    /// file says about itself, not the weights.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Context::memory_use`].
    pub fn estimate(
        path: impl AsRef<Path>,
        options: &LoadOptions<'_>,
        params: &ContextParams,
    ) -> Result<MemoryUse> {
        let path = path.as_ref();
        let device = Device::find(&options.device)?;
        let file = WeightsSource::map(path)?;
        let Contents { config, tensors, .. } = Contents::read(file.bytes(), &path.display().to_string())?;
        Ok(Plan::new(&config, &tensors, device, params)?.memory_use())
    }

    /// Forgets the generation: its tokens, its texts, and what would come next. Memory and threads stay.
    pub fn reset(&mut self) {
        self.forget_generation();
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.engine.model
    }

    /// A token that stops this context from any thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.engine.cancel.clone()
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.engine.threads()
    }

    /// Longest sequence in tokens.
    pub fn length(&self) -> usize {
        self.engine.length
    }
}
