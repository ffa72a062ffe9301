//! The callback that receives log messages.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use super::callback::UserData;
use super::status::{esolm_status, wrap};
use crate::error::Error;
use crate::log::{LogLevel, set_log_level, set_log_receiver};

/// Something failed.
pub const ESOLM_LOG_ERROR: i32 = 1;
/// Something is unusual but works.
pub const ESOLM_LOG_WARN: i32 = 2;
/// What was done, once for each model and context: how a file was opened, which kernels run, how much memory is taken.
pub const ESOLM_LOG_INFO: i32 = 3;
/// Details for debugging.
pub const ESOLM_LOG_DEBUG: i32 = 4;

/// Called with each message: its level (ESOLM_LOG_*) and UTF-8 text that is valid during the call. May be called from
/// any thread and from several at once; must not throw.
pub type esolm_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// Sets the callback that receives all later messages of this process. NULL (the default): no messages. A message that
/// another thread is just sending may still reach the previous callback. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_set_log_callback(callback: esolm_log_callback, user_data: *mut c_void) {
    wrap(|| {
        let user_data = UserData::new(user_data);
        set_log_receiver(callback.map(|callback| {
            let receiver = move |level: LogLevel, message: &str| {
                let text = message.replace('\0', "");
                let Ok(text) = CString::new(text) else { return };
                // SAFETY: the caller's function has this signature, and the text outlives the call.
                unsafe { callback(level as i32, text.as_ptr(), user_data.get()) };
            };
            Arc::new(receiver) as crate::log::LogReceiver
        }));
        Ok(())
    });
}

/// Sends messages of this level and of more severe ones to the callback: ESOLM_LOG_* (default: ESOLM_LOG_INFO). For all of
/// this process. Any thread.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub extern "C" fn esolm_set_log_level(level: i32) -> esolm_status {
    wrap(|| {
        let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug];
        let known = levels.into_iter().find(|&known| known as i32 == level);
        set_log_level(known.ok_or_else(|| Error::invalid(format!("unknown log level {level}")))?);
        Ok(())
    })
}
