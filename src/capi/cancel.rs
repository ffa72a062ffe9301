//! Cancelling what runs on a context.

use super::args;
use super::context::esolm_context;
use super::status::{esolm_status, wrap};

/// Makes the call that is running on this context end with ESOLM_ERR_CANCELLED (within the step; on other devices than
/// the CPU between parts of a batch), and every later one at once, until esolm_cancel_reset. So it does not matter
/// whether it comes just before a call or during it. Tokens written so far can still be copied, and esolm_step still
/// reports a finished generation. May be called while the context is in use: from any thread, also from a callback. Lock-free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_cancel(context: *const esolm_context) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        unsafe { args::reference(context, "context")? }.cancel.cancel();
        Ok(())
    })
}

/// Undoes esolm_cancel: esolm_step continues as if nothing had happened, or another generation can begin. To cancel one
/// piece of work and no later one, call this before other threads learn of the later one. Any thread, at any time;
/// lock-free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_cancel_reset(context: *const esolm_context) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        unsafe { args::reference(context, "context")? }.cancel.reset();
        Ok(())
    })
}
