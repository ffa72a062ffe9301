//! What the threads synchronise with, in one place: `tests/loom` puts loom's types in place of these.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Condvar, Mutex};
pub(super) use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Times a waiting thread spins before it starts to yield its core: some microseconds.
pub(super) const SPINS: u32 = if cfg!(miri) { 2 } else { 200 };

/// Times that a thread of a pool yields its core, while it waits for an operation, before it sleeps: about a
/// millisecond.
pub(super) const POLL: u32 = if cfg!(miri) { 2 } else { 2000 };
/// The same for the leader, which waits for threads that are at work: ten milliseconds and more, longer than a time slice.
pub(super) const LEADER_YIELDS: u32 = if cfg!(miri) { 2 } else { 30_000 };

/// A leader that waited so long, and longer than it worked itself, waited for a thread that did not run.
pub(super) const STALL: Duration = Duration::from_millis(1);

pub(super) use std::hint::spin_loop;
pub(super) use std::thread::yield_now;

/// A value that one thread sets while no other has it.
#[derive(Debug)]
pub(super) struct Cell<T>(std::cell::UnsafeCell<T>);

// SAFETY: callers of its functions see to it that nobody reads while one writes.
unsafe impl<T: Copy + Send> Sync for Cell<T> {}

impl<T: Copy> Cell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// # Safety
    /// No thread sets it at the same time.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: the caller rules out writers.
        unsafe { *self.0.get() }
    }

    /// # Safety
    /// No other thread uses it at the same time.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: the caller rules out other users.
        unsafe { *self.0.get() = value }
    }
}
