//! What is known of a generation, as bytes that can be kept.

use std::ffi::c_void;

use super::args;
use super::context::esolm_context;
use super::status::{esolm_status, wrap};
use crate::error::Error;

/// Copies everything known of the current generation, tokens, order, keys and values, for esolm_state_restore. Steps that
/// are left are not part of it, nor are parameters, constraints and random numbers: esolm_extend takes new ones. A
/// generation that is saved halfway so goes on from the same tokens, but not to the same text.
///
/// At most capacity bytes are written, and their number goes to *size_out. If they do not fit, the result is
/// ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *size_out is the number needed; with capacity 0, data may be NULL. That
/// is worked out without saving anything. Otherwise the call takes memory of the same size for its time.
///
/// Errors: also ESOLM_ERR_BUSY; ESOLM_ERR_UNSUPPORTED as in esolm_extend, and for weights that are on a GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_state_save(
    context: *mut esolm_context,
    data: *mut c_void,
    capacity: usize,
    size_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (size_out, handle) =
            unsafe { (args::out(size_out, 0, "size_out")?, args::reference(context, "context")?) };
        let saved = handle.with(|state| {
            let size = state.context.saved_size()?;
            // SAFETY: `size_out` is the caller's.
            unsafe { args::check_room(size, data, capacity, size_out, "data")? };
            state.context.save()
        })?;
        // SAFETY: the caller's buffer has that capacity.
        unsafe { args::copy_items(&saved, data.cast(), capacity, size_out, "data") }
    })
}

/// Takes up a saved state, size bytes at data, in place of the current generation: its tokens are known, no steps are
/// left, and esolm_extend goes on. The bytes are checked: those of another model, or damaged ones, are an error.
///
/// Errors: ESOLM_ERR_BAD_FILE; ESOLM_ERR_INVALID_ARGUMENT if the context is too small for it; ESOLM_ERR_UNSUPPORTED as in
/// esolm_state_save; ESOLM_ERR_BUSY. The current generation is then still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_state_restore(
    context: *mut esolm_context,
    data: *const c_void,
    size: usize,
) -> esolm_status {
    wrap(|| {
        if data.is_null() {
            return Err(Error::invalid("data is NULL"));
        }
        // SAFETY: the caller's pointers are NULL or valid, and there are `size` bytes.
        let (handle, bytes) =
            unsafe { (args::reference(context, "context")?, args::slice(data.cast::<u8>(), size, "data")?) };
        handle.with(|state| {
            state.context.restore(bytes)?;
            state.logits = None;
            Ok(())
        })
    })
}
