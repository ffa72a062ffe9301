//! One computing call at a time, and readers beside it (`tests/loom` runs this in every order of events).

use std::sync::{PoisonError, TryLockError};

use super::sync::Mutex;
use crate::error::{Error, Result};

/// A state that one call at a time uses, and a copy of what others may read of it meanwhile.
pub(super) struct Exclusive<T, S> {
    state: Mutex<T>,
    /// Locked for as long as a copy takes.
    snapshot: Mutex<S>,
}

impl<T, S> Exclusive<T, S> {
    pub(super) fn new(state: T, snapshot: S) -> Self {
        Self { state: Mutex::new(state), snapshot: Mutex::new(snapshot) }
    }

    /// Runs `f` as the only user of the state, or fails as busy. `copy` then makes the copy that others read.
    pub(super) fn with<R>(
        &self,
        f: impl FnOnce(&mut T) -> Result<R>,
        copy: impl FnOnce(&T, &mut S),
    ) -> Result<R> {
        match self.state.try_lock() {
            Ok(mut state) => {
                let result = f(&mut state);
                self.publish(&state, copy);
                result
            }
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Poisoned(_)) => {
                Err(Error::internal("an earlier call on this context panicked; free it"))
            }
        }
    }

    /// Has others read the state as it is now; called by its user.
    pub(super) fn publish(&self, state: &T, copy: impl FnOnce(&T, &mut S)) {
        copy(state, &mut self.snapshot.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Reads the last copy, whoever uses the state now.
    pub(super) fn read<R>(&self, f: impl FnOnce(&S) -> Result<R>) -> Result<R> {
        f(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
