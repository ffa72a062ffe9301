//! `esolm_context`: one caller's memory and threads.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::{NonNull, null, null_mut};

use super::exclusive::Exclusive;
use super::logits::LogitsCallback;
use super::model::esolm_model;
use super::params::SizedStruct;
use super::pool::esolm_pool;
use super::snapshot::Snapshot;
use super::status::{esolm_status, wrap};
use super::step::StepTexts;
use super::{args, params};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{CancelToken, ContextParams, Kernels, KvType, ThreadPool};
use crate::generate::Prompt;
use crate::memory::{ALIGNMENT, Arena, filled, with_room};
use crate::model::Model;

/// A context: memory and threads for generating from a model, for one computing call at a time (others return
/// ESOLM_ERR_BUSY) from any thread. What the last step left can be read at any time, also while a call computes. Freed by
/// esolm_context_free.
pub struct esolm_context {
    exclusive: Exclusive<State, Snapshot>,
    pub(super) model: Model,
    pub(super) cancel: CancelToken,
}

/// What one call at a time uses.
pub(super) struct State {
    pub(super) context: Context,
    /// The caller's prompts in the library's form; their memory is reserved once.
    pub(super) prompts: Vec<Prompt>,
    /// The caller's callback on the logits of each sequence.
    pub(super) logits: Vec<Option<LogitsCallback>>,
    /// The texts of the last step.
    pub(super) texts: StepTexts,
}

/// Half precision. Keys or values of 65520 and more do not fit: ESOLM_KERNELS_OWN then returns ESOLM_ERR_NOT_FINITE,
/// ESOLM_KERNELS_GGML computes with infinity. Such a model needs ESOLM_KV_F32.
pub const ESOLM_KV_F16: i32 = 0;
/// Single precision, for exact comparisons.
pub const ESOLM_KV_F32: i32 = 1;
/// Bytes, each 32 with a scale (ggml's q8_0): 0.53 of the memory of ESOLM_KV_F16, for longer texts. Keys and values are rounded to
/// 0.4 % of the largest of their 32. With ESOLM_KERNELS_OWN on the CPU, for heads whose width is a multiple of 32; otherwise
/// ESOLM_ERR_UNSUPPORTED.
pub const ESOLM_KV_Q8_0: i32 = 2;

/// This library's, made for few rows over a long cache. (A model whose widths are not multiples of 8 uses ggml's.)
pub const ESOLM_KERNELS_OWN: i32 = 0;
/// ggml's. They do not check for keys and values that ESOLM_KV_F16 cannot hold.
pub const ESOLM_KERNELS_GGML: i32 = 1;

/// Alignment in bytes of the memory given to esolm_context_new_in.
pub const ESOLM_ARENA_ALIGNMENT: usize = 64;

const _: () = assert!(ESOLM_ARENA_ALIGNMENT == ALIGNMENT);

/// The limits of a context. Set by esolm_context_params_init; 0 is the default of every field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_context_params {
    /// sizeof(esolm_context_params)
    pub struct_size: usize,
    /// Maximum number of sequences generated side by side (default 1).
    pub sequences: usize,
    /// Maximum length of a sequence in tokens (default: the model's context length, at most 4096; limit: the model's).
    pub length: usize,
    /// Maximum number of rows (tokens) in a batch, which the network computes at once (default 128). Fewer need less
    /// memory; the result is the same. A text is scored in one batch if this is at least twice its tokens.
    pub batch_rows: usize,
    /// CPU threads (default: one per core that the process may use, on Linux and Android of the fast kind if there are
    /// several; with a pool, as many as it has). They sleep between calls.
    pub threads: usize,
    /// Precision of the K/V cache: ESOLM_KV_F16, ESOLM_KV_F32 or ESOLM_KV_Q8_0.
    pub kv_type: i32,
    /// Which CPU kernels to use: ESOLM_KERNELS_OWN or ESOLM_KERNELS_GGML. (Other devices always use ggml's.)
    pub kernels: i32,
    /// The threads to use, with ESOLM_KERNELS_OWN. NULL (default): the context has its own.
    pub pool: *const esolm_pool,
    /// Maximum number of rows of prompts that a step feeds for sequences that join (esolm_sequence_add), so that a long prompt
    /// does not delay the others: it takes several steps, with the same result (default 64, on devices 512; chunked
    /// prefill). While no sequence is being written, as at the beginning of a generation, a step feeds as many as
    /// batch_rows, if that is more. BD3-LM feeds whole blocks, Eso-LM (A) and MDLM feed prompts whole.
    pub prompt_rows: usize,
}

