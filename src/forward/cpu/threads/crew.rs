//! The threads of a pool for one user, who leads them from one operation to the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::claims::{Claims, Grain};
use super::pause::Pause;
use super::pool::{Helpers, Pool, RunTasks};
use super::shared::Shared;
use super::sync::POLL;
use super::team::{Team, Work, WorkPieces};
use crate::error::{Error, Result};
use crate::simd::DefaultFloats;

/// An operation that takes one thread less time than this, in nanoseconds, is not shared: what another thread takes over
/// is not worth moving the data to its core. (Of a step of one token with the built-in model little is, the vocabulary's
/// product above all; with the published shape, all but the smallest operations are.)
const WORTH_SHARING: u64 = 15_000;

/// The cancel flag of operations that cannot be cancelled.
static NEVER: AtomicBool = AtomicBool::new(false);

/// The threads of a pool, as long as one user has them.
#[derive(Debug)]
pub(crate) struct Crew<'p> {
    /// Nothing for a user who works alone.
    team: Option<&'p Team>,
    pause: &'p Pause,
    cancel: &'p AtomicBool,
    /// Threads that may take part, the user's own included.
    threads: usize,
}

impl<'p> Crew<'p> {
    /// Calls `work` with as many of the pool's threads as `threads`. A pool that is in use already lends none: `work` is
    /// done alone. When `cancel` is set, operations end.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Unsupported`] in a child process that fork() made after the pool;
    /// [`Error::InvalidArgument`] if the caller's function does not run what it is given.
    pub(crate) fn lead<R: Send>(
        pool: &'p Pool,
        threads: usize,
        cancel: &'p AtomicBool,
        work: impl FnOnce(&Crew<'_>) -> Result<R> + Send,
    ) -> Result<R> {
        if pool.is_elsewhere() {
            return Err(Error::made_before_fork());
        }
        let threads = threads.min(pool.threads()).min(Claims::MAX_THREADS);
        let pause = &pool.pause;
        if threads < 2 || pool.taken.swap(true, Ordering::Acquire) {
            return work(&Crew { team: None, pause, cancel, threads: 1 });
        }
        let _taken = Taken(pool);
        match &pool.helpers {
            Helpers::Own { team, .. } => work(&Crew { team: Some(team), pause, cancel, threads }),
            Helpers::Callers { run, .. } => {
                let team = Team::new();
                let crew = Crew { team: Some(&team), pause, cancel, threads };
                lead_callers(run, &crew, &team, work)
            }
        }
    }

    /// As [`Crew::lead`] for work that cannot be cancelled.
    ///
    /// # Errors
    /// As [`Crew::lead`].
    pub(crate) fn lead_all<R: Send>(
        pool: &'p Pool,
        threads: usize,
        work: impl FnOnce(&Crew<'_>) -> Result<R> + Send,
    ) -> Result<R> {
        Self::lead(pool, threads, &NEVER, work)
    }

    /// Has `work` done for `count` items: together, unless all of it takes one thread less than about
    /// [`WORTH_SHARING`], by the estimate `nanoseconds`. `work` is called once by each thread that takes part.
    ///
    /// # Errors
    /// The first error of any thread; [`Error::Cancelled`]; [`Error::Internal`] if a thread panicked.
    pub(crate) fn share(&self, count: usize, grain: Grain, nanoseconds: u64, work: &Work<'_>) -> Result<()> {
        let worth_sharing = count > 1 && (count as u64) <= Claims::MAX_ITEMS && nanoseconds >= WORTH_SHARING;
        if let Some(team) = self.team.filter(|_| worth_sharing) {
            let start = Instant::now();
            if !self.pause.is_on(start) {
                let (waited, result) = team.lead(count, self.threads, grain, work);
                let end = Instant::now();
                self.pause.note((end - start).saturating_sub(waited), waited, end);
                result?;
                return self.check();
            }
        }
        match catch_unwind(AssertUnwindSafe(|| work(&mut WorkPieces::all(count)))) {
            Ok(result) => result?,
            Err(_) => return Err(Error::internal("a computing thread failed")),
        }
        self.check()
    }

    /// How many threads take part at most.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Calls `work` on every item, each in one thread, with the one of `states` that belongs to the thread. An item
    /// takes about `nanoseconds`.
    ///
    /// # Errors
    /// As [`Crew::share`].
    pub(crate) fn for_each<S: Send, T: Send>(
        &self,
        states: &mut [S],
        items: &mut [T],
        nanoseconds: u64,
        work: impl Fn(&mut S, &mut T) + Sync,
    ) -> Result<()> {
        let count = items.len();
        let (states, items) = (Shared::of(states), Shared::of(items));
        self.share(count, Grain::Fixed(1), nanoseconds.saturating_mul(count as u64), &|pieces| {
            // SAFETY: the state with the thread's number is used by this thread alone.
            let state = unsafe { states.write(pieces.thread()..pieces.thread() + 1) };
            for item in pieces {
                // SAFETY: each item is in one piece.
                let item = unsafe { items.write(item) };
                item.iter_mut().for_each(|item| state.iter_mut().for_each(|state| work(state, item)));
            }
            Ok(())
        })
    }
}

/// A pool that is in use until this is dropped.
struct Taken<'p>(&'p Pool);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Has the caller's function run `work`: the first of its tasks to come leads, the others help for as long as it does. So
/// they may come late, or one after another.
fn lead_callers<R: Send>(
    run: &RunTasks,
    crew: &Crew<'_>,
    team: &Team,
    work: impl FnOnce(&Crew<'_>) -> Result<R> + Send,
) -> Result<R> {
    let (arrived, work, result) = (AtomicUsize::new(0), Mutex::new(Some(work)), Mutex::new(None));
    run(crew.threads, &|_| {
        let _floats = DefaultFloats::set();
        match arrived.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                let done = catch_unwind(AssertUnwindSafe(|| work.map(|work| work(crew))));
                team.dissolve();
                *result.lock().unwrap_or_else(PoisonError::into_inner) = done.ok().flatten();
            }
            helper if helper < crew.threads => team.serve(helper, POLL),
            _ => (),
        }
    });
    let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
    result.unwrap_or_else(|| match arrived.into_inner() {
        0 => Err(Error::invalid("the function of the thread pool ran no task")),
        _ => Err(Error::internal("a computing thread failed")),
    })
}

#[cfg(test)]
mod tests;
