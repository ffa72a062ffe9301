//! Threads that go through a piece of work together.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::barrier::{Gate, Patience};
use super::shared::Shared;
use crate::error::{Error, Result};

/// Persistent threads; the caller of [`Pool::run`] is one of them.
#[derive(Debug)]
pub(crate) struct Pool {
    team: Arc<Team>,
    threads: Vec<JoinHandle<()>>,
}

/// One thread's view of the work.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    team: &'a Team,
    cancel: &'a AtomicBool,
    /// The thread's number, from 0.
    pub(crate) index: usize,
}

/// A piece of work: every thread calls it, and it ends early (`None`) when [`Worker::wait`] says so.
type Work<'a> = dyn Fn(&Worker<'_>) -> Option<()> + Sync + 'a;

/// What [`Pool::run`] was given. Pointers, for it may be gone before the last thread has let go of its copy.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    cancel: *const AtomicBool,
}

// SAFETY: both may be used from any thread.
unsafe impl Send for Job {}

struct Team {
    size: usize,
    gate: Gate,
    job: Mutex<Option<Job>>,
    /// The next piece of the current operation that nobody has taken.
    next: AtomicUsize,
    /// Threads that are through with the job, and whether that was all of them at the last gate.
    done: AtomicUsize,
    finished: AtomicBool,
    /// Whether the rest of the job is to be left undone, and whether that is because a thread panicked or met an error.
    stop: AtomicBool,
    panicked: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts a pool of `size` threads, the caller included.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives no more threads.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let team = Arc::new(Team {
            size,
            gate: Gate::default(),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            error: Mutex::new(None),
        });
        let mut threads: Vec<JoinHandle<()>> = Vec::with_capacity(size - 1);
        for index in 1..size {
            let member = Arc::clone(&team);
            let builder = std::thread::Builder::new().name(format!("esolm-{index}"));
            match builder.spawn(move || member.serve(index)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Those that are there wait for the rest, who will not come: let them count as gone.
                    team.dissolve(size - threads.len() - 1);
                    threads.into_iter().for_each(|t| drop(t.join()));
                    return Err(Error::OutOfMemory(format!("thread {index} could not be started ({error})")));
                }
            }
        }
        let mut pool = Self { team, threads };
        // A thread takes memory when it starts: let that be over before anybody generates.
        pool.run(&AtomicBool::new(false), &|worker| worker.wait())?;
        Ok(pool)
    }

    /// Threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.team.size
    }

    /// Has `work` done on every item, each by one thread, which has one of the `states` to itself.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub(crate) fn for_each<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        work: impl Fn(&mut S, &mut T) + Sync,
    ) -> Result<()> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        let count = items.len();
        // SAFETY: the slices are borrowed for the whole call.
        let (states, items) = unsafe { (Shared::of(states), Shared::of(items)) };
        self.run(&NEVER, &|worker| {
            // SAFETY: each thread has its own state, and each item goes to one of them.
            let state = unsafe { states.write(worker.index..worker.index + 1) };
            for item in worker.pieces(count) {
                // SAFETY: as above.
                let item = unsafe { items.write(item..item + 1) };
                state.iter_mut().zip(item).for_each(|(state, item)| work(state, item));
            }
            Some(())
        })
    }

    /// Has every thread call `work` and waits for all of them.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `cancel` was seen set; what [`Worker::fail`] was given; [`Error::Internal`] if a thread
    /// panicked.
    pub(crate) fn run(&mut self, cancel: &AtomicBool, work: &Work<'_>) -> Result<()> {
        let team = &*self.team;
        // SAFETY: only the lifetime changes. No thread uses the work after the call, which ends only when all are
        // through with it.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job { work, cancel };
        *team.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        team.stop.store(false, Ordering::Relaxed);
        team.pass_gate(Patience::Job, cancel);
        // SAFETY: both are borrowed for the whole call.
        unsafe { team.take_part(job, 0) };
        let error = team.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (team.panicked.swap(false, Ordering::Relaxed), error, team.stop.load(Ordering::Relaxed)) {
            (true, ..) => Err(Error::internal("a computing thread failed")),
            (_, Some(error), _) => Err(error),
            (.., true) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.dissolve(1);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Team {
    /// What a thread of the pool does all its life.
    fn serve(&self, index: usize) {
        static NEVER: AtomicBool = AtomicBool::new(false);
        loop {
            self.pass_gate(Patience::Idle, &NEVER);
            let Some(job) = *self.job.lock().unwrap_or_else(PoisonError::into_inner) else { return };
            // SAFETY: whoever gave the job waits at the gates until this thread, too, is through with it.
            unsafe { self.take_part(job, index) };
        }
    }

    /// Takes part in a job until all threads are through with it.
    ///
    /// # Safety
    /// What the job points to lives until the gate opens at which all are through.
    unsafe fn take_part(&self, job: Job, index: usize) {
        // SAFETY: as the caller says.
        let worker = Worker { team: self, cancel: unsafe { &*job.cancel }, index };
        // The work may be gone while this function ends, so it is borrowed for its own call only.
        // SAFETY: as the caller says.
        if catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)(&worker) })).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
            self.stop.store(true, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::AcqRel);
        // After a panic the others may still be at gates inside the job: keep opening them.
        while !self.pass_gate(Patience::Job, worker.cancel) {}
    }

    /// Waits for all threads. Returns whether all are through with the job.
    fn pass_gate(&self, patience: Patience, cancel: &AtomicBool) -> bool {
        self.gate.batch(self.size, 1, patience, || {
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

    /// Lets the waiting threads end, standing in for `missing` that do not wait.
    fn dissolve(&self, missing: usize) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.gate.batch(self.size, missing, Patience::Idle, || ());
    }
}

impl Worker<'_> {
    /// Threads of the pool.
    pub(crate) fn threads(&self) -> usize {
        self.team.size
    }

    /// The pieces of an operation that are this thread's: each of `0..count` goes to one thread, whoever is free.
    pub(crate) fn pieces(&self, count: usize) -> impl Iterator<Item = usize> {
        let next = &self.team.next;
        std::iter::from_fn(move || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&piece| piece < count))
    }

    /// As [`Worker::pieces`] for `count` items in pieces of `size`.
    pub(crate) fn ranges(&self, count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
        self.pieces(count.div_ceil(size)).map(move |i| i * size..count.min((i + 1) * size))
    }

    /// As [`Worker::pieces`] for `count` items, many at first and then fewer and fewer: each time that every thread has
    /// taken some, half of what was left is taken. So threads ask seldom (the answer comes from another one's cache),
    /// and end together all the same. The first ones of a thread are always the same.
    pub(crate) fn shares(&self, count: usize) -> impl Iterator<Item = Range<usize>> {
        let threads = self.team.size;
        let later = self.pieces(usize::MAX - threads).map(move |share| threads + share);
        let shares =
            std::iter::once(self.index).chain(later).map(move |share| share_of(count, threads, share));
        shares.take_while(move |share| share.start < count).filter(|share| !share.is_empty())
    }

    /// Where this thread's first ones of [`Worker::shares`] begin.
    pub(crate) fn first_share(&self, count: usize) -> Option<usize> {
        Some(share_of(count, self.team.size, self.index).start).filter(|&first| first < count)
    }

    /// Has the job left at the next gate and end with `error`.
    pub(crate) fn fail(&self, error: Error) {
        *self.team.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.team.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until every thread is through with the operation. `None` if the job is to be left.
    pub(crate) fn wait(&self) -> Option<()> {
        self.team.pass_gate(Patience::Job, self.cancel);
        (!self.team.stop.load(Ordering::Relaxed)).then_some(())
    }
}

