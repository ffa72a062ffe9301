//! `esolm_model`: weights and tokenizer of one file.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use super::callback::{esolm_progress_callback, report};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::{Error, Result};
use crate::model::{LoadMode, LoadOptions, Model};

/// A model: immutable, reference-counted, free to be used from any number of threads at once. Made by
/// esolm_model_open or esolm_model_open_memory, released by esolm_model_free.
pub struct esolm_model {
    pub(super) model: Model,
}

/// esolm_model_params.mode: the file is mapped, and the memory that esolm_model_open_memory is given is used in
/// place. Nothing is copied (but memory at an address that is not a multiple of 32).
pub const ESOLM_MODE_MAP: i32 = 0;
/// esolm_model_params.mode: the model is copied into memory of the library's own.
pub const ESOLM_MODE_COPY: i32 = 1;

/// How to open a model. Set by esolm_model_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_model_params {
    /// sizeof(esolm_model_params)
    pub struct_size: usize,
    /// The device that computes: "cpu", "cuda:0", or another name that esolm_device_info tells. NULL or "auto"
    /// is the first GPU, else the CPU.
    pub device: *const c_char,
    /// ESOLM_MODE_MAP or ESOLM_MODE_COPY.
    pub mode: i32,
    /// 0
    pub reserved: u32,
    /// Is told how much of the file is in place, and may stop the opening; NULL (the default) is nobody. A file that
    /// is mapped for the CPU is in place at once.
    pub progress: esolm_progress_callback,
    /// What progress is given.
    pub progress_data: *mut c_void,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_model_params {
    const NAME: &'static str = "esolm_model_params";
    const VERSION_1: usize = offset_of!(Self, progress);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        device: null(),
        mode: ESOLM_MODE_MAP,
        reserved: 0,
        progress: None,
        progress_data: null_mut(),
    };
}

/// What a model is. Set struct_size before esolm_model_info_get.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_model_info {
    /// sizeof(esolm_model_info)
    pub struct_size: usize,
    /// Longest sequence in tokens.
    pub context_length: usize,
    /// Tokens of the vocabulary, the mask token included.
    pub vocab_size: usize,
    /// The token that stands for one that is not known yet.
    pub mask_token: u32,
    /// The token that ends a text, -1 if there is none.
    pub eos_token: i32,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the weights.
    pub tensor_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// How long opening took, in microseconds.
    pub load_time_us: u64,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_model_info {
    const NAME: &'static str = "esolm_model_info";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        context_length: 0,
        vocab_size: 0,
        mask_token: 0,
        eos_token: 0,
        parameters: 0,
        tensor_bytes: 0,
        file_bytes: 0,
        load_time_us: 0,
    };
}

/// Hands the caller's parameters to `f`.
///
/// # Safety
/// As [`params::read`]; the device must be NULL or a NUL-terminated string, and progress take what is beside it.
pub(super) unsafe fn with_options<T>(
    pointer: *const esolm_model_params,
    f: impl FnOnce(&LoadOptions<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: what the caller promises.
    let params = unsafe { params::read(pointer)? };
    if params.reserved != 0 {
        return Err(Error::invalid("esolm_model_params: reserved is not 0"));
    }
    let mode = match params.mode {
        ESOLM_MODE_MAP => LoadMode::Map,
        ESOLM_MODE_COPY => LoadMode::Copy,
        mode => return Err(Error::invalid(format!("esolm_model_params: there is no mode {mode}"))),
    };
    // SAFETY: what the caller promises.
    let device = unsafe { args::optional_string(params.device, "device")? };
    // SAFETY: what the caller promises.
    let progress = |fraction| unsafe { report(params.progress, fraction, params.progress_data) };
    f(&LoadOptions { device: device.to_owned(), mode, progress: Some(&progress) })
}

/// Hands a model to C, with one reference.
fn give(model: Model) -> *mut esolm_model {
    Arc::into_raw(Arc::new(esolm_model { model })).cast_mut()
}

/// Sets the defaults: device auto, ESOLM_MODE_MAP. size is sizeof(esolm_model_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_params_init(
    params: *mut esolm_model_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the caller's struct has `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Opens the GGUF file at path.
///
/// params may be NULL for the defaults. *out is a model with one reference, NULL on failure. In ESOLM_MODE_MAP
/// the file must not be changed while the model, or a context of it, lives.
///
/// Errors: ESOLM_ERR_IO, ESOLM_ERR_BAD_FILE, ESOLM_ERR_UNSUPPORTED, ESOLM_ERR_DEVICE, ESOLM_ERR_OUT_OF_MEMORY;
/// ESOLM_ERR_CANCELLED if params->progress asks to stop.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_open(
    path: *const c_char,
    params: *const esolm_model_params,
    out: *mut *mut esolm_model,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (out, path) = unsafe { (args::out(out, null_mut(), "out")?, args::path(path, "path")?) };
        // SAFETY: the caller's parameters are NULL or valid.
        let model = unsafe { with_options(params, |options| Model::open(path, options))? };
        // SAFETY: `out` is valid for writing.
        unsafe { out.write(give(model)) };
        Ok(())
    })
}

