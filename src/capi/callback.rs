//! Callbacks of C: the pointer that each is given, and the one that reports progress.

use std::ffi::c_void;
use std::ops::ControlFlow;

/// A caller's pointer on its way to the caller's callback.
#[derive(Clone, Copy)]
pub(super) struct UserData(*mut c_void);

// SAFETY: the library never reads through the pointer; it hands it to the callback, and the header says on which
// threads that is called.
unsafe impl Send for UserData {}
// SAFETY: sharing a `UserData` only copies the pointer; the callback that reads through it is bound by the header's
// rules.
unsafe impl Sync for UserData {}

impl UserData {
    pub(super) fn new(pointer: *mut c_void) -> Self {
        Self(pointer)
    }

    pub(super) fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Called with the fraction done, 0 to 1 and never decreasing; a non-zero return cancels the call with
/// ESOLM_ERR_CANCELLED. Runs on the thread of the call; must not throw or longjmp.
pub type esolm_progress_callback = Option<unsafe extern "C" fn(fraction: f64, user_data: *mut c_void) -> i32>;

/// Calls `callback`, if there is one; the result says whether to continue.
///
/// # Safety
/// `callback` must be safe to call with a number and `user_data`.
pub(super) unsafe fn report(
    callback: esolm_progress_callback,
    fraction: f64,
    user_data: *mut c_void,
) -> ControlFlow<()> {
    // SAFETY: this function's contract says that the callback may be called with these arguments.
    match callback.map_or(0, |callback| unsafe { callback(fraction, user_data) }) {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}
