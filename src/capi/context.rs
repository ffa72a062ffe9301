//! `esolm_context`: one caller's memory and threads.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, TryLockError};

use super::model::esolm_model;
use super::params::SizedStruct;
use super::request::LogitsFunction;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{CancelToken, ContextParams, Kernels, KvType};
use crate::generate::Prompt;
use crate::memory::{ALIGNMENT, Arena};
use crate::model::Model;

/// A context: memory and threads for generating from a model. Made by esolm_context_new or
/// esolm_context_new_in, freed by esolm_context_free. One call at a time may use it (others return
/// ESOLM_ERR_BUSY), from any thread; esolm_cancel and esolm_cancel_reset work at any time.
pub struct esolm_context {
    state: Mutex<State>,
    cancel: CancelToken,
}

/// What one call at a time uses.
pub(super) struct State {
    pub(super) context: Context,
    /// The caller's prompts in this library's form; their memory is reserved once.
    pub(super) prompts: Vec<Prompt>,
    /// The caller's function on the logits of the generation.
    pub(super) logits: Option<LogitsFunction>,
}

/// esolm_context_params.kv_type: half precision. A model whose keys or values reach 65520 needs ESOLM_KV_F32: this
/// library's kernels end a pass that has one with ESOLM_ERR_NOT_FINITE, ggml's make infinity of it.
pub const ESOLM_KV_F16: i32 = 0;
/// esolm_context_params.kv_type: single precision, for exact comparisons.
pub const ESOLM_KV_F32: i32 = 1;

/// esolm_context_params.kernels: this library's, made for few rows over a long cache. (A model whose widths are no
/// multiples of 8 is computed by ggml's all the same.)
pub const ESOLM_KERNELS_OWN: i32 = 0;
/// esolm_context_params.kernels: ggml's. They do not look for keys and values that ESOLM_KV_F16 cannot hold.
pub const ESOLM_KERNELS_GGML: i32 = 1;

/// Alignment in bytes of the memory for esolm_context_new_in.
pub const ESOLM_ARENA_ALIGNMENT: usize = 64;

const _: () = assert!(ESOLM_ARENA_ALIGNMENT == ALIGNMENT);

/// The limits of a context. Set by esolm_context_params_init; everywhere 0 is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_context_params {
    /// sizeof(esolm_context_params)
    pub struct_size: usize,
    /// Most sequences generated side by side (default 1).
    pub sequences: usize,
    /// Longest sequence in tokens (default and maximum: the model's context length).
    pub length: usize,
    /// Most rows that go through the network at once (default 128). Fewer need less memory; the result is the
    /// same. A text is scored in an order in one pass if this is twice its tokens.
    pub batch_rows: usize,
    /// CPU threads (default: one per core). They sleep between the calls.
    pub threads: usize,
    /// Precision of the K/V cache: ESOLM_KV_F16 or ESOLM_KV_F32.
    pub kv_type: i32,
    /// Who computes on the CPU: ESOLM_KERNELS_OWN or ESOLM_KERNELS_GGML. (Other devices are always ggml's.)
    pub kernels: i32,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_context_params {
    const NAME: &'static str = "esolm_context_params";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        sequences: 0,
        length: 0,
        batch_rows: 0,
        threads: 0,
        kv_type: ESOLM_KV_F16,
        kernels: ESOLM_KERNELS_OWN,
    };
}

impl esolm_context_params {
    pub(super) fn check(&self) -> Result<ContextParams> {
        let none =
            |field, value| Error::invalid(format!("esolm_context_params: there is no {field} {value}"));
        let kv_type = match self.kv_type {
            ESOLM_KV_F16 => KvType::F16,
            ESOLM_KV_F32 => KvType::F32,
            other => return Err(none("kv_type", other)),
        };
        let kernels = match self.kernels {
            ESOLM_KERNELS_OWN => Kernels::Own,
            ESOLM_KERNELS_GGML => Kernels::Ggml,
            other => return Err(none("kernels", other)),
        };
        let Self { sequences, length, batch_rows, threads, .. } = *self;
        Ok(ContextParams { sequences, length, batch_rows, threads, kv_type, kernels })
    }
}

impl esolm_context {
    /// Hands a context to C.
    fn give(context: Context, params: &ContextParams) -> *mut Self {
        let prompt = |_| Prompt { known: Vec::with_capacity(context.length()) };
        let prompts = (0..params.sequences.max(1)).map(prompt).collect();
        let cancel = context.cancel_token();
        Box::into_raw(Box::new(Self { state: Mutex::new(State { context, prompts, logits: None }), cancel }))
    }

    /// Runs `f` as the one user of the context.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match self.state.try_lock() {
            Ok(mut state) => f(&mut state),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Poisoned(_)) => {
                Err(Error::internal("an earlier call on this context failed in its middle; free it"))
            }
        }
    }
}

