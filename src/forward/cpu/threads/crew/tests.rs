use std::io;
use std::sync::Arc;

use super::*;
use crate::forward::cpu::threads::placement::Placement;
use crate::forward::cpu::threads::pool::PoolOptions;

/// Repetitions and items; few under Miri, which is slow and tries many interleavings instead.
const TIMES: usize = if cfg!(miri) { 2 } else { 50 };
const MANY: usize = if cfg!(miri) { 20 } else { 1000 };
/// An operation that is worth sharing.
const LONG: u64 = 1_000_000;

fn pool(threads: usize) -> Pool {
    Pool::new(&PoolOptions::new(threads)).unwrap()
}

/// A pool whose tasks run in threads of the caller's.
fn callers(threads: usize) -> Pool {
    let run = |count: usize, task: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| {
            for i in 0..count {
                scope.spawn(move || task(i));
            }
        });
    };
    Pool::of_callers(threads, Box::new(run))
}

fn lead<R: Send>(pool: &Pool, work: impl FnOnce(&Crew<'_>) -> R + Send) -> R {
    Crew::lead_all(pool, usize::MAX, |crew| Ok(work(crew))).unwrap()
}

fn count_up(crew: &Crew<'_>, grain: Grain, counts: &[AtomicUsize], expected: usize) {
    crew.share(counts.len(), grain, LONG, &|pieces| {
        for count in pieces.flat_map(|piece| &counts[piece]) {
            assert_eq!(count.fetch_add(1, Ordering::Relaxed), expected);
        }
        Ok(())
    })
    .unwrap();
}

/// Whether more than one thread takes part in an operation that waits for that, if there is hope.
fn is_shared(crew: &Crew<'_>, hope: bool) -> bool {
    let present = AtomicUsize::new(0);
    let start = Instant::now();
    let work = |pieces: &mut WorkPieces<'_>| {
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

#[test]
fn each_item_is_done_once_and_operations_run_in_order() {
    for pool in [pool(1), pool(2), pool(5), callers(1), callers(3)] {
        for limit in [1, 2, pool.threads()] {
            for _ in 0..TIMES {
                let counts: Vec<AtomicUsize> = (0..MANY).map(|_| AtomicUsize::new(0)).collect();
                Crew::lead_all(&pool, limit, |crew| {
                    let grains = [Grain::Fixed(7), Grain::Guided, Grain::Fixed(1), Grain::Guided];
                    for (number, grain) in grains.into_iter().enumerate() {
                        count_up(crew, grain, &counts, number);
                    }
                    Ok(())
                })
                .unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 4));
            }
        }
    }
}

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
    for pool in [pool(3), callers(3)] {
        lead(&pool, |first| {
            assert!(!lead(&pool, |second| is_shared(second, false)));
            assert!(is_shared(first, true));
        });
        assert!(lead(&pool, |crew| is_shared(crew, true)));
        assert!(!Crew::lead_all(&pool, 1, |crew| Ok(is_shared(crew, false))).unwrap());
    }
}

#[test]
fn callers_tasks_may_run_one_after_another_or_not_at_all() {
    let one_after_another = |count: usize, task: &(dyn Fn(usize) + Sync)| (0..count).rev().for_each(task);
    let pool = Pool::of_callers(4, Box::new(one_after_another));
    let counts: Vec<AtomicUsize> = (0..MANY).map(|_| AtomicUsize::new(0)).collect();
    lead(&pool, |crew| count_up(crew, Grain::Guided, &counts, 0));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    let nothing = Pool::of_callers(4, Box::new(|_, _| ()));
    let failed = Crew::lead_all(&nothing, 4, |_| Ok(()));
    assert!(matches!(failed, Err(Error::InvalidArgument(_))), "{failed:?}");
    let failed: Result<()> = Crew::lead_all(&callers(2), 2, |_| panic!("on purpose"));
    assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
}

#[test]
fn pool_goes_on_with_the_threads_that_the_system_gives() {
    for (size, given) in [(1, 0), (2, 0), (4, 0), (4, 1), (4, 2), (4, 3)] {
        let alive = Arc::new(());
        let mut left = given;
        let pool = Pool::start_with(&PoolOptions::new(size), |builder, serve| {
            if left == 0 {
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
        lead(&pool, |crew| crew.for_each(&mut vec![(); size], &mut counts, LONG, |(), count| *count += 1))
            .unwrap();
        assert_eq!(counts, [1; 100]);
        drop(pool);
        assert_eq!(Arc::strong_count(&alive), 1, "a thread was left behind");
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn threads_run_where_and_as_they_are_told() {
    let status = |threads: usize, placement: Placement| {
        let pool = Pool::new(&PoolOptions { threads, poll: 0, placement })?;
        let found = Mutex::new(Vec::new());
        lead(&pool, |crew| {
            // Until the other thread has come.
            let start = Instant::now();
            while found.lock().unwrap().is_empty() && start.elapsed().as_secs() < 60 {
                crew.share(MANY, Grain::Fixed(1), LONG, &|pieces| {
                    if pieces.thread() > 0 {
                        let folder = format!("/proc/self/task/{}", rustix::thread::gettid().as_raw_nonzero());
                        let file = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
                        found.lock().unwrap().push((file("status"), file("stat")));
                    }
                    pieces.for_each(|_| std::thread::yield_now());
                    Ok(())
                })
                .unwrap();
            }
        });
        Ok(found.into_inner().unwrap().remove(0))
    };
    let (status_of, stat) = status(2, Placement { cpus: vec![0], nice: 3 }).unwrap();
    let allowed = status_of.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(allowed.trim(), "0");
    // Fields behind the name, which ends with a parenthesis: the nice value is the 19th of all.
    let nice_of = |stat: &str| -> i32 {
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    // It adds to that of the process, which may be nice itself, up to the system's 19.
    // (Asked, not read: qemu makes up this process's own file.)
    let own = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(nice_of(&stat), (own + 3).min(19));
    for cpus in [vec![1 << 20], vec![900]] {
        let failed = status(2, Placement { cpus, nice: 0 });
        assert!(matches!(failed, Err(Error::InvalidArgument(_))), "{failed:?}");
    }
}

#[test]
fn each_item_is_done_once_with_the_state_of_its_thread() {
    for threads in [1, 2, 5] {
        lead(&pool(threads), |crew| {
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
        });
    }
}

#[test]
fn cancelled_operation_is_the_last_and_the_pool_stays_usable() {
    let pool = pool(3);
    let cancel = AtomicBool::new(true);
    let operation = |crew: &Crew<'_>| crew.share(10, Grain::Fixed(1), LONG, &|_| Ok(()));
    assert!(matches!(Crew::lead(&pool, 3, &cancel, operation), Err(Error::Cancelled)));
    assert!(Crew::lead_all(&pool, 3, operation).is_ok());
}

#[test]
fn error_or_panic_in_any_thread_is_returned_and_the_pool_stays_usable() {
    for threads in [1, 3] {
        let pool = pool(threads);
        for (bad, nanoseconds) in [(0, LONG), (5, LONG), (9, LONG), (5, 0)] {
            lead(&pool, |crew| {
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
                count_up(crew, Grain::Guided, &counts, 0);
            });
        }
    }
}
