//! The caller's functions, and the pointer that each is given.

use std::ffi::c_void;
use std::ops::ControlFlow;

/// A caller's pointer on its way to the caller's function.
#[derive(Clone, Copy)]
pub(super) struct UserData(*mut c_void);

// SAFETY: a caller's function must work, with its user data, on the threads that the header names.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    pub(super) fn new(pointer: *mut c_void) -> Self {
        Self(pointer)
    }

    pub(super) fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Is told how much of a long operation is done, from 0 to 1, and never less than before. 0 goes on, anything else
/// stops it: the call then ends with ESOLM_ERR_CANCELLED. It runs on the thread of the call and must not throw or
/// jump.
pub type esolm_progress_callback = Option<unsafe extern "C" fn(fraction: f64, user_data: *mut c_void) -> i32>;

/// Asks the caller's function, if there is one, whether to go on.
///
/// # Safety
/// The function must take a number and `user_data`.
pub(super) unsafe fn report(
    callback: esolm_progress_callback,
    fraction: f64,
    user_data: *mut c_void,
) -> ControlFlow<()> {
    // SAFETY: what the caller promises.
    match callback.map_or(0, |callback| unsafe { callback(fraction, user_data) }) {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}
