//! How long each part of the network takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The part of the network that an operation counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Products with the matrices of the blocks.
    Products,
    /// Attention: queries over the K/V cache.
    Attention,
    /// The product with the output matrix.
    Vocabulary,
    /// Everything between.
    Rest,
}

/// Sums of the time of each part. Only the thread that leads writes it.
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

    /// Starts a lap.
    pub(crate) fn start(&self) {
        self.last.store(self.since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Ends a lap, which counts as `part`, and starts the next.
    pub(crate) fn lap(&self, part: Part) {
        let now = self.since.elapsed().as_nanos() as u64;
        let lap = now - self.last.swap(now, Ordering::Relaxed);
        self.sum(part).fetch_add(lap, Ordering::Relaxed);
    }

    /// The time of a part since the last [`Clock::clear`].
    pub(crate) fn total(&self, part: Part) -> Duration {
        Duration::from_nanos(self.sum(part).load(Ordering::Relaxed))
    }

    /// Sets all sums to 0.
    pub(crate) fn clear(&self) {
        self.parts.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
    }

    fn sum(&self, part: Part) -> &AtomicU64 {
        let [products, attention, vocabulary, rest] = &self.parts;
        match part {
            Part::Products => products,
            Part::Attention => attention,
            Part::Vocabulary => vocabulary,
            Part::Rest => rest,
        }
    }
}