// SAFETY: repr(C), a size first, no padding, numbers and a pointer only.
unsafe impl SizedStruct for esolm_context_params {
    const NAME: &'static str = "esolm_context_params";
    const VERSION_1: usize = offset_of!(Self, pool);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        sequences: 0,
        length: 0,
        batch_rows: 0,
        threads: 0,
        kv_type: ESOLM_KV_F16,
        kernels: ESOLM_KERNELS_OWN,
        pool: null(),
        prompt_rows: 0,
    };
}

impl esolm_context_params {
    /// The pool that is given.
    ///
    /// # Safety
    /// `pool` must be NULL or a pool that is not freed during 'a.
    unsafe fn pool<'a>(&self) -> Option<&'a ThreadPool> {
        // SAFETY: by the contract.
        unsafe { self.pool.as_ref() }.map(|pool| &pool.0)
    }

    /// The limits, with the pool's number of threads if they leave it open.
    ///
    /// # Safety
    /// `pool` must be NULL or a pool that is not freed during the call.
    pub(super) unsafe fn check(&self) -> Result<ContextParams> {
        let kv_type = match self.kv_type {
            ESOLM_KV_F16 => KvType::F16,
            ESOLM_KV_F32 => KvType::F32,
            ESOLM_KV_Q8_0 => KvType::Q8_0,
            other => return Err(params::unknown::<Self>("kv_type", other)),
        };
        let kernels = match self.kernels {
            ESOLM_KERNELS_OWN => Kernels::Own,
            ESOLM_KERNELS_GGML => Kernels::Ggml,
            other => return Err(params::unknown::<Self>("kernels", other)),
        };
        let Self { sequences, length, batch_rows, prompt_rows, threads, .. } = *self;
        let params = ContextParams { sequences, length, batch_rows, prompt_rows, threads, kv_type, kernels };
        // SAFETY: by the contract.
        Ok(ThreadPool::in_pool(params, unsafe { self.pool() }))
    }
}

impl esolm_context {
    /// Hands a context to C.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn give(context: Context, params: &ContextParams) -> Result<*mut Self> {
        let (sequences, length) = (params.sequences.max(1), context.length());
        let mut prompts = with_room(sequences)?;
        for _ in 0..sequences {
            prompts.push(Prompt { known: with_room(length)? });
        }
        let mut snapshot = Snapshot::new(sequences, length)?;
        snapshot.update(&context);
        let (model, cancel) = (context.model().clone(), context.cancel_token());
        let state =
            State { context, prompts, logits: filled(sequences, None)?, texts: StepTexts::new(sequences)? };
        // A box of one: unlike `Box::new`, it may fail.
        let mut place = with_room(1)?;
        place.push(Self { exclusive: Exclusive::new(state, snapshot), model, cancel });
        Ok(Box::into_raw(place.into_boxed_slice()).cast())
    }

    /// Runs `f` as the only user of the context, or fails as busy. What it leaves can then be read.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.exclusive.with(f, copy_texts)
    }

    /// Has other threads read the texts as they are now.
    pub(super) fn publish(&self, state: &State) {
        self.exclusive.publish(state, copy_texts);
    }

    /// Reads what the last step left, whatever computes now.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        self.exclusive.read(f)
    }
}

fn copy_texts(state: &State, to: &mut Snapshot) {
    to.update(&state.context);
}

// The header promises that threads may share these.
const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<esolm_context>();
    shared_by_threads::<Model>();
};

/// Sets the defaults; size is sizeof(esolm_context_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_params_init(
    params: *mut esolm_context_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Writes to *out the exact number of bytes that esolm_context_new_in needs for these parameters (NULL: the defaults).
/// It depends on the machine, so do not store it. With a GPU it is the host's part: cache and activations are on the
/// device. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_arena_size(
    model: *const esolm_model,
    params: *const esolm_context_params,
    out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle, params) = unsafe {
            (args::out(out, 0, "out")?, args::reference(model, "model")?, params::read(params)?.check()?)
        };
        let size = Context::memory_use(&handle.model, &params)?.arena;
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(size) };
        Ok(())
    })
}

/// Makes a context in the memory that `arena` returns for the number of bytes needed.
///
/// # Safety
/// Each pointer must be NULL or valid for the call.
unsafe fn make(
    model: *const esolm_model,
    params: *const esolm_context_params,
    out: *mut *mut esolm_context,
    arena: impl FnOnce(usize) -> Result<Arena>,
) -> Result<()> {
    // SAFETY: the contract says that each pointer is NULL or valid.
    let (out, handle, params, pool) = unsafe {
        let (out, handle) = (args::out(out, null_mut(), "out")?, args::reference(model, "model")?);
        let given = params::read(params)?;
        (out, handle, given.check()?, given.pool())
    };
    let context = Context::new_in(&handle.model, &params, pool, arena)?;
    let given = esolm_context::give(context, &params)?;
    // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
    unsafe { out.write(given) };
    Ok(())
}

