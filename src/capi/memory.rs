//! How much memory a model and a context take.

use std::ffi::c_char;

use super::context::esolm_context_params;
use super::model::{esolm_model, esolm_model_params, with_options};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::context::Context;
use crate::forward::MemoryUse;

/// How much memory is used for what, in bytes. Set struct_size before a call that fills it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_memory_use {
    /// sizeof(esolm_memory_use)
    pub struct_size: usize,
    /// The model's weights: in the mapped file, in host memory or on the device. All contexts share them. Where
    /// ggml's kernels run on the CPU and matrices lie in panels, a copy of all in plain rows is counted, too.
    pub weights: usize,
    /// A context's host memory: esolm_context_arena_size. On the CPU it includes the two below; those of another device
    /// are in its memory.
    pub arena: usize,
    /// The K/V cache: keys and values of the known tokens.
    pub kv_cache: usize,
    /// Activations, logits and scratch memory of the operations.
    pub compute: usize,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_memory_use {
    const NAME: &'static str = "esolm_memory_use";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self =
        Self { struct_size: size_of::<Self>(), weights: 0, arena: 0, kv_cache: 0, compute: 0 };
}

impl From<MemoryUse> for esolm_memory_use {
    fn from(MemoryUse { weights, arena, kv_cache, compute }: MemoryUse) -> Self {
        Self { struct_size: 0, weights, arena, kv_cache, compute }
    }
}

/// Writes to *memory the exact memory of a context with these parameters (NULL: the defaults), without making it.
/// memory->struct_size must be set; on failure the other fields are 0. Any thread.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_memory_use(
    model: *const esolm_model,
    params: *const esolm_context_params,
    memory: *mut esolm_memory_use,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid, structs for as many bytes as struct_size says.
        let (place, handle, params) = unsafe {
            (params::result(memory)?, args::reference(model, "model")?, params::read(params)?.check()?)
        };
        place.set(Context::memory_use(&handle.model, &params)?.into());
        Ok(())
    })
}

/// Writes to *memory the memory that the model in the file at path and a context of it would take. Reads the metadata
/// of the file, not its weights, so it is quick. model_params and context_params may be NULL for the defaults.
/// memory->struct_size must be set; on failure the other fields are 0. Any thread.
///
/// Errors: as esolm_model_open and esolm_context_memory_use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_memory_estimate(
    path: *const c_char,
    model_params: *const esolm_model_params,
    context_params: *const esolm_context_params,
    memory: *mut esolm_memory_use,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid, structs for as many bytes as struct_size says.
        let (place, path, limits) = unsafe {
            (params::result(memory)?, args::path(path, "path")?, params::read(context_params)?.check()?)
        };
        // SAFETY: the header requires NULL or valid parameters, with a valid device name and callback.
        let found =
            unsafe { with_options(model_params, |options| Context::estimate(path, options, &limits))? };
        place.set(found.into());
        Ok(())
    })
}
