//! The threads of a pool at work on one job.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::barrier::{Barrier, WaitPolicy};
use crate::error::{Error, Result};

/// What a job consists of: every thread calls it once. An error in any thread ends the job at the next barrier.
pub(crate) type Work<'a> = dyn Fn(&Worker<'_>) -> Result<()> + Sync + 'a;

/// The cancel flag of jobs that cannot be cancelled.
pub(super) static NEVER: AtomicBool = AtomicBool::new(false);

/// One thread's view of a job.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    team: &'a Team,
    cancel: &'a AtomicBool,
    /// The thread's number, from 0.
    pub(crate) index: usize,
}

/// The arguments of [`Team::lead`]. Pointers, since they may be gone before the last thread drops its copy.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    cancel: *const AtomicBool,
}

// SAFETY: both may be used from any thread.
unsafe impl Send for Job {}

/// What the threads of a pool share.
pub(super) struct Team {
    size: usize,
    barrier: Barrier,
    job: Mutex<Option<Job>>,
    /// The next task of the current operation that no thread has taken.
    next: AtomicUsize,
    /// Threads that are done with the job, and whether that was all of them at the last barrier.
    done: AtomicUsize,
    finished: AtomicBool,
    /// Whether the rest of the job is to be left undone, and why.
    stop: AtomicBool,
    panicked: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Team {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            barrier: Barrier::default(),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Has all threads call `work`, the caller as thread 0, and waits for them. (Only the pool's owner calls this.)
    pub(super) fn lead(&self, cancel: &AtomicBool, work: &Work<'_>) -> Result<()> {
        // SAFETY: only the lifetime changes. No thread uses the work after this call, which ends only when all are
        // done with it.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job { work, cancel };
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        self.stop.store(false, Ordering::Relaxed);
        self.wait(WaitPolicy::Job, cancel);
        // SAFETY: both are borrowed for the whole call.
        unsafe { self.take_part(job, 0) };
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (self.panicked.swap(false, Ordering::Relaxed), error, self.stop.load(Ordering::Relaxed)) {
            (true, ..) => Err(Error::internal("a computing thread failed")),
            (_, Some(error), _) => Err(error),
            (.., true) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// What thread `index` of the pool does until [`Team::dissolve`].
    pub(super) fn serve(&self, index: usize) {
        loop {
            self.wait(WaitPolicy::Idle, &NEVER);
            let Some(job) = *self.job.lock().unwrap_or_else(PoisonError::into_inner) else { return };
            // SAFETY: `lead` waits at the barriers until this thread, too, is done with the job.
            unsafe { self.take_part(job, index) };
        }
    }

    /// Ends the waiting threads, in place of `missing` threads that do not wait.
    pub(super) fn dissolve(&self, missing: usize) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.barrier.wait(self.size, missing, WaitPolicy::Idle, || ());
    }

    /// Does thread `index`'s part of a job and waits until all threads are done with theirs.
    ///
    /// # Safety
    /// What the job points to lives until the barrier opens at which all are done.
    unsafe fn take_part(&self, job: Job, index: usize) {
        // SAFETY: the caller keeps it alive.
        let worker = Worker { team: self, cancel: unsafe { &*job.cancel }, index };
        // The work may be gone before this function ends, so it is borrowed for its own call only.
        // SAFETY: the caller keeps it alive until all threads have returned from it.
        match catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)(&worker) })) {
            Ok(Ok(())) => (),
            Ok(Err(error)) => {
                // The first error is the reason; the others are `Cancelled`, from barriers that it opened.
                self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.stop.store(true, Ordering::Relaxed);
            }
            Err(_) => {
                self.panicked.store(true, Ordering::Relaxed);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        self.done.fetch_add(1, Ordering::AcqRel);
        // After an error the other threads may still wait at barriers inside the job: keep opening them.
        while !self.wait(WaitPolicy::Job, worker.cancel) {}
    }

    /// Waits for all threads. Returns whether all are done with the job.
    fn wait(&self, policy: WaitPolicy, cancel: &AtomicBool) -> bool {
        self.barrier.wait(self.size, 1, policy, || {
            self.next.store(0, Ordering::Relaxed);
            if cancel.load(Ordering::Relaxed) {
                self.stop.store(true, Ordering::Relaxed);
            }
            let finished = self.done.load(Ordering::Acquire) == self.size;
            if finished {
                self.done.store(0, Ordering::Relaxed);
            }
            self.finished.store(finished, Ordering::Relaxed);
        });
        self.finished.load(Ordering::Relaxed)
    }
}

impl Worker<'_> {
    /// Threads of the pool.
    pub(crate) fn threads(&self) -> usize {
        self.team.size
    }

    /// The tasks of an operation that this thread does: each of `0..count` goes to one thread, whichever is free.
    pub(crate) fn tasks(&self, count: usize) -> impl Iterator<Item = usize> {
        let next = &self.team.next;
        std::iter::from_fn(move || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&task| task < count))
    }

    /// As [`Worker::tasks`] for `count` items in tasks of `size`.
    pub(crate) fn ranges(&self, count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
        self.tasks(count.div_ceil(size)).map(move |i| i * size..count.min((i + 1) * size))
    }

    /// As [`Worker::tasks`] for `count` items in ranges that become smaller, as OpenMP's guided schedule: each round, in
    /// which every thread takes one range, hands out half of what is left. So threads seldom touch the shared counter,
    /// and still finish together. The first range of a thread is always the same.
    pub(crate) fn shares(&self, count: usize) -> impl Iterator<Item = Range<usize>> {
        let threads = self.team.size;
        let later = self.tasks(usize::MAX - threads).map(move |share| threads + share);
        let shares =
            std::iter::once(self.index).chain(later).map(move |share| share_of(count, threads, share));
        shares.take_while(move |share| share.start < count).filter(|share| !share.is_empty())
    }

    /// The first item of this thread's first range of [`Worker::shares`].
    pub(crate) fn first_share(&self, count: usize) -> Option<usize> {
        Some(share_of(count, self.team.size, self.index).start).filter(|&first| first < count)
    }

    /// Waits until every thread is done with the operation.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the job is to be left, for whatever reason: the work is to return it.
    pub(crate) fn wait(&self) -> Result<()> {
        self.team.wait(WaitPolicy::Job, self.cancel);
        if self.team.stop.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Range `share` of [`Worker::shares`]; empty, at the end of all items, from some share on.
fn share_of(count: usize, threads: usize, share: usize) -> Range<usize> {
    let left = |share: usize| {
        let (round, taken) = (share / threads, share % threads);
        let left = count * (2 * threads - taken) / (2 * threads);
        left.checked_shr(round as u32).unwrap_or(0)
    };
    count - left(share)..count - left(share + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_contiguous_and_become_smaller() {
        for threads in [1, 2, 3, 7] {
            for count in [0, 1, 5, 48, 1000] {
                let mut end = 0;
                let mut sizes = vec![];
                for share in (0..1000).map(|share| share_of(count, threads, share)) {
                    assert_eq!(share.start, end);
                    end = share.end;
                    sizes.push(share.len());
                }
                assert_eq!(end, count);
                let rounds: Vec<usize> = sizes.chunks(threads).map(|round| round.iter().sum()).collect();
                assert!(rounds.is_sorted_by(|a, b| a + 1 >= *b), "{threads} {count}: {sizes:?}");
                assert!(rounds[0] >= count / 2, "{threads} {count}: {sizes:?}");
            }
        }
    }
}
