//! `esolm_model`: the weights and the tokenizer of one file.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use super::callback::{esolm_progress_callback, report};
use super::device::fixed;
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::Result;
use crate::model::{Feature, LoadMode, LoadOptions, Model};

/// A model: immutable, reference-counted, usable from any number of threads at once. Released by esolm_model_free.
pub struct esolm_model {
    pub(super) model: Model,
}

/// The file is mapped, or the memory given to esolm_model_open_memory is used in place. Nothing is copied (except
/// memory whose address is not a multiple of 32).
pub const ESOLM_MODE_MAP: i32 = 0;
/// The model is copied into memory of the library.
pub const ESOLM_MODE_COPY: i32 = 1;
/// If the rows of quantized matrices are plain in the file (esolm inspect), the tensors are copied into memory of the library,
/// with these in panels, as its CPU kernels read them fastest. Otherwise as ESOLM_MODE_MAP, as on other devices;
/// memory given to esolm_model_open_memory is copied.
pub const ESOLM_MODE_REPACK: i32 = 2;

/// For esolm_model_supports: diffusion, several tokens in a step. All but autoregressive models.
pub const ESOLM_FEATURE_DIFFUSION: i32 = 1;
/// Writing one by one, left to right. All but MDLM, BD3-LM, and Eso-LM (A) that was trained for diffusion alone.
pub const ESOLM_FEATURE_SEQUENTIAL: i32 = 2;
/// Orders other than left to right. Eso-LM and MDLM.
pub const ESOLM_FEATURE_ORDERS: i32 = 3;
/// Adaptive steps (esolm_generate_params.confidence). All but autoregressive models.
pub const ESOLM_FEATURE_ADAPTIVE: i32 = 4;
/// Known tokens behind unknown ones: templates, suffixes. All but autoregressive models.
pub const ESOLM_FEATURE_HOLES: i32 = 5;
/// esolm_extend. Models that keep keys and values between steps: all but Eso-LM (A) and MDLM.
pub const ESOLM_FEATURE_EXTEND: i32 = 6;
/// esolm_state_save. As ESOLM_FEATURE_EXTEND.
pub const ESOLM_FEATURE_STATES: i32 = 7;
/// The likelihood of a text in an order. As ESOLM_FEATURE_SEQUENTIAL.
pub const ESOLM_FEATURE_SCORE_ORDER: i32 = 8;
/// The diffusion bound of a text's likelihood. All but autoregressive models and WeDLM.
pub const ESOLM_FEATURE_SCORE_DIFFUSION: i32 = 9;
/// Text: the file has a tokenizer that can be used. (Asking makes it.)
pub const ESOLM_FEATURE_TEXT: i32 = 10;
/// esolm_generate_params.step_text and .stop_strings. With tokenizers whose texts can be made token by token.
pub const ESOLM_FEATURE_STEP_TEXT: i32 = 11;
/// esolm_constraints.regex and .json_schema. As ESOLM_FEATURE_SEQUENTIAL and ESOLM_FEATURE_TEXT, in a build with the feature
/// "grammar".
pub const ESOLM_FEATURE_GRAMMAR: i32 = 12;
/// esolm_generate_params.lookahead. WeDLM, and Eso-LM but for (A) that was trained for diffusion alone.
pub const ESOLM_FEATURE_LOOKAHEAD: i32 = 13;
/// esolm_chat_apply without a template of the caller's: the file has a chat template. In a build with the feature "chat".
pub const ESOLM_FEATURE_CHAT: i32 = 14;

/// No token: the value of esolm_model_info.eos_token, and of others, for a model without such a token.
pub const ESOLM_NO_TOKEN: u32 = u32::MAX;