/// Opens a model whose GGUF file is in memory: size bytes at data.
///
/// In ESOLM_MODE_MAP the memory is used in place: it must stay as it is until the model and all contexts made
/// from it are freed. In ESOLM_MODE_COPY it may go after the call. All else is as in esolm_model_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_open_memory(
    data: *const c_void,
    size: usize,
    params: *const esolm_model_params,
    out: *mut *mut esolm_model,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointer is NULL or valid.
        let out = unsafe { args::out(out, null_mut(), "out")? };
        if data.is_null() {
            return Err(Error::invalid("data is NULL"));
        }
        // SAFETY: the caller promises that the memory outlives everything made from it ('static, as far as this
        // library goes); in the mode that copies, the slice is not kept.
        let bytes: &'static [u8] = unsafe { args::slice(data.cast(), size, "data")? };
        // SAFETY: the caller's parameters are NULL or valid.
        let model = unsafe { with_options(params, |options| Model::from_static(bytes, options))? };
        // SAFETY: `out` is valid for writing.
        unsafe { out.write(give(model)) };
        Ok(())
    })
}

/// Adds a reference, to be released by one more esolm_model_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_retain(model: *const esolm_model) -> esolm_status {
    wrap(|| {
        // SAFETY: a model of C's is the inside of an `Arc` with at least the caller's reference.
        unsafe {
            args::reference(model, "model")?;
            Arc::increment_strong_count(model);
        }
        Ok(())
    })
}

/// Releases a reference; the last one frees the model. Contexts made from it hold references of their own.
/// NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_free(model: *mut esolm_model) {
    wrap(|| {
        if !model.is_null() {
            // SAFETY: the caller gives back a reference that it was given.
            drop(unsafe { Arc::from_raw(model.cast_const()) });
        }
        Ok(())
    });
}

/// Describes a model. info->struct_size must be set; on failure the other fields are zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_info_get(
    model: *const esolm_model,
    info: *mut esolm_model_info,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (place, handle) = unsafe { (params::result(info)?, args::reference(model, "model")?) };
        let (model, config) = (&handle.model, handle.model.config());
        place.set(esolm_model_info {
            struct_size: 0,
            context_length: config.context_length,
            vocab_size: config.vocab_size,
            mask_token: config.mask_token_id,
            eos_token: config.eos_token_id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1),
            parameters: model.parameter_count(),
            tensor_bytes: model.tensor_bytes() as u64,
            file_bytes: model.file_bytes() as u64,
            load_time_us: u64::try_from(model.load_time().as_micros()).unwrap_or(u64::MAX),
        });
        Ok(())
    })
}

/// Tells how many keys the file's metadata has. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_metadata_count(
    model: *const esolm_model,
    out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (out, handle) = unsafe { (args::out(out, 0, "out")?, args::reference(model, "model")?) };
        // SAFETY: `out` is valid for writing.
        unsafe { out.write(handle.model.metadata().len()) };
        Ok(())
    })
}

/// Copies key number index, from 0, of the file's metadata: UTF-8 and a NUL. capacity and *len_out are as in
/// esolm_detokenize. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_metadata_key(
    model: *const esolm_model,
    index: usize,
    key: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (len_out, handle) =
            unsafe { (args::out(len_out, 0, "len_out")?, args::reference(model, "model")?) };
        let found = handle.model.metadata().get(index);
        let (found, _) = found.ok_or_else(|| Error::invalid(format!("there is no key number {index}")))?;
        // SAFETY: the caller's buffer has that capacity.
        unsafe { args::copy_text(found, key, capacity, len_out) }
    })
}

/// Copies the value of a key of the file's metadata, such as "general.name": UTF-8 and a NUL. Text is as it is, a
/// number in decimal, a truth value "true" or "false", an array "[1, 2]" or, with JSON's escapes, "[\"a\", \"b\"]".
/// capacity and *len_out are as in esolm_detokenize. Any thread.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT also if there is no such key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_metadata_get(
    model: *const esolm_model,
    key: *const c_char,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (len_out, handle, key) = unsafe {
            (args::out(len_out, 0, "len_out")?, args::reference(model, "model")?, args::string(key, "key")?)
        };
        let found = handle.model.metadata_value(key);
        let found = found.ok_or_else(|| Error::invalid(format!("there is no key '{key}'")))?;
        // SAFETY: the caller's buffer has that capacity.
        unsafe { args::copy_text(&found.to_text(), text, capacity, len_out) }
    })
}
