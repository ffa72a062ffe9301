//! How long each part of the passes takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What an operation counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Products with the blocks' matrices.
    Products,
    /// Queries over the cache.
    Attention,
    /// The product with the vocabulary's matrix.
    Vocabulary,
    /// Everything between.
    Rest,
}

/// Adds up laps. The first thread alone keeps it; the others, who see it, do not.
#[derive(Debug)]
pub(crate) struct Clock {
    since: Instant,
    /// Nanoseconds from `since` to the end of the last lap.
    last: AtomicU64,
    /// Nanoseconds of all laps, by part.
    parts: [AtomicU64; 4],
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), last: AtomicU64::new(0), parts: Default::default() }
    }

    /// Begins a lap.
    pub(crate) fn start(&self) {
        self.last.store(self.since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Ends a lap, which was spent on `part`, and begins the next.
    pub(crate) fn lap(&self, part: Part) {
        let now = self.since.elapsed().as_nanos() as u64;
        let lap = now - self.last.swap(now, Ordering::Relaxed);
        if let Some(sum) = self.parts.get(part as usize) {
            sum.fetch_add(lap, Ordering::Relaxed);
        }
    }

    /// The sum of a part's laps.
    pub(crate) fn total(&self, part: Part) -> Duration {
        let sum = self.parts.get(part as usize).map_or(0, |sum| sum.load(Ordering::Relaxed));
        Duration::from_nanos(sum)
    }

    /// Forgets all laps.
    pub(crate) fn clear(&self) {
        self.parts.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
    }
}