/// The items of a share of `count`; from some share on none, behind the last.
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

    static GO_ON: AtomicBool = AtomicBool::new(false);
    /// Repetitions and items; few for Miri, who tries many orders of events instead.
    const TIMES: usize = if cfg!(miri) { 2 } else { 50 };
    const MANY: usize = if cfg!(miri) { 20 } else { 1000 };

    #[test]
    fn every_piece_is_done_once_and_operations_follow_one_another() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for _ in 0..TIMES {
                let done: Vec<AtomicUsize> = (0..MANY).map(|_| AtomicUsize::new(0)).collect();
                let operation = |number: usize, worker: &Worker<'_>| {
                    let add = |range: Range<usize>| {
                        for d in &done[range] {
                            assert_eq!(d.fetch_add(1, Ordering::Relaxed), number);
                        }
                    };
                    match number % 2 {
                        0 => worker.ranges(done.len(), 7).for_each(add),
                        _ => worker.shares(done.len()).for_each(add),
                    }
                    worker.wait()
                };
                pool.run(&GO_ON, &|worker| (0..4).try_for_each(|n| operation(n, worker))).unwrap();
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 4));
            }
        }
    }

    #[test]
    fn shares_follow_one_another_and_become_smaller() {
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

    #[test]
    fn every_item_is_done_once_by_a_thread_with_a_state_of_its_own() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for count in [0, 1, 3, MANY] {
                let (mut states, mut items) = (vec![0; threads], vec![0; count]);
                let work = |state: &mut usize, item: &mut usize| {
                    *state += 1;
                    *item += 1;
                };
                pool.for_each(&mut states, &mut items, work).unwrap();
                assert_eq!((items, states.iter().sum()), (vec![1; count], count));
            }
            let mut few = vec![(); threads - 1];
            assert!(pool.for_each(&mut few, &mut [0], |_, _| ()).is_err());
        }
    }

    #[test]
    fn a_cancelled_job_stops_at_the_next_gate_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        let (cancel, after) = (AtomicBool::new(true), AtomicBool::new(false));
        let stopped = pool.run(&cancel, &|worker| {
            worker.wait()?;
            after.store(true, Ordering::Relaxed);
            Some(())
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert!(!after.load(Ordering::Relaxed));
        pool.run(&GO_ON, &|worker| worker.wait()).unwrap();
    }

    #[test]
    fn an_error_in_any_thread_ends_the_job_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let after = AtomicBool::new(false);
            let failed = pool.run(&GO_ON, &|worker| {
                worker.wait()?;
                if worker.index == bad {
                    worker.fail(Error::NotFinite("on purpose".into()));
                }
                worker.wait()?;
                after.store(true, Ordering::Relaxed);
                worker.wait()
            });
            assert!(matches!(&failed, Err(Error::NotFinite(what)) if what == "on purpose"), "{failed:?}");
            assert!(!after.load(Ordering::Relaxed));
            pool.run(&GO_ON, &|worker| worker.wait()).unwrap();
        }
    }

    #[test]
    fn a_panic_in_any_thread_is_an_error_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let failed = pool.run(&GO_ON, &|worker| {
                worker.wait()?;
                assert!(worker.index != bad, "on purpose");
                worker.wait()?;
                worker.wait()
            });
            assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
            pool.run(&GO_ON, &|worker| worker.wait()).unwrap();
        }
    }
}