/// How to open a model. Set by esolm_model_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_model_params {
    /// sizeof(esolm_model_params)
    pub struct_size: usize,
    /// The device to use: "cpu", "cuda:0" or another esolm_device_info.name. NULL (default) or "auto": the first GPU,
    /// or the CPU if there is none.
    pub device: *const c_char,
    /// ESOLM_MODE_MAP (default), ESOLM_MODE_COPY or ESOLM_MODE_REPACK.
    pub mode: i32,
    /// Reserved, must be 0.
    pub reserved: u32,
    /// Called with the fraction loaded; NULL (default): not called. A file that is mapped for the CPU is loaded at
    /// once.
    pub progress_callback: esolm_progress_callback,
    /// Passed to progress_callback.
    pub progress_user_data: *mut c_void,
    /// 1: the weights are locked in main memory, so that the system never moves them out (mlock). If it refuses, a warning
    /// in the log says why (usually RLIMIT_MEMLOCK), and the model is opened all the same. 0 (default): they are not.
    pub use_mlock: i32,
    /// 1: a mapped file's pages are read in before the call returns, with progress_callback. 0 (default): when they are
    /// first used.
    pub prefetch: i32,
    /// With has_mask_token: the mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it, which makes it WeDLM.
    pub mask_token: u32,
    /// Whether mask_token is given: 1, or 0 (default).
    pub has_mask_token: i32,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_model_params {
    const NAME: &'static str = "esolm_model_params";
    const VERSION_1: usize = offset_of!(Self, progress_callback);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        device: null(),
        mode: ESOLM_MODE_MAP,
        reserved: 0,
        progress_callback: None,
        progress_user_data: null_mut(),
        use_mlock: 0,
        prefetch: 0,
        mask_token: 0,
        has_mask_token: 0,
    };

    fn reserved(&self) -> u32 {
        self.reserved
    }
}

/// Facts about a model. Set struct_size before esolm_model_info_get.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_model_info {
    /// sizeof(esolm_model_info)
    pub struct_size: usize,
    /// Maximum length of a sequence in tokens.
    pub context_length: usize,
    /// Number of tokens in the vocabulary, the mask token included.
    pub vocab_size: usize,
    /// The mask token, which stands for an unknown token.
    pub mask_token: u32,
    /// The token that ends a text; ESOLM_NO_TOKEN if there is none.
    pub eos_token: u32,
    /// Number of weights.
    pub parameters: u64,
    /// Size of the weights in bytes.
    pub tensor_bytes: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Time that opening took, in microseconds.
    pub load_time_us: u64,
    /// The device that its weights are on, as in esolm_device_info.name. NUL-terminated.
    pub device: [c_char; 64],
    /// The token that begins a text; ESOLM_NO_TOKEN if there is none.
    pub bos_token: u32,
    /// The token that the library puts before each text by itself, as llama.cpp does where a file asks for it; ESOLM_NO_TOKEN if there is
    /// none.
    pub prepended_token: u32,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_model_info {
    const NAME: &'static str = "esolm_model_info";
    const VERSION_1: usize = offset_of!(Self, device);
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
        device: [0; 64],
        bos_token: 0,
        prepended_token: 0,
    };
}

/// Calls `f` with the caller's parameters in the library's form.
///
/// # Safety
/// `pointer` must be as [`params::read`] wants it, its device NULL or a NUL-terminated string, and its
/// progress callback safe to call with its user data.
pub(super) unsafe fn with_options<T>(
    pointer: *const esolm_model_params,
    f: impl FnOnce(&LoadOptions<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: the contract asks of `pointer` what `params::read` asks.
    let params = unsafe { params::read(pointer)? };
    let mode = match params.mode {
        ESOLM_MODE_MAP => LoadMode::Map,
        ESOLM_MODE_COPY => LoadMode::Copy,
        ESOLM_MODE_REPACK => LoadMode::Repack,
        other => return Err(params::unknown::<esolm_model_params>("mode", other)),
    };
    // SAFETY: the contract says that the device is NULL or a NUL-terminated string.
    let device = unsafe { args::optional_string(params.device, "device")? };
    // SAFETY: the contract says that the callback may be called with its user data.
    let progress =
        |fraction| unsafe { report(params.progress_callback, fraction, params.progress_user_data) };
    let mlock = params::flag::<esolm_model_params>("use_mlock", params.use_mlock)?;
    let prefetch = params::flag::<esolm_model_params>("prefetch", params.prefetch)?;
    let has_mask = params::flag::<esolm_model_params>("has_mask_token", params.has_mask_token)?;
    let mask_token = has_mask.then_some(params.mask_token);
    let (device, progress) = (device.to_owned(), Some(&progress as _));
    f(&LoadOptions { device, mode, mlock, prefetch, mask_token, progress })
}

/// Hands a model to C, with one reference.
pub(super) fn give(model: Model) -> *mut esolm_model {
    Arc::into_raw(Arc::new(esolm_model { model })).cast_mut()
}

/// Sets the defaults; size is sizeof(esolm_model_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_params_init(
    params: *mut esolm_model_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Opens the GGUF file at path. params may be NULL for the defaults. *out is a model with one reference, NULL on
/// failure. With ESOLM_MODE_MAP the file must not change while the model, or a context of it, lives.
///
/// Errors: ESOLM_ERR_IO, ESOLM_ERR_BAD_FILE, ESOLM_ERR_UNSUPPORTED, ESOLM_ERR_DEVICE, ESOLM_ERR_OUT_OF_MEMORY;
/// ESOLM_ERR_INVALID_ARGUMENT for a mode or a flag that there is not, a mask token that the file does not take or that is missing;
/// ESOLM_ERR_CANCELLED if progress_callback cancels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_open(
    path: *const c_char,
    params: *const esolm_model_params,
    out: *mut *mut esolm_model,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, path) = unsafe { (args::out(out, null_mut(), "out")?, args::path(path, "path")?) };
        // SAFETY: the header requires NULL or valid parameters, with a valid device name and callback.
        let model = unsafe { with_options(params, |options| Model::open(path, options))? };
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(give(model)) };
        Ok(())
    })
}

