//! Where messages go.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use super::callback::UserData;
use super::status::wrap;
use crate::log::{LogLevel, set_log_receiver};

/// Level of a message: something failed.
pub const ESOLM_LOG_ERROR: i32 = 1;
/// Level of a message: something is odd but works.
pub const ESOLM_LOG_WARN: i32 = 2;
/// Level of a message: progress of slow operations.
pub const ESOLM_LOG_INFO: i32 = 3;
/// Level of a message: for people who look for a defect.
pub const ESOLM_LOG_DEBUG: i32 = 4;

/// Receives a message: its level (ESOLM_LOG_*), and UTF-8 text that is valid during the call. It may be called
/// from any thread, from several at once, and must not throw.
pub type esolm_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// Sends all later messages of this process's esolm to callback; NULL, as at the start, is silence. A message
/// that another thread is just sending may still arrive at the old callback. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_set_log_callback(callback: esolm_log_callback, user_data: *mut c_void) {
    wrap(|| {
        let user_data = UserData::new(user_data);
        set_log_receiver(callback.map(|callback| {
            let receiver = move |level: LogLevel, message: &str| {
                let text = message.replace('\0', "");
                let Ok(text) = CString::new(text) else { return };
                // SAFETY: the caller's function takes a level, a text and the caller's own pointer.
                unsafe { callback(level as i32, text.as_ptr(), user_data.get()) };
            };
            Arc::new(receiver) as crate::log::LogReceiver
        }));
        Ok(())
    });
}
