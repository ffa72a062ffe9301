//! The threads of a pool for one user, who leads them from one operation to the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::claims::{Claims, Grain};
use super::pool::Pool;
use super::shared::Shared;
use super::team::{Pieces, Work};
use crate::error::{Error, Result};

/// An operation that takes one thread less time than this, in nanoseconds, is not shared: what another thread takes over
/// is not worth moving the data to its core. (Of a step with the built-in model nothing is; with the published shape, all
/// but the smallest operations are.)
const WORTH_SHARING: u64 = 15_000;

/// The cancel flag of operations that cannot be cancelled.
static NEVER: AtomicBool = AtomicBool::new(false);

/// The threads of a pool, as long as one user has them. A pool that is in use already lends none: the user works alone.
#[derive(Debug)]
pub(crate) struct Crew<'p> {
    pool: &'p Pool,
    cancel: &'p AtomicBool,
    /// Threads that may take part, the user's own included.
    threads: usize,
    leads: bool,
}

impl<'p> Crew<'p> {
    /// As many of the pool's threads as `threads`, if no one else has them. With `cancel`, operations end.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in a child process that fork() made after the pool.
    pub(crate) fn new(pool: &'p Pool, threads: usize, cancel: &'p AtomicBool) -> Result<Self> {
        if pool.is_elsewhere() {
            return Err(Error::made_before_fork());
        }
        let threads = threads.min(pool.threads()).min(Claims::MAX_THREADS);
        let leads = threads > 1 && !pool.taken.swap(true, Ordering::Acquire);
        Ok(Self { pool, cancel, threads: if leads { threads } else { 1 }, leads })
    }

    /// All threads of the pool, for operations that cannot be cancelled.
    ///
    /// # Errors
    /// As [`Crew::new`].
    pub(crate) fn whole(pool: &'p Pool) -> Result<Self> {
        Self::new(pool, usize::MAX, &NEVER)
    }

    /// Has `work` done for `count` items: together, unless all of it takes one thread less than about
    /// [`WORTH_SHARING`], by the estimate `nanoseconds`. `work` is called once by each thread that takes part.
    ///
    /// # Errors
    /// The first error of any thread; [`Error::Cancelled`]; [`Error::Internal`] if a thread panicked.
    pub(crate) fn share(&self, count: usize, grain: Grain, nanoseconds: u64, work: &Work<'_>) -> Result<()> {
        if self.is_shared(count, nanoseconds) {
            let start = Instant::now();
            if !self.pool.pause.is_on(start) {
                let (waited, result) = self.pool.team.lead(count, self.threads, grain, work);
                let end = Instant::now();
                self.pool.pause.note((end - start).saturating_sub(waited), waited, end);
                result?;
                return self.check();
            }
        }
        match catch_unwind(AssertUnwindSafe(|| work(&mut Pieces::all(count)))) {
            Ok(result) => result?,
            Err(_) => return Err(Error::internal("a computing thread failed")),
        }
        self.check()
    }

