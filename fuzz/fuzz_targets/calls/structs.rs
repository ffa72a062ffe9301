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

/// A struct for results: zeros behind its size. It names no field, so that it compiles when the library has a new one.
pub fn sized<T: Copy>() -> T {
    let mut room = Room([0; ROOM]);
    room.0[..size_of::<usize>()].copy_from_slice(&size_of::<T>().to_ne_bytes());
    // SAFETY: as above.
    unsafe { (&raw const room).cast::<T>().read() }
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
