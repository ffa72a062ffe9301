//! The threads of a context, which live as long as it does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::shared::Shared;
use super::team::{NEVER, Team, Work};
use crate::error::{Error, Result};

/// Persistent threads; the caller of [`Pool::run`] is one of them.
#[derive(Debug)]
pub(crate) struct Pool {
    team: Arc<Team>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts a pool of `size` threads, the caller included.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives no more threads.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let team = Arc::new(Team::new(size));
        let mut threads: Vec<JoinHandle<()>> = Vec::with_capacity(size - 1);
        for index in 1..size {
            let member = Arc::clone(&team);
            let builder = std::thread::Builder::new().name(format!("esolm-{index}"));
            match builder.spawn(move || member.serve(index)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // The started threads wait for the others, which will not come: stand in for these.
                    team.dissolve(size - threads.len() - 1);
                    threads.into_iter().for_each(|t| drop(t.join()));
                    return Err(Error::OutOfMemory(format!("thread {index} could not be started ({error})")));
                }
            }
        }
        let mut pool = Self { team, threads };
        // A thread allocates when it starts: have that done before anyone generates.
        pool.run(&NEVER, &|worker| worker.wait())?;
        Ok(pool)
    }

    /// Threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.team.size()
    }

    /// Calls `work` on every item, each in one thread, with the one of `states` that belongs to the thread.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub(crate) fn for_each<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        work: impl Fn(&mut S, &mut T) + Sync,
    ) -> Result<()> {
        let count = items.len();
        let (states, items) = (Shared::of(states), Shared::of(items));
        self.run(&NEVER, &|worker| {
            // SAFETY: the state with the thread's number is used by this thread alone.
            let state = unsafe { states.write(worker.index..worker.index + 1) };
            for item in worker.tasks(count) {
                // SAFETY: each task goes to one thread.
                let item = unsafe { items.write(item..item + 1) };
                state.iter_mut().zip(item).for_each(|(state, item)| work(state, item));
            }
            Ok(())
        })
    }

    /// Has every thread call `work` and waits for all of them.
    ///
    /// # Errors
    /// The first error of any thread; [`Error::Cancelled`] if `cancel` was seen set; [`Error::Internal`] if a thread
    /// panicked.
    pub(crate) fn run(&mut self, cancel: &AtomicBool, work: &Work<'_>) -> Result<()> {
        self.team.lead(cancel, work)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.dissolve(1);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::forward::cpu::threads::team::Worker;

    /// Repetitions and items; few under Miri, which is slow and tries many interleavings instead.
    const TIMES: usize = if cfg!(miri) { 2 } else { 50 };
    const MANY: usize = if cfg!(miri) { 20 } else { 1000 };

    #[test]
    fn each_range_is_done_once_and_operations_run_in_order() {
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
                pool.run(&NEVER, &|worker| (0..4).try_for_each(|n| operation(n, worker))).unwrap();
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 4));
            }
        }
    }

    #[test]
    fn each_item_is_done_once_with_the_state_of_its_thread() {
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
    fn cancelled_job_stops_at_the_next_barrier_and_the_pool_stays_usable() {
        let mut pool = Pool::new(3).unwrap();
        let (cancel, after) = (AtomicBool::new(true), AtomicBool::new(false));
        let stopped = pool.run(&cancel, &|worker| {
            worker.wait()?;
            after.store(true, Ordering::Relaxed);
            Ok(())
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert!(!after.load(Ordering::Relaxed));
        pool.run(&NEVER, &|worker| worker.wait()).unwrap();
    }

    #[test]
    fn error_in_any_thread_ends_the_job_and_the_pool_stays_usable() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let after = AtomicBool::new(false);
            let failed = pool.run(&NEVER, &|worker| {
                worker.wait()?;
                if worker.index == bad {
                    return Err(Error::NotFinite("on purpose".into()));
                }
                worker.wait()?;
                after.store(true, Ordering::Relaxed);
                worker.wait()
            });
            assert!(matches!(&failed, Err(Error::NotFinite(what)) if what == "on purpose"), "{failed:?}");
            assert!(!after.load(Ordering::Relaxed));
            pool.run(&NEVER, &|worker| worker.wait()).unwrap();
        }
    }

    #[test]
    fn error_without_a_barrier_is_returned() {
        let mut pool = Pool::new(2).unwrap();
        let failed = pool.run(&NEVER, &|_| Err(Error::internal("missing")));
        assert!(matches!(&failed, Err(Error::Internal(what)) if what == "missing"), "{failed:?}");
        pool.run(&NEVER, &|worker| worker.wait()).unwrap();
    }

    #[test]
    fn panic_in_any_thread_is_an_error_and_the_pool_stays_usable() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let failed = pool.run(&NEVER, &|worker| {
                worker.wait()?;
                assert!(worker.index != bad, "on purpose");
                worker.wait()?;
                worker.wait()
            });
            assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
            pool.run(&NEVER, &|worker| worker.wait()).unwrap();
        }
    }
}
