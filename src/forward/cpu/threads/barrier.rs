//! Where threads wait for one another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Looks at a gate before a thread lets others have its core: some microseconds.
const LOOKS: u32 = if cfg!(miri) { 2 } else { 200 };

/// How often a thread that waits offers its core to others before it sleeps. Who sleeps comes back late: beside a
/// busy process, whatever its priority, only when the time slice of that one is over. So a thread that had to wait for
/// another's return would itself return late, and so on. Offering the core is over at once where nobody wants it.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Within a job, where the others are at work: ten milliseconds and more, longer than a time slice.
    Job,
    /// Between jobs, where it depends on the caller: about a millisecond.
    Idle,
}

impl Patience {
    fn offers(self) -> u32 {
        match self {
            _ if cfg!(miri) => 2,
            Self::Job => 30_000,
            Self::Idle => 2000,
        }
    }
}

/// A barrier at which threads look and offer their cores for a while before they sleep.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    arrived: AtomicUsize,
    /// Times that the gate has opened.
    opened: AtomicUsize,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Gate {
    /// Arrives as `weight` threads and waits for all `size`; the last one calls `last` before the gate opens.
    pub(crate) fn batch(&self, size: usize, weight: usize, patience: Patience, last: impl FnOnce()) {
        let opened = self.opened.load(Ordering::SeqCst);
        if self.arrived.fetch_add(weight, Ordering::SeqCst) + weight == size {
            last();
            self.arrived.store(0, Ordering::SeqCst);
            self.opened.store(opened.wrapping_add(1), Ordering::SeqCst);
            // A sleeper counts itself before it looks a last time, so either it sees the gate open or is seen.
            if self.sleeping.load(Ordering::SeqCst) > 0 {
                drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
                self.wake.notify_all();
            }
            return;
        }
        let open = || self.opened.load(Ordering::SeqCst) != opened;
        for look in 0..LOOKS + patience.offers() {
            if open() {
                return;
            }
            if look < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
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
