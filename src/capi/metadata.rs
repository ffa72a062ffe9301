//! The metadata of a model's file.

use std::ffi::c_char;

use super::args;
use super::model::esolm_model;
use super::status::{esolm_status, wrap};
use crate::error::Error;

/// Writes to *out the number of keys in the file's metadata. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_metadata_count(
    model: *const esolm_model,
    out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle) = unsafe { (args::out(out, 0, "out")?, args::reference(model, "model")?) };
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(handle.model.metadata().len()) };
        Ok(())
    })
}

/// Copies key number index, from 0, as UTF-8 with a NUL. capacity and *len_out are as in esolm_detokenize. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_metadata_key(
    model: *const esolm_model,
    index: usize,
    key: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (len_out, handle) =
            unsafe { (args::out(len_out, 0, "len_out")?, args::reference(model, "model")?) };
        let found = handle.model.metadata().get(index);
        let (found, _) = found.ok_or_else(|| Error::invalid(format!("there is no key {index}")))?;
        // SAFETY: the header requires room for `capacity` bytes; `len_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_text(found, key, capacity, len_out) }
    })
}

/// Copies the value of a key, such as "general.name", as UTF-8 with a NUL. A string is copied as it is, a number is
/// decimal, a boolean "true" or "false", an array "[1, 2]" or, with JSON's escapes, "[\"a\", \"b\"]". capacity and
/// *len_out are as in esolm_detokenize. Any thread.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, also if there is no such key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_metadata_get(
    model: *const esolm_model,
    key: *const c_char,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (len_out, handle, key) = unsafe {
            (args::out(len_out, 0, "len_out")?, args::reference(model, "model")?, args::string(key, "key")?)
        };
        let found = handle.model.metadata_value(key);
        let found = found.ok_or_else(|| Error::invalid(format!("there is no key '{key}'")))?;
        // SAFETY: the header requires room for `capacity` bytes; `len_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_text(&found.try_to_text()?, text, capacity, len_out) }
    })
}
