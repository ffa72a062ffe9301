//! The barrier at which threads wait for each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Times a waiting thread spins before it starts to yield its core: some microseconds.
const SPINS: u32 = if cfg!(miri) { 2 } else { 200 };

/// How often a waiting thread yields its core before it sleeps. A thread that sleeps returns late: next to a busy
/// process, whatever its priority, only when the time slice of that process ends. The threads that wait for it would
/// sleep and be late in turn. Yielding returns at once when no other thread wants the core.
#[derive(Clone, Copy)]
pub(super) enum WaitPolicy {
    /// Within a job, where the other threads are at work: ten milliseconds and more, longer than a time slice.
    Job,
    /// Between jobs, where the next one depends on the caller: about a millisecond.
    Idle,
}

impl WaitPolicy {
    fn yields(self) -> u32 {
        match self {
            _ if cfg!(miri) => 2,
            Self::Job => 30_000,
            Self::Idle => 2000,
        }
    }
}

/// A barrier at which threads spin and yield for a while before they sleep.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    arrived: AtomicUsize,
    /// How many times the barrier has opened.
    opened: AtomicUsize,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    /// Arrives as `weight` threads and waits for all `size`; the last to arrive calls `last` before the barrier opens.
    pub(super) fn wait(&self, size: usize, weight: usize, policy: WaitPolicy, last: impl FnOnce()) {
        let opened = self.opened.load(Ordering::SeqCst);
        if self.arrived.fetch_add(weight, Ordering::SeqCst) + weight == size {
            last();
            self.arrived.store(0, Ordering::SeqCst);
            self.opened.store(opened.wrapping_add(1), Ordering::SeqCst);
            // A thread counts itself as sleeping before its last check, so it either sees the barrier open or is seen.
            if self.sleeping.load(Ordering::SeqCst) > 0 {
                drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
                self.wake.notify_all();
            }
            return;
        }
        let open = || self.opened.load(Ordering::SeqCst) != opened;
        for spin in 0..SPINS + policy.yields() {
            if open() {
                return;
            }
            if spin < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !open() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}
