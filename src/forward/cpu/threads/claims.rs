//! How threads share the items of an operation: whoever is free claims some. Nobody waits for a thread that has claimed
//! nothing.

use std::ops::Range;

use super::sync::{AtomicU64, AtomicUsize, Ordering};

/// How many items a claim takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// So many (up to 65,535), or what is left.
    Fixed(usize),
    /// A share of what is left, as OpenMP's guided schedule: large ones first, so that claims are few, and small ones last, so
    /// that the threads finish together.
    Guided,
}

/// The open operation in one word, so that a claim is one compare-and-swap: items left (32 bits), threads that may take
/// part (16), items of a claim (16; 0 is guided). The word says all that a claim needs, so a thread that comes late and
/// finds another operation claims rightly from that one.
#[derive(Debug, Clone, Copy)]
struct Word(u64);

impl Word {
    fn new(left: usize, threads: usize, grain: Grain) -> Self {
        let grain = match grain {
            Grain::Fixed(items) => items.clamp(1, 0xffff),
            Grain::Guided => 0,
        };
        Self(((left as u64) << 32) | ((threads as u64 & 0xffff) << 16) | grain as u64)
    }

    fn left(self) -> usize {
        (self.0 >> 32) as usize
    }

    fn threads(self) -> usize {
        (self.0 >> 16) as usize & 0xffff
    }

    /// Whether thread `index` may claim something.
    fn is_open(self, index: usize) -> bool {
        self.left() > 0 && index < self.threads()
    }

    /// The items that the next claim takes.
    fn take(self) -> usize {
        match self.0 as usize & 0xffff {
            0 => self.left().div_ceil(2 * self.threads().max(1)),
            items => items.min(self.left()),
        }
    }

    fn without(self, items: usize) -> Self {
        Self(self.0 - ((items as u64) << 32))
    }
}

/// The claims of one operation after another.
#[derive(Debug)]
pub(super) struct Claims {
    word: AtomicU64,
    /// Items of the open operation that threads are done with.
    done: AtomicUsize,
}

/// Some items that a thread has claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// Items of the operation that were not claimed before, these included.
    left: usize,
    pub(super) items: usize,
}

impl Claim {
    /// Which items of an operation's `count` these are.
    pub(super) fn range(self, count: usize) -> Range<usize> {
        let start = count.saturating_sub(self.left);
        start..start + self.items
    }
}

impl Claims {
    /// Most items of an operation, and most threads.
    pub(super) const MAX_ITEMS: u64 = u32::MAX as u64;
    pub(super) const MAX_THREADS: usize = u16::MAX as usize;

    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), done: AtomicUsize::new(0) }
    }

    /// Opens an operation, when all items of the last one are done. What the caller has written before is seen by every
    /// thread that claims.
    pub(super) fn open(&self, items: usize, threads: usize, grain: Grain) {
        self.done.store(0, Ordering::Relaxed);
        self.word.store(Word::new(items, threads, grain).0, Ordering::Release);
    }

    /// Whether thread `index` may claim something.
    pub(super) fn is_open(&self, index: usize) -> bool {
        Word(self.word.load(Ordering::Acquire)).is_open(index)
    }

    /// Claims items of the open operation for thread `index`. It stays open, and its items undone, until the thread calls
    /// [`Claims::finish`].
    pub(super) fn claim(&self, index: usize) -> Option<Claim> {
        self.update(|word| word.is_open(index).then(|| word.take()))
    }

    /// Claims all items that are left, in order to leave them undone.
    pub(super) fn claim_all(&self) -> usize {
        self.update(|word| Some(word.left())).map_or(0, |claim| claim.items)
    }

    fn update(&self, take: impl Fn(Word) -> Option<usize>) -> Option<Claim> {
        let mut word = Word(self.word.load(Ordering::Relaxed));
        loop {
            let items = take(word)?;
            let (old, new) = (word.0, word.without(items).0);
            match self.word.compare_exchange_weak(old, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Claim { left: word.left(), items }),
                Err(now) => word = Word(now),
            }
        }
    }

    /// Says that `items` claimed ones are done. What the caller has written before is seen by who reads
    /// [`Claims::done`].
    pub(super) fn finish(&self, items: usize) {
        self.done.fetch_add(items, Ordering::Release);
    }

    /// Items that are done.
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_cover_all_items_once_and_in_order() {
        for threads in [1, 2, 3, 7] {
            for count in [0, 1, 5, 48, if cfg!(miri) { 60 } else { 1000 }] {
                for grain in [Grain::Guided, Grain::Fixed(1), Grain::Fixed(7), Grain::Fixed(usize::MAX)] {
                    let claims = Claims::new();
                    claims.open(count, threads, grain);
                    assert_eq!(claims.is_open(0), count > 0);
                    assert!(!claims.is_open(threads) && claims.claim(threads).is_none());
                    let (mut end, mut sizes) = (0, vec![]);
                    while let Some(claim) = claims.claim(threads - 1) {
                        assert_eq!(claim.range(count).start, end);
                        end = claim.range(count).end;
                        sizes.push(claim.items);
                        claims.finish(claim.items);
                    }
                    assert_eq!((end, claims.done()), (count, count));
                    assert!(sizes.is_sorted_by(|a, b| a >= b), "{threads} {count}: {sizes:?}");
                    if grain == Grain::Guided && count > 0 {
                        assert_eq!(sizes[0], count.div_ceil(2 * threads));
                    }
                }
            }
        }
    }

    #[test]
    fn all_that_is_left_can_be_claimed_at_once() {
        let claims = Claims::new();
        claims.open(10, 2, Grain::Fixed(3));
        assert_eq!(claims.claim(0).unwrap().range(10), 0..3);
        assert_eq!((claims.claim_all(), claims.claim_all()), (7, 0));
        assert!(claims.claim(0).is_none() && !claims.is_open(0));
    }
}
