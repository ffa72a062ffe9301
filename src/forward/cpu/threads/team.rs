//! The threads of a pool at work on one operation.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::bell::Bell;
use super::claims::{Claim, Claims, Grain};
use super::sync::{AtomicBool, AtomicUsize, Cell, LEADER_YIELDS, Mutex, Ordering};
use crate::error::{Error, Result};

/// What a thread that takes part in an operation does: it works on the items that it claims. It may not be called by
/// every thread. An error in any thread leaves the items that nobody has claimed undone.
pub(crate) type Work<'a> = dyn Fn(&mut WorkPieces<'_>) -> Result<()> + Sync + 'a;

/// The items of an operation that a thread claims, in pieces.
#[derive(Debug)]
pub(crate) struct WorkPieces<'a> {
    /// Nothing if the thread has all to itself.
    claims: Option<&'a Claims>,
    count: usize,
    /// The thread's number, from 0.
    thread: usize,
    /// Items claimed so far, and those of the next piece.
    claimed: usize,
    next: Option<Range<usize>>,
}

impl WorkPieces<'_> {
    /// All items, in one piece, for the leader alone.
    pub(super) fn all(count: usize) -> Self {
        Self {
            claims: None,
            count,
            thread: 0,
            claimed: count,
            next: Some(0..count).filter(|all| !all.is_empty()),
        }
    }

    /// The thread's number, below the operation's threads. No two threads of an operation have the same.
    pub(crate) fn thread(&self) -> usize {
        self.thread
    }

    /// The next piece, without taking it.
    pub(crate) fn peek(&self) -> Option<Range<usize>> {
        self.next.clone()
    }

    /// Calls `work` with each item, and with the one that this thread has after it, if there is one.
    ///
    /// # Errors
    /// The first of `work`.
    pub(crate) fn each_with_next(
        &mut self,
        mut work: impl FnMut(usize, Option<usize>) -> Result<()>,
    ) -> Result<()> {
        while let Some(piece) = self.next() {
            let of_next_piece = self.next.as_ref().map(|next| next.start);
            for item in piece.clone() {
                work(item, Some(item + 1).filter(|next| piece.contains(next)).or(of_next_piece))?;
            }
        }
        Ok(())
    }
}

impl Iterator for WorkPieces<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let piece = self.next.take()?;
        // The next one is claimed before this one is worked on, so that it can be prefetched.
        if let Some(claim) = self.claims.and_then(|claims| claims.claim(self.thread)) {
            self.claimed += claim.items;
            self.next = Some(claim.range(self.count));
        }
        Some(piece)
    }
}

/// An operation that is open. A pointer, since the work is gone when all items are done.
#[derive(Debug, Clone, Copy)]
struct Operation {
    work: *const Work<'static>,
    items: usize,
}

// SAFETY: the work may be used from any thread.
unsafe impl Send for Operation {}

/// What the threads of a pool share. One of them leads: it opens an operation, takes part, and waits until all items
/// are done. The others, which help, claim items whenever they find some; the operation does not wait for a thread that
/// has claimed none.
#[derive(Debug)]
pub(super) struct Team {
    claims: Claims,
    /// Set by the leader while no operation is open.
    operation: Cell<Option<Operation>>,
    /// Where the helpers wait for an operation, and the leader for its end.
    helpers: Bell,
    leader: Bell,
    /// Helpers that have started.
    started: AtomicUsize,
    /// What the system said of a helper's placement.
    pub(super) refused: Mutex<Option<io::Error>>,
    ended: AtomicBool,
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Team {
    pub(super) fn new() -> Self {
        Self {
            claims: Claims::new(),
            operation: Cell::new(None),
            helpers: Bell::new(),
            leader: Bell::new(),
            started: AtomicUsize::new(0),
            refused: Mutex::new(None),
            ended: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Has `work` done for `items` items by the caller and by the helpers below `threads` that come in time. Only one
    /// thread may lead at a time, and no more items and threads than [`Claims`] has room for.
    ///
    /// Returns how long the caller waited for others, and the first error of any thread; [`Error::Internal`] if a thread
    /// panicked.
    pub(super) fn lead(
        &self,
        items: usize,
        threads: usize,
        grain: Grain,
        work: &Work<'_>,
    ) -> (Duration, Result<()>) {
        // SAFETY: only the lifetime changes. No thread uses the work when all items are done, and this call waits for that.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let operation = Operation { work, items };
        // SAFETY: the last operation is done, so no thread has a claim, and without one none reads this.
        unsafe { self.operation.set(Some(operation)) };
        self.claims.open(items, threads, grain);
        self.helpers.ring();
        if let Some(claim) = self.claims.claim(0) {
            // SAFETY: the work is borrowed for the whole call.
            unsafe { self.take_part(operation, 0, claim) };
        }
        let is_done = || self.claims.done() == items;
        let mut waited = Duration::ZERO;
        if !is_done() {
            let start = Instant::now();
            self.leader.wait(LEADER_YIELDS, is_done);
            waited = start.elapsed();
        }
        if !self.failed.load(Ordering::Relaxed) {
            return (waited, Ok(()));
        }
        self.failed.store(false, Ordering::Relaxed);
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        (waited, Err(error.unwrap_or_else(|| Error::internal("a computing thread failed"))))
    }

    /// What helper `index` does until [`Team::dissolve`]; it sleeps when it has yielded its core `poll` times.
    pub(super) fn serve(&self, index: usize, poll: u32) {
        self.started.fetch_add(1, Ordering::Release);
        self.leader.ring();
        loop {
            self.helpers.wait(poll, || self.claims.is_open(index) || self.ended.load(Ordering::Acquire));
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            self.help(index);
        }
    }

    /// Takes part in the open operation, if there is one with items left.
    fn help(&self, index: usize) {
        let Some(claim) = self.claims.claim(index) else { return };
        // SAFETY: the leader sets it while no thread has a claim, and this thread has one.
        let Some(operation) = (unsafe { self.operation.get() }) else { return };
        // SAFETY: `lead` waits for the claimed items.
        unsafe { self.take_part(operation, index, claim) };
    }

    /// Waits until `helpers` have started.
    pub(super) fn wait_for_start(&self, helpers: usize) {
        self.leader.wait(LEADER_YIELDS, || self.started.load(Ordering::Acquire) == helpers);
    }

    /// Ends the helpers.
    pub(super) fn dissolve(&self) {
        self.ended.store(true, Ordering::Release);
        self.helpers.ring();
    }

    /// Works on `claim`, and on further items while there are some.
    ///
    /// # Safety
    /// What the operation points to lives until all its items are done.
    unsafe fn take_part(&self, operation: Operation, index: usize, claim: Claim) {
        let Operation { work, items } = operation;
        let next = Some(claim.range(items));
        let mut pieces = WorkPieces {
            claims: Some(&self.claims),
            count: items,
            thread: index,
            claimed: claim.items,
            next,
        };
        // SAFETY: the claimed items are not done before `finish`.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(&mut pieces) }));
        let mut claimed = pieces.claimed;
        if !matches!(result, Ok(Ok(()))) {
            if let Ok(Err(error)) = result {
                self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            self.failed.store(true, Ordering::Relaxed);
            claimed += self.claims.claim_all();
        }
        self.claims.finish(claimed);
        // The work may be gone from here on.
        self.leader.ring();
    }
}