    fn is_shared(&self, count: usize, nanoseconds: u64) -> bool {
        self.threads > 1 && count > 1 && count <= Claims::MAX_ITEMS && nanoseconds >= WORTH_SHARING
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

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        if self.leads {
            self.pool.taken.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::super::team::Team;
    use super::*;

    /// Repetitions and items; few under Miri, which is slow and tries many interleavings instead.
    const TIMES: usize = if cfg!(miri) { 2 } else { 50 };
    const MANY: usize = if cfg!(miri) { 20 } else { 1000 };
    /// An operation that is worth sharing.
    const LONG: u64 = 1_000_000;

    fn count_up(crew: &Crew<'_>, grain: Grain, counts: &[AtomicUsize], expected: usize) -> Result<()> {
        crew.share(counts.len(), grain, LONG, &|pieces| {
            for count in pieces.flat_map(|piece| &counts[piece]) {
                assert_eq!(count.fetch_add(1, Ordering::Relaxed), expected);
            }
            Ok(())
        })
    }

    #[test]
    fn each_item_is_done_once_and_operations_run_in_order() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for limit in [1, 2, threads] {
                let crew = Crew::new(&pool, limit, &NEVER).unwrap();
                for _ in 0..TIMES {
                    let counts: Vec<AtomicUsize> = (0..MANY).map(|_| AtomicUsize::new(0)).collect();
                    for (number, grain) in [Grain::Fixed(7), Grain::Guided, Grain::Fixed(1), Grain::Guided]
                        .into_iter()
                        .enumerate()
                    {
                        count_up(&crew, grain, &counts, number).unwrap();
                    }
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 4));
                }
            }
        }
    }

    /// An operation ends without threads that do not come, here as they are busy with their start.
    #[test]
    fn operation_does_not_wait_for_threads_that_have_claimed_nothing() {
        let team = Team::new();
        let mut counts = vec![0; MANY];
        let items = Shared::of(&mut counts);
        let (_, result) = team.lead(MANY, 8, Grain::Guided, &|pieces| {
            for piece in pieces {
                // SAFETY: each item is in one piece.
                unsafe { items.write(piece) }.iter_mut().for_each(|count| *count += 1);
            }
            Ok(())
        });
        result.unwrap();
        assert_eq!(counts, [1; MANY]);
    }

    #[test]
    fn pool_that_is_in_use_lends_no_threads() {
        let pool = Pool::new(3);
        let (first, second) = (Crew::whole(&pool).unwrap(), Crew::whole(&pool).unwrap());
        /// Whether more than one thread takes part in an operation that waits for that, if there is hope.
        fn is_shared(crew: &Crew<'_>, hope: bool) -> bool {
            let present = AtomicUsize::new(0);
            let start = Instant::now();
            let work = |pieces: &mut Pieces<'_>| {
                present.fetch_add(1, Ordering::Relaxed);
                while hope && present.load(Ordering::Relaxed) < 2 && start.elapsed().as_secs() < 60 {
                    std::thread::yield_now();
                }
                pieces.for_each(drop);
                Ok(())
            };
            crew.share(MANY, Grain::Fixed(1), LONG, &work).unwrap();
            present.into_inner() > 1
        }
        assert!(!is_shared(&second, false));
        assert!(is_shared(&first, true));
        drop(first);
        assert!(is_shared(&Crew::whole(&pool).unwrap(), true));
        assert!(!is_shared(&Crew::new(&pool, 1, &NEVER).unwrap(), false));
    }

    #[test]
    fn pool_goes_on_with_the_threads_that_the_system_gives() {
        for (size, given) in [(1, 0), (2, 0), (4, 0), (4, 1), (4, 2), (4, 3)] {
            let alive = Arc::new(());
            let mut left = given;
            let pool = Pool::start_with(size, |builder, serve| {
                if left == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                left -= 1;
                let alive = Arc::clone(&alive);
                builder.spawn(move || {
                    serve();
                    drop(alive);
                })
            });
            assert_eq!(pool.threads(), given + 1, "{size}");
            let mut counts = vec![0; 100];
            let crew = Crew::whole(&pool).unwrap();
            crew.for_each(&mut vec![(); size], &mut counts, LONG, |(), count| *count += 1).unwrap();
            drop(crew);
            assert_eq!(counts, [1; 100]);
            drop(pool);
            assert_eq!(Arc::strong_count(&alive), 1, "a thread was left behind");
        }
    }

    #[test]
    fn each_item_is_done_once_with_the_state_of_its_thread() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            let crew = Crew::whole(&pool).unwrap();
            for (count, nanoseconds) in [(0, LONG), (1, LONG), (3, LONG), (MANY, LONG), (MANY, 0)] {
                let (mut states, mut items) = (vec![0; threads], vec![0; count]);
                let work = |state: &mut usize, item: &mut usize| {
                    *state += 1;
                    *item += 1;
                };
                crew.for_each(&mut states, &mut items, nanoseconds, work).unwrap();
                assert_eq!((items, states.iter().sum()), (vec![1; count], count));
            }
            assert!(crew.for_each(&mut [(); 0], &mut [0], LONG, |(), _| ()).is_err());
        }
    }

    #[test]
    fn cancelled_operation_is_the_last_and_the_pool_stays_usable() {
        let pool = Pool::new(3);
        let cancel = AtomicBool::new(true);
        let stopped = Crew::new(&pool, 3, &cancel).unwrap().share(10, Grain::Fixed(1), LONG, &|_| Ok(()));
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert!(Crew::whole(&pool).unwrap().share(10, Grain::Fixed(1), LONG, &|_| Ok(())).is_ok());
    }

    #[test]
    fn error_or_panic_in_any_thread_is_returned_and_the_pool_stays_usable() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for (bad, nanoseconds) in [(0, LONG), (5, LONG), (9, LONG), (5, 0)] {
                let crew = Crew::whole(&pool).unwrap();
                let failing = |fail: &(dyn Fn() -> Result<()> + Sync)| {
                    crew.share(10, Grain::Fixed(1), nanoseconds, &|pieces| {
                        pieces.flatten().try_for_each(|item| if item == bad { fail() } else { Ok(()) })
                    })
                };
                let failed = failing(&|| Err(Error::NotFinite("on purpose".into())));
                assert!(matches!(&failed, Err(Error::NotFinite(what)) if what == "on purpose"), "{failed:?}");
                let failed = failing(&|| panic!("on purpose"));
                assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
                let counts: Vec<AtomicUsize> = (0..MANY).map(|_| AtomicUsize::new(0)).collect();
                count_up(&crew, Grain::Guided, &counts, 0).unwrap();
            }
        }
    }
}
