//! Stopping a computation from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops a generation from another thread. Clones stop the same context.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(pub(crate) Arc<AtomicBool>);

impl CancelToken {
    /// Ends the running call, if there is one, and every later one with [`crate::Error::Cancelled`], until
    /// [`CancelToken::reset`]. So it does not matter whether it comes before a call or while one runs.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Undoes an earlier [`CancelToken::cancel`].
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether [`CancelToken::cancel`] was called since the last [`CancelToken::reset`].
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