// What the header says about threads.
const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<esolm_context>();
    shared_by_threads::<Model>();
};

/// Sets the defaults. size is sizeof(esolm_context_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_params_init(
    params: *mut esolm_context_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the caller's struct has `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Tells the bytes of memory that esolm_context_new_in needs for these parameters (NULL: the defaults), exactly.
/// It depends on the machine, too: do not store it. Any thread.
///
/// On a GPU this is the host's part; caches and activations are on the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_arena_size(
    model: *const esolm_model,
    params: *const esolm_context_params,
    out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (out, handle, params) = unsafe {
            (args::out(out, 0, "out")?, args::reference(model, "model")?, params::read(params)?.check()?)
        };
        let size = Context::memory_use(&handle.model, &params)?.arena;
        // SAFETY: `out` is valid for writing.
        unsafe { out.write(size) };
        Ok(())
    })
}

/// Makes a context in the memory that `arena` gives when it is told how many bytes are needed.
///
/// # Safety
/// The pointers must be NULL or valid.
unsafe fn make(
    model: *const esolm_model,
    params: *const esolm_context_params,
    out: *mut *mut esolm_context,
    arena: impl FnOnce(usize) -> Result<Arena>,
) -> Result<()> {
    // SAFETY: what the caller promises.
    let (out, handle, params) = unsafe {
        (args::out(out, null_mut(), "out")?, args::reference(model, "model")?, params::read(params)?.check()?)
    };
    let context = Context::new_in(&handle.model, &params, arena)?;
    // SAFETY: `out` is valid for writing.
    unsafe { out.write(esolm_context::give(context, &params)) };
    Ok(())
}

/// Makes a context with memory of its own.
///
/// params may be NULL for the defaults. *out is NULL on failure. The context holds a reference to the model. All
/// memory for generating is taken now.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_OUT_OF_MEMORY; ESOLM_ERR_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_new(
    model: *const esolm_model,
    params: *const esolm_context_params,
    out: *mut *mut esolm_context,
) -> esolm_status {
    // SAFETY: the caller's pointers are NULL or valid.
    wrap(|| unsafe { make(model, params, out, Arena::allocate) })
}

/// Makes a context in the caller's memory: size bytes at arena, aligned to ESOLM_ARENA_ALIGNMENT, at least as
/// many as esolm_context_arena_size tells. They belong to the context until it is freed; their content does not
/// matter. (Small handles and the texts' bookkeeping are allocated apart, once.)
///
/// Errors: also ESOLM_ERR_BUFFER_TOO_SMALL; nothing was then written to the arena.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_new_in(
    model: *const esolm_model,
    params: *const esolm_context_params,
    arena: *mut c_void,
    size: usize,
    out: *mut *mut esolm_context,
) -> esolm_status {
    let borrow = |needed| {
        let arena = NonNull::new(arena).ok_or_else(|| Error::invalid("arena is NULL"))?.cast();
        if size < needed {
            return Err(Error::BufferTooSmall { given: size, needed });
        }
        // SAFETY: the caller gives these bytes to the context until it is freed.
        unsafe { Arena::borrow(arena, needed) }
    };
    // SAFETY: the caller's pointers are NULL or valid.
    wrap(|| unsafe { make(model, params, out, borrow) })
}

/// Frees a context, which no call may be using. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_free(context: *mut esolm_context) {
    wrap(|| {
        if !context.is_null() {
            // SAFETY: the caller gives back a context that it was given.
            drop(unsafe { Box::from_raw(context) });
        }
        Ok(())
    });
}

/// Forgets the generation of a context: its tokens, its texts, and what would come next. Memory and threads stay,
/// and so does a cancel.
///
/// Errors: ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_reset(context: *mut esolm_context) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointer is NULL or valid.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| {
            state.context.reset();
            Ok(())
        })
    })
}

/// Makes the call that is running on this context end with ESOLM_ERR_CANCELLED soon (on the CPU within a step,
/// else after it), and every later one at once, until esolm_cancel_reset. So it does not matter whether it comes just
/// before a call or while it runs. What is written can still be copied, and of a finished generation esolm_step still
/// says that it is. May be called on a context that is in use: any thread, also a callback. Lock-free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_cancel(context: *const esolm_context) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointer is NULL or valid.
        unsafe { args::reference(context, "context")? }.cancel.cancel();
        Ok(())
    })
}

/// Takes esolm_cancel back: the generation goes on with esolm_step as if nothing had been, or another one can begin.
/// A program that cancels calls this before it lets others know of the next piece of work. Any thread, at any time;
/// lock-free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_cancel_reset(context: *const esolm_context) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointer is NULL or valid.
        unsafe { args::reference(context, "context")? }.cancel.reset();
        Ok(())
    })
}
