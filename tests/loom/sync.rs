//! Loom's types in place of those of the library's `threads/sync.rs`.

pub(super) use loom::hint::spin_loop;
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use loom::sync::{Condvar, Mutex};
pub(super) use loom::thread::{Builder, JoinHandle, yield_now};

/// No spinning: a thread that waits sleeps at once, or runs on if it need not wait.
pub(super) const SPINS: u32 = 0;
pub(super) const POLL: u32 = 0;
pub(super) const LEADER_YIELDS: u32 = 0;
/// Never: how long something takes may not decide what comes next, or loom could not take the same way again.
pub(super) const STALL: std::time::Duration = std::time::Duration::MAX;

/// A value that loom checks for races.
#[derive(Debug)]
pub(super) struct Cell<T>(loom::cell::UnsafeCell<T>);

// SAFETY: loom finds users that are not synchronised.
unsafe impl<T: Copy + Send> Sync for Cell<T> {}

impl<T: Copy> Cell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    /// # Safety
    /// Loom checks it.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: loom has checked that no thread writes.
        self.0.with(|value| unsafe { *value })
    }

    /// # Safety
    /// Loom checks it.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: loom has checked that no other thread has it.
        self.0.with_mut(|to| unsafe { *to = value });
    }
}
