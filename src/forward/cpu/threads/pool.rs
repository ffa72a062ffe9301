//! The threads of a context, which live as long as it does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{Builder, JoinHandle};
use std::{io, process};

use super::shared::Shared;
use super::team::{NEVER, Team, Work};
use crate::error::{Error, Result};
use crate::log::{LogLevel, log};
use crate::simd::DefaultFloats;

/// Persistent threads; the caller of [`Pool::run`] is one of them.
#[derive(Debug)]
pub(crate) struct Pool {
    team: Arc<Team>,
    /// All but the caller.
    threads: Vec<JoinHandle<()>>,
    /// The process that the threads are in: a child of fork() has none of them.
    process: u32,
}

impl Pool {
    /// Starts a pool of `size` threads, the caller included, or as many as the system gives, which is logged.
    ///
    /// # Errors
    /// [`Error::Internal`] if a thread fails at once.
    pub(crate) fn new(size: usize) -> Result<Self> {
        Self::start_with(size, |builder, serve| builder.spawn(serve))
    }

    /// As [`Pool::new`], with threads from `spawn`.
    fn start_with(
        size: usize,
        mut spawn: impl FnMut(Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let mut team_size = size;
        let mut pool = loop {
            let mut pool =
                Self { team: Arc::new(Team::new(team_size)), threads: Vec::new(), process: process::id() };
            match pool.start_threads(&mut spawn) {
                Ok(()) => break pool,
                // The started threads wait for the others, which will not come; dropping the pool ends them.
                Err(error) => {
                    team_size = pool.threads.len() + 1;
                    let text = format!("only {team_size} of {size} threads could be started ({error})");
                    log(LogLevel::Warn, &text);
                }
            }
        };
        // A thread allocates when it starts: have that done before anyone generates.
        pool.run(&NEVER, &|worker| worker.wait())?;
        Ok(pool)
    }

    /// Starts the threads of the team; those that the system gave are there after an error, too.
    fn start_threads(
        &mut self,
        spawn: &mut impl FnMut(Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        for index in 1..self.team.size() {
            let member = Arc::clone(&self.team);
            let builder = Builder::new().name(format!("esolm-{index}"));
            let serve = move || {
                let _floats = DefaultFloats::set();
                member.serve(index);
            };
            self.threads.push(spawn(builder, Box::new(serve))?);
        }
        Ok(())
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
    /// panicked; [`Error::Unsupported`] in a child process that fork() made after the pool.
    pub(crate) fn run(&mut self, cancel: &AtomicBool, work: &Work<'_>) -> Result<()> {
        if self.threads_are_elsewhere() {
            return Err(Error::made_before_fork());
        }
        self.team.lead(cancel, work)
    }

    fn threads_are_elsewhere(&self) -> bool {
        !self.threads.is_empty() && process::id() != self.process
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.threads_are_elsewhere() {
            // Joining or detaching them would touch what the system keeps of threads that are not there.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.team.dissolve(self.team.size() - self.threads.len());
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
    fn pool_goes_on_with_the_threads_that_the_system_gives() {
        for (size, given) in [(1, 0), (2, 0), (4, 0), (4, 1), (4, 2), (4, 3)] {
            let alive = Arc::new(());
            let mut left = given;
            let mut pool = Pool::start_with(size, |builder, serve| {
                // Once refused, the system gives as many as it gave before.
                if left == 0 {
                    left = given;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                left -= 1;
                let alive = Arc::clone(&alive);
                builder.spawn(move || {
                    serve();
                    drop(alive);
                })
            })
            .unwrap();
            assert_eq!(pool.threads(), given + 1, "{size}");
            let mut counts = vec![0; 100];
            pool.for_each(&mut vec![(); size], &mut counts, |(), count| *count += 1).unwrap();
            assert_eq!(counts, [1; 100]);
            drop(pool);
            assert_eq!(Arc::strong_count(&alive), 1, "a thread was left behind");
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