/// Opens a model whose GGUF file is in memory: size bytes at data. With ESOLM_MODE_MAP the memory is used in place and
/// must not change until the model and its contexts are freed; with ESOLM_MODE_COPY it may be freed after the call.
/// Otherwise as esolm_model_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_open_memory(
    data: *const c_void,
    size: usize,
    params: *const esolm_model_params,
    out: *mut *mut esolm_model,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a pointer valid for writing.
        let out = unsafe { args::out(out, null_mut(), "out")? };
        if data.is_null() {
            return Err(args::null("data"));
        }
        // SAFETY: the header requires `size` bytes that outlive everything made from them, so 'static holds for all
        // that keeps the slice; when the model is copied, nothing does.
        let bytes: &'static [u8] = unsafe { args::slice(data.cast(), size, "data")? };
        // SAFETY: the header requires NULL or valid parameters, with a valid device name and callback.
        let model = unsafe { with_options(params, |options| Model::from_static(bytes, options))? };
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(give(model)) };
        Ok(())
    })
}

/// Adds a reference, to be released by another esolm_model_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_retain(model: *const esolm_model) -> esolm_status {
    wrap(|| {
        // SAFETY: `give` made this pointer from an `Arc`, whose count is at least the caller's reference.
        unsafe {
            args::reference(model, "model")?;
            Arc::increment_strong_count(model);
        }
        Ok(())
    })
}

/// Releases a reference; the last one frees the model. Its contexts hold references of their own. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_free(model: *mut esolm_model) {
    wrap(|| {
        if !model.is_null() {
            // SAFETY: `give` made this pointer from an `Arc`, and the header allows each reference to be released once.
            drop(unsafe { Arc::from_raw(model.cast_const()) });
        }
        Ok(())
    });
}

/// Writes to *info what the model is. info->struct_size must be set; on failure the other fields are 0. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_info_get(
    model: *const esolm_model,
    info: *mut esolm_model_info,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (place, handle) = unsafe { (params::result(info)?, args::reference(model, "model")?) };
        let (model, config) = (&handle.model, handle.model.config());
        place.set(esolm_model_info {
            struct_size: 0,
            context_length: config.context_length,
            vocab_size: config.vocab_size,
            mask_token: config.mask_token_id,
            eos_token: config.eos_token_id.unwrap_or(ESOLM_NO_TOKEN),
            parameters: model.parameter_count(),
            tensor_bytes: model.tensor_bytes() as u64,
            file_bytes: model.file_bytes() as u64,
            load_time_us: u64::try_from(model.load_time().as_micros()).unwrap_or(u64::MAX),
            device: fixed(model.device_name()),
            bos_token: config.bos_token_id.unwrap_or(ESOLM_NO_TOKEN),
            prepended_token: config.token_before_texts().unwrap_or(ESOLM_NO_TOKEN),
        });
        Ok(())
    })
}

/// 1 if this model, in this build of the library, can do something, ESOLM_FEATURE_*; otherwise 0, as for NULL and for features
/// that the library does not know. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_supports(model: *const esolm_model, feature: i32) -> i32 {
    let mut supports = false;
    wrap(|| {
        let feature = Feature::ALL.into_iter().find(|&known| known as i32 == feature);
        // SAFETY: the header requires NULL or a model.
        let model = unsafe { model.as_ref() };
        supports = model.zip(feature).is_some_and(|(handle, feature)| handle.model.supports(feature));
        Ok(())
    });
    supports.into()
}
