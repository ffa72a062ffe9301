//! Where threads wait for others: they spin, then yield their core, then sleep.

use std::sync::PoisonError;

use super::sync::{AtomicUsize, Condvar, Mutex, Ordering, SPINS, spin_loop, yield_now};

/// Where threads wait until something has become true.
#[derive(Debug)]
pub(super) struct Bell {
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self { sleeping: AtomicUsize::new(0), lock: Mutex::new(()), wake: Condvar::new() }
    }

    /// Waits until `ready`; who makes it true calls [`Bell::ring`] then. The
    /// thread sleeps when it has yielded its core `yields` times.
    ///
    /// A thread that sleeps returns late: next to a busy process, whatever its priority, only when the time slice of
    /// that process ends. Yielding returns at once when no other thread wants the core.
    pub(super) fn wait(&self, yields: u32, ready: impl Fn() -> bool) {
        for spin in 0..SPINS.saturating_add(yields) {
            if ready() {
                return;
            }
            if spin < SPINS { spin_loop() } else { yield_now() }
        }
        // Of this and the one in `ring`, one comes first: either this thread is seen by who rings, or it sees all that was
        // written before ringing.
        self.sleeping.fetch_add(1, Ordering::AcqRel);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleeping.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes all that sleep.
    pub(super) fn ring(&self) {
        if self.sleeping.fetch_add(0, Ordering::AcqRel) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }
}
