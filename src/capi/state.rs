//! The known part of a generation as bytes, to be saved and restored.

use std::ffi::c_void;

use super::args;
use super::context::esolm_context;
use super::status::{esolm_status, wrap};
use crate::context::Context;
use crate::error::Result;

/// Copies the known part of the current generation for esolm_state_restore: tokens, order, keys and values. The steps
/// that are left are not included, nor are parameters, constraints and the random numbers; esolm_extend takes new ones.
/// So a generation that is saved halfway continues from the same tokens, but to another text.
///
/// At most capacity bytes are written, their number in *size_out. If they do not fit, none is written and *size_out is
/// the number needed (ESOLM_ERR_BUFFER_TOO_SMALL), which is found without saving; with capacity 0, data may be NULL.
/// Otherwise the call allocates as many bytes and frees them.
///
/// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_BUSY; ESOLM_ERR_UNSUPPORTED as in esolm_extend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_state_save(
    context: *mut esolm_context,
    data: *mut c_void,
    capacity: usize,
    size_out: *mut usize,
) -> esolm_status {
    let size = |context: &Context| context.saved_size();
    // SAFETY: as the header requires it of the arguments.
    unsafe { save(context, data, capacity, size_out, size, |context| context.save()) }
}

/// Copies what `save` makes, which is as long as `size` says.
///
/// # Safety
/// Each pointer must be NULL or valid for the call, with room for `capacity` bytes at `data`.
pub(super) unsafe fn save(
    context: *mut esolm_context,
    data: *mut c_void,
    capacity: usize,
    size_out: *mut usize,
    size: impl FnOnce(&Context) -> Result<usize>,
    save: impl FnOnce(&Context) -> Result<Vec<u8>>,
) -> esolm_status {
    wrap(|| {
        // SAFETY: by the caller.
        let (size_out, handle) =
            unsafe { (args::out(size_out, 0, "size_out")?, args::reference(context, "context")?) };
        let saved = handle.with(|state| {
            let size = size(&state.context)?;
            // SAFETY: `size_out` is not NULL (`args::out`), and valid by the caller.
            unsafe { args::check_room(size, data, capacity, size_out, "data")? };
            save(&state.context)
        })?;
        // SAFETY: there is room for `capacity` bytes by the caller; `size_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_items(&saved, data.cast(), capacity, size_out, "data") }
    })
}

/// A context, and the bytes of a state.
///
/// # Safety
/// Each pointer must be NULL or valid for the call, with `size` bytes at `data`.
pub(super) unsafe fn given<'a>(
    context: *mut esolm_context,
    data: *const c_void,
    size: usize,
) -> Result<(&'a esolm_context, &'a [u8])> {
    if data.is_null() {
        return Err(args::null("data"));
    }
    // SAFETY: by the caller.
    unsafe { Ok((args::reference(context, "context")?, args::slice(data.cast::<u8>(), size, "data")?)) }
}

/// Replaces the current generation by a saved state, size bytes at data: its tokens are known, no steps are left, and
/// esolm_extend continues. The bytes are checked; those of another model and damaged ones are refused.
///
/// Errors: ESOLM_ERR_BAD_FILE; ESOLM_ERR_INVALID_ARGUMENT if the context is too small for the state;
/// ESOLM_ERR_UNSUPPORTED as in esolm_state_save; ESOLM_ERR_CANCELLED; ESOLM_ERR_BUSY; ESOLM_ERR_OUT_OF_MEMORY; ESOLM_ERR_DEVICE. The
/// current generation is then still there, but for the last two on a device or with ESOLM_KERNELS_GGML, after which there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_state_restore(
    context: *mut esolm_context,
    data: *const c_void,
    size: usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and `size` bytes at `data`.
        let (handle, bytes) = unsafe { given(context, data, size)? };
        handle.with(|state| {
            state.context.restore(bytes)?;
            state.logits.fill(None);
            Ok(())
        })
    })
}
