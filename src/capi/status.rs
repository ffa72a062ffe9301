//! Status codes, the last error's message, and [`wrap`], through which every function of C runs its Rust code.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};
use crate::simd::missing_message;

/// The result of a call: ESOLM_OK or one of ESOLM_ERR_*. Later versions may add values; treat them as failures.
pub type esolm_status = i32;

/// Success.
pub const ESOLM_OK: esolm_status = 0;
/// An argument is NULL, out of range or malformed. Nothing was changed.
pub const ESOLM_ERR_INVALID_ARGUMENT: esolm_status = 1;
/// The operating system could not open, read or map a file.
pub const ESOLM_ERR_IO: esolm_status = 2;
/// A file is damaged or not in the format that it claims.
pub const ESOLM_ERR_BAD_FILE: esolm_status = 3;
/// A valid request that this version or this build does not support.
pub const ESOLM_ERR_UNSUPPORTED: esolm_status = 4;
/// The device does not exist, or it failed.
pub const ESOLM_ERR_DEVICE: esolm_status = 5;
/// Not enough memory. Nothing was changed, but where a call says so (esolm_step, esolm_state_restore).
pub const ESOLM_ERR_OUT_OF_MEMORY: esolm_status = 6;
/// esolm_cancel was called, or a callback returned non-zero. The tokens written so far can be read, and esolm_step
/// continues: after a callback at once, after esolm_cancel when esolm_cancel_reset was called.
pub const ESOLM_ERR_CANCELLED: esolm_status = 7;
/// Another call is using the context. Nothing was changed.
pub const ESOLM_ERR_BUSY: esolm_status = 8;
/// The caller's buffer is too small. Nothing was written to it, except a terminating NUL for text.
pub const ESOLM_ERR_BUFFER_TOO_SMALL: esolm_status = 9;
/// The model has no tokenizer, or the tokenizer cannot do this.
pub const ESOLM_ERR_TOKENIZER: esolm_status = 10;
/// The network produced NaN or infinity: the model or a restored state is damaged, or keys and values need ESOLM_KV_F32.
pub const ESOLM_ERR_NOT_FINITE: esolm_status = 11;
/// A bug in this library; please report it.
pub const ESOLM_ERR_INTERNAL: esolm_status = 12;

/// Each status and its text.
const TEXTS: [(esolm_status, &CStr); 13] = [
    (ESOLM_OK, c"ok"),
    (ESOLM_ERR_INVALID_ARGUMENT, c"invalid argument"),
    (ESOLM_ERR_IO, c"input/output error"),
    (ESOLM_ERR_BAD_FILE, c"bad file"),
    (ESOLM_ERR_UNSUPPORTED, c"not supported"),
    (ESOLM_ERR_DEVICE, c"device error"),
    (ESOLM_ERR_OUT_OF_MEMORY, c"out of memory"),
    (ESOLM_ERR_CANCELLED, c"cancelled"),
    (ESOLM_ERR_BUSY, c"the context is in use"),
    (ESOLM_ERR_BUFFER_TOO_SMALL, c"the buffer is too small"),
    (ESOLM_ERR_TOKENIZER, c"tokenizer error"),
    (ESOLM_ERR_NOT_FINITE, c"the network's output is not finite"),
    (ESOLM_ERR_INTERNAL, c"internal error"),
];

/// The status of each of the crate's errors.
fn code(error: &Error) -> esolm_status {
    match error {
        Error::InvalidArgument(_) => ESOLM_ERR_INVALID_ARGUMENT,
        Error::Io { .. } => ESOLM_ERR_IO,
        Error::BadFile { .. } => ESOLM_ERR_BAD_FILE,
        Error::Unsupported(_) => ESOLM_ERR_UNSUPPORTED,
        Error::Device(_) => ESOLM_ERR_DEVICE,
        Error::OutOfMemory(_) => ESOLM_ERR_OUT_OF_MEMORY,
        Error::Cancelled => ESOLM_ERR_CANCELLED,
        Error::Busy => ESOLM_ERR_BUSY,
        Error::BufferTooSmall { .. } => ESOLM_ERR_BUFFER_TOO_SMALL,
        Error::Tokenizer { .. } => ESOLM_ERR_TOKENIZER,
        Error::NotFinite(_) => ESOLM_ERR_NOT_FINITE,
        Error::Internal(_) => ESOLM_ERR_INTERNAL,
    }
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> = const { RefCell::new(LastError::None) };
}

/// A thread's message.
enum LastError {
    None,
    Text(CString),
    /// There was no memory for the text: what the status means in general.
    Static(&'static CStr),
}

impl LastError {
    fn text(&self) -> &CStr {
        match self {
            Self::None => c"",
            Self::Text(text) => text,
            Self::Static(text) => text,
        }
    }
}

/// Runs `f` for C: an error or a panic becomes a status and this thread's message. On a processor that lacks instructions
/// of this build, nothing is run: any code may need them.
#[inline]
pub(super) fn wrap(f: impl FnOnce() -> Result<()>) -> esolm_status {
    match missing_message() {
        None => run(f),
        Some(_) => ESOLM_ERR_UNSUPPORTED,
    }
}

/// Not a part of the function that [`wrap`] is in, so that its code does not begin before the check.
#[inline(never)]
fn run(f: impl FnOnce() -> Result<()>) -> esolm_status {
    // The thread's place for messages is made with its first call, and not when there is something to say: perhaps of memory.
    let _ = LAST_ERROR.try_with(|_| ());
    let error = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => return ESOLM_OK,
        Ok(Err(error)) => error,
        Err(payload) => {
            // Dropping a payload may panic again, so it is leaked.
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let error = Error::internal(format!("panic: {}", text.unwrap_or("unknown")));
            std::mem::forget(payload);
            error
        }
    };
    let status = code(&error);
    let message = message(&error).map_or_else(|| LastError::Static(status_text(status)), LastError::Text);
    // The access fails only while the thread is being torn down; then the message is lost.
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = message;
        }
    });
    status
}

/// An error's message; `None` if there is no memory for it.
fn message(error: &Error) -> Option<CString> {
    let mut message = Message(Vec::new());
    write!(message, "{error}").ok()?;
    // The NUL.
    message.0.try_reserve_exact(1).ok()?;
    CString::new(message.0).ok()
}

/// Text without zeros, as long as there is memory for it.
struct Message(Vec<u8>);

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.try_reserve(text.len()).map_err(|_| fmt::Error)?;
        self.0.extend(text.bytes().filter(|&byte| byte != 0));
        Ok(())
    }
}

/// The message of this thread's last failing call: one line of UTF-8, for people; empty if no call failed. Valid until
/// the next failing call on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn esolm_last_error() -> *const c_char {
    // Then no call does anything, and all fail for this reason.
    missing_message().map_or_else(last_error, CStr::as_ptr)
}

#[inline(never)]
fn last_error() -> *const c_char {
    let found = LAST_ERROR.try_with(|last| last.try_borrow().ok().map(|last| last.text().as_ptr()));
    found.ok().flatten().unwrap_or(c"".as_ptr())
}

/// The general meaning of a status, such as "out of memory". A static string, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn esolm_status_text(status: esolm_status) -> *const c_char {
    status_text(status).as_ptr()
}

fn status_text(status: esolm_status) -> &'static CStr {
    let found = TEXTS.iter().find(|&&(known, _)| known == status);
    found.map_or(c"unknown status", |&(_, text)| text)
}
