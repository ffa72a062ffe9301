//! How much memory there must be.

use std::ffi::c_char;

use super::context::esolm_context_params;
use super::model::{esolm_model, esolm_model_params, with_options};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::context::Context;
use crate::forward::MemoryUse;

/// Where memory goes, in bytes. Set struct_size before a call that fills it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_memory_use {
    /// sizeof(esolm_memory_use)
    pub struct_size: usize,
    /// The model's weights, in the mapped file, in memory of their own or on the device. All contexts share them.
    pub weights: usize,
    /// A context's host memory: what esolm_context_arena_size tells. On the CPU the two below are in it, on
    /// another device they are the device's.
    pub arena: usize,
    /// Keys and values of the known tokens.
    pub kv_cache: usize,
    /// Activations, logits and what the operations work in.
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

/// Tells the memory that a context of these parameters (NULL: the defaults) takes, to the byte, without making it.
/// memory->struct_size must be set; on failure the other fields are zero. Any thread.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_memory_use(
    model: *const esolm_model,
    params: *const esolm_context_params,
    memory: *mut esolm_memory_use,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (place, handle, params) = unsafe {
            (params::result(memory)?, args::reference(model, "model")?, params::read(params)?.check()?)
        };
        place.set(Context::memory_use(&handle.model, &params)?.into());
        Ok(())
    })
}

/// Tells the memory that the model in the file at path and a context of it would take. Reads what the file says about
/// itself, not the weights, so it is quick. model_params and context_params may be NULL for the defaults.
/// memory->struct_size must be set; on failure the other fields are zero. Any thread.
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
        // SAFETY: the caller's pointers are NULL or valid.
        let (place, path, limits) = unsafe {
            (params::result(memory)?, args::path(path, "path")?, params::read(context_params)?.check()?)
        };
        // SAFETY: the caller's parameters are NULL or valid.
        let found =
            unsafe { with_options(model_params, |options| Context::estimate(path, options, &limits))? };
        place.set(found.into());
        Ok(())
    })
}