/// Makes a context, with all memory for generating. params may be NULL for the defaults. *out is NULL on failure. The
/// context holds a reference to the model.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_UNSUPPORTED for a cache in q8_0 or an operation
/// that kernels or device do not have; ESOLM_ERR_OUT_OF_MEMORY; ESOLM_ERR_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_new(
    model: *const esolm_model,
    params: *const esolm_context_params,
    out: *mut *mut esolm_context,
) -> esolm_status {
    // SAFETY: the header requires each pointer to be NULL or valid for the call.
    wrap(|| unsafe { make(model, params, out, Arena::allocate) })
}

/// Makes a context in the caller's memory: size bytes at arena, aligned to ESOLM_ARENA_ALIGNMENT, at least
/// esolm_context_arena_size. They belong to the context until it is freed; their content does not matter. (Small
/// handles and the bookkeeping of texts are still allocated, once.)
///
/// Errors: as esolm_context_new, and ESOLM_ERR_BUFFER_TOO_SMALL, with the arena untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_new_in(
    model: *const esolm_model,
    params: *const esolm_context_params,
    arena: *mut c_void,
    size: usize,
    out: *mut *mut esolm_context,
) -> esolm_status {
    let borrow = |needed| {
        let arena = NonNull::new(arena).ok_or_else(|| args::null("arena"))?.cast();
        if size < needed {
            return Err(Error::BufferTooSmall { given: size, needed });
        }
        // SAFETY: `size` bytes are enough, and the header gives them to the context until it is freed.
        unsafe { Arena::borrow(arena, needed) }
    };
    // SAFETY: the header requires each pointer to be NULL or valid for the call.
    wrap(|| unsafe { make(model, params, out, borrow) })
}

/// Has threads threads compute on this context from the next call on: 1 to as many as it was made for. The text does not
/// depend on it.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT; ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_set_threads(
    context: *mut esolm_context,
    threads: usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| state.context.set_threads(threads))
    })
}

/// Writes to *out the number of threads that compute on this context.
///
/// Errors: ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_threads(
    context: *const esolm_context,
    out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle) = unsafe { (args::out(out, 0, "out")?, args::reference(context, "context")?) };
        let threads = handle.with(|state| Ok(state.context.threads()))?;
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(threads) };
        Ok(())
    })
}

/// Measures what a pass (a run of the network) costs beside its rows: with the time of one row as unit, the time in which the
/// weights are read. Runs the network on some rows for half a second, or until it has done so twice, and writes to *out the
/// number, 0.1 to 256 in steps of 0.1, for esolm_context_set_pass_overhead. The choice of tokens is not measured. Ends the
/// current generation.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT (batch_rows or length less than 4); ESOLM_ERR_CANCELLED; ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE;
/// ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_measure_pass_overhead(
    context: *mut esolm_context,
    out: *mut f32,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle) = unsafe { (args::out(out, 0.0, "out")?, args::reference(context, "context")?) };
        let rows = handle.with(|state| state.context.measure_pass_overhead())?;
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(rows) };
        Ok(())
    })
}

/// Says what a pass costs beside its rows, in rows, for generations and sequences that begin from now on. By it
/// ESOLM_LOOKAHEAD_AUTO and ESOLM_WINDOW_AUTO decide, so their texts depend on it. The default, which 0 stands for, is the same
/// on every machine, and so are the texts: 2 with weights of at most 32 MB, which may stay in a processor's cache, and 10 with
/// more.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT for less than 0, more than 256, or NaN; ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_set_pass_overhead(
    context: *mut esolm_context,
    rows: f32,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| state.context.set_pass_overhead(rows))
    })
}

/// Frees a context that no call is using. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_free(context: *mut esolm_context) {
    wrap(|| {
        if !context.is_null() {
            // SAFETY: `give` made this pointer from a box, and the header allows it to be freed once.
            drop(unsafe { Box::from_raw(context) });
        }
        Ok(())
    });
}

/// Drops the generation of a context: its tokens, texts and remaining steps. Memory, threads and a cancel stay.
///
/// Errors: ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_reset(context: *mut esolm_context) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| {
            state.context.reset();
            Ok(())
        })
    })
}
