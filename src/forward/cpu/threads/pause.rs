//! When not to share: on a machine whose cores are busy with other work, a thread that has claimed something may not run
//! for the time slices of others, and its leader waits. Then the leader does better alone for a while.

use std::time::{Duration, Instant};

use super::sync::{AtomicU64, Ordering, STALL};

/// The first pause, and the longest: each is twice as long as the last one.
const SHORTEST: Duration = Duration::from_millis(30);
const LONGEST: Duration = Duration::from_secs(2);

/// The pauses of a pool, during which its leader works alone. Only the leader uses it.
#[derive(Debug)]
pub(super) struct Pause {
    origin: Instant,
    /// Nanoseconds from `origin` to the end of the last pause, and its length. 0: there was none.
    until: AtomicU64,
    length: AtomicU64,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), until: AtomicU64::new(0), length: AtomicU64::new(0) }
    }

    /// Whether the leader is to work alone at `now`.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.until.load(Ordering::Relaxed) > self.nanoseconds(now)
    }

    /// Takes note of an operation that ended at `now`, in which the leader worked and then waited so long.
    pub(super) fn note(&self, worked: Duration, waited: Duration, now: Instant) {
        let (now, length) = (self.nanoseconds(now), self.length.load(Ordering::Relaxed));
        if waited > STALL && waited > worked {
            let length = (2 * length).clamp(SHORTEST.as_nanos() as u64, LONGEST.as_nanos() as u64);
            self.length.store(length, Ordering::Relaxed);
            self.until.store(now.saturating_add(length), Ordering::Relaxed);
        } else if length > 0 && now > self.until.load(Ordering::Relaxed).saturating_add(length) {
            // As long as the pause without a stall: the next one is short again.
            self.length.store(0, Ordering::Relaxed);
        }
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_make_pauses_that_become_longer_until_there_are_none() {
        let pause = Pause::new();
        let ms = Duration::from_millis;
        let mut now = pause.origin;
        assert!(!pause.is_on(now));
        for length in [30, 60, 120, 240, 480, 960, 1920, 2000, 2000] {
            pause.note(ms(1), ms(5), now);
            assert!(pause.is_on(now) && pause.is_on(now + ms(length - 1)) && !pause.is_on(now + ms(length)));
            now += ms(length + 1);
            pause.note(ms(1), ms(0), now);
        }
        now += ms(2100);
        pause.note(ms(1), ms(0), now);
        pause.note(ms(1), ms(5), now);
        assert!(pause.is_on(now + ms(29)) && !pause.is_on(now + ms(30)));
    }

    #[test]
    fn waits_that_are_short_or_shorter_than_the_work_are_no_stalls() {
        let pause = Pause::new();
        pause.note(Duration::ZERO, Duration::from_micros(900), pause.origin);
        pause.note(Duration::from_millis(20), Duration::from_millis(10), pause.origin);
        assert!(!pause.is_on(pause.origin));
    }
}
