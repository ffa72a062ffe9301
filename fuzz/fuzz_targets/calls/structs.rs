//! Structs and arrays as C gets them, and the check of every status.

use std::ptr::{null, null_mut};

use esolm::capi::*;
use esolm_fuzz::Input;

/// Structs that say their size lie in this many bytes; the library refuses larger ones without reading them.
pub const ROOM: usize = 4096;

/// Memory of [`ROOM`] bytes for one struct.
#[repr(C, align(64))]
pub struct Room([u8; ROOM]);

impl Room {
    /// With this struct, whose size is seldom wrong, and with seldom a byte set behind it.
    pub fn with<T: Copy>(input: &mut Input<'_>, value: T) -> Box<Self> {
        let mut room = Box::new(Self([0; ROOM]));
        // SAFETY: the room is larger than the struct and aligned to 64.
        unsafe { (&raw mut *room).cast::<T>().write(value) };
        if input.seldom() {
            let size = if input.seldom() { input.size() } else { input.below(256) };
            room.0[..8].copy_from_slice(&size.to_ne_bytes());
            room.0[size_of::<T>() + input.below(64)] |= input.byte() & input.byte();
        }
        room
    }

    /// NULL seldom.
    pub fn at<T>(&mut self, input: &mut Input<'_>) -> *mut T {
        if input.byte() >= 240 { null_mut() } else { (&raw mut *self).cast() }
    }
}

/// A struct of defaults, as its function of C sets it.
pub fn defaults<T: Copy>(init: unsafe extern "C" fn(*mut T, usize) -> esolm_status) -> T {
    let mut room = Room([0; ROOM]);
    let pointer = (&raw mut room).cast::<T>();
    // SAFETY: the room is larger than the struct; numbers and pointers may be zero.
    unsafe {
        assert_eq!(init(pointer, size_of::<T>()), ESOLM_OK);
        pointer.read()
    }
}

/// Every status is one of the header's, and none of them a bug.
pub fn check(status: esolm_status) -> bool {
    assert!((ESOLM_OK..ESOLM_ERR_INTERNAL).contains(&status), "status {status}");
    // SAFETY: these return strings.
    let (text, message) = unsafe {
        (std::ffi::CStr::from_ptr(esolm_status_text(status)), std::ffi::CStr::from_ptr(esolm_last_error()))
    };
    assert!(!text.is_empty() && (status == ESOLM_OK || message.to_str().is_ok_and(|said| said.len() > 4)));
    status == ESOLM_OK
}

/// An array that C gets: where it is, and how many entries it has. Of an empty one nothing may be read.
pub fn array<T>(input: &mut Input<'_>, values: &[T]) -> (*const T, usize) {
    match input.byte() {
        // NULL with any count is an error; with 0 it is an empty array.
        250.. => (null(), input.size()),
        _ => (values.as_ptr(), values.len()),
    }
}

pub const ZERO_MEMORY: esolm_memory_use =
    esolm_memory_use { struct_size: 0, weights: 0, arena: 0, kv_cache: 0, compute: 0 };
pub const ZERO_STEP: esolm_step_info = esolm_step_info {
    struct_size: size_of::<esolm_step_info>(),
    index: 0,
    total: 0,
    updates: null(),
    n_updates: 0,
    log_probs: null(),
    texts: null(),
    n_texts: 0,
    n_proposed: 0,
    n_accepted: 0,
};
pub const ZERO_PROFILE: esolm_profile =
    esolm_profile { struct_size: 0, blocks: 0.0, attention: 0.0, vocabulary: 0.0, sampling: 0.0, rest: 0.0 };
pub const ZERO_INFO: esolm_model_info = esolm_model_info {
    struct_size: 0,
    context_length: 0,
    vocab_size: 0,
    mask_token: 0,
    eos_token: 0,
    parameters: 0,
    tensor_bytes: 0,
    file_bytes: 0,
    load_time_us: 0,
};
pub const ZERO_SCORE: esolm_text_score = esolm_text_score {
    struct_size: 0,
    nll: 0.0,
    diffusion: 0.0,
    diffusion_error: 0.0,
    sequential: 0.0,
    sequential_error: 0.0,
};
