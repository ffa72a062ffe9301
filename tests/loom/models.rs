//! The library's thread pool and the lock of C's contexts, their files as they are, with loom's atomics, locks and threads: every order of events is
//! tried (up to a number of preemptions), with every value that a load may then return.
//!
//! What must hold: an operation ends when all its items are done, each by one thread; it ends without the threads that
//! have claimed nothing, and these never touch what belongs to it; what one operation writes, the next one reads; an error
//! or a flag ends it and the pool stays usable; two users of one pool never share its threads; nobody sleeps for ever.
//! Of calls on one context at least one computes and the others are busy, none waits; readers are never busy, wait for no
//! computing call, and see what one step left, whole.
#![allow(dead_code)]

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/simd"]
mod simd {
    mod floats;
    pub(crate) use floats::DefaultFloats;
}
/// In place of `src/memory`.
mod memory {
    pub(crate) fn room_for_thread(_: Option<usize>) -> std::io::Result<()> {
        Ok(())
    }
}
#[path = "../../src/forward/cpu/threads"]
mod threads {
    mod bell;
    mod claims;
    pub(crate) mod crew;
    mod pause;
    pub(crate) mod placement;
    pub(crate) mod pool;
    pub(crate) mod shared;
    #[path = "../../../../tests/loom/sync.rs"]
    mod sync;
    pub(crate) mod team;
    pub(crate) use claims::Grain;
}
#[path = "../../src/capi/exclusive.rs"]
mod exclusive;
/// In place of `src/capi/sync.rs`.
mod sync {
    pub(super) use loom::sync::Mutex;
}

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use error::{Error, Result};
use exclusive::Exclusive;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, mpsc};
use threads::Grain;
use threads::crew::Crew;
use threads::pool::{Pool, PoolOptions};

/// An operation that is worth sharing.
const LONG: u64 = 1_000_000;

/// Memory of an operation, of which loom sees every use.
struct Items(Vec<UnsafeCell<usize>>);

// SAFETY: loom finds users that are not synchronised.
unsafe impl Sync for Items {}
// SAFETY: as for `Sync`.
unsafe impl Send for Items {}

impl Items {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| UnsafeCell::new(0)).collect())
    }

    fn get(&self, item: usize) -> usize {
        // SAFETY: loom checks it.
        self.0[item].with(|value| unsafe { *value })
    }

    /// Adds one to every item, each in the thread that claims it.
    fn add_one(&self, crew: &Crew<'_>, grain: Grain) -> Result<()> {
        crew.share(self.0.len(), grain, LONG, &|pieces| {
            for item in pieces.flatten() {
                // SAFETY: loom checks it.
                self.0[item].with_mut(|value| unsafe { *value += 1 });
            }
            Ok(())
        })
    }
}

fn pool(threads: usize) -> Pool {
    Pool::new(&PoolOptions::new(threads)).expect("a pool")
}

fn check(name: &str, preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    let (start, orders) = (std::time::Instant::now(), std::sync::Arc::new(AtomicUsize::new(0)));
    let counted = std::sync::Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let (orders, seconds) = (orders.load(Ordering::Relaxed), start.elapsed().as_secs_f32());
    println!("{name}: ok, {orders} orders, up to {preemptions} preemptions, {seconds:.1} s");
}

fn main() {
    check("operations one after another, two threads", 3, || {
        let (pool, items) = (pool(2), Items::new(2));
        let work = |crew: &Crew<'_>| {
            for (done, grain) in [Grain::Fixed(1), Grain::Guided].into_iter().enumerate() {
                items.add_one(crew, grain)?;
                assert!((0..2).all(|item| items.get(item) == done + 1));
            }
            Ok(())
        };
        Crew::lead_all(&pool, 2, work).expect("no error");
    });
    check("an operation, three threads", 2, || {
        let (pool, items) = (pool(3), Items::new(3));
        Crew::lead_all(&pool, 3, |crew| items.add_one(crew, Grain::Fixed(1))).expect("no error");
        assert!((0..3).all(|item| items.get(item) == 1));
    });
    check("an error in one item", 3, || {
        let (pool, items) = (pool(2), Items::new(2));
        let fail = |item| if item == 1 { Err(Error::internal("1")) } else { Ok(()) };
        let work = |crew: &Crew<'_>| {
            let failed = crew.share(2, Grain::Fixed(1), LONG, &|pieces| pieces.flatten().try_for_each(fail));
            assert!(matches!(failed, Err(Error::Internal(_))));
            items.add_one(crew, Grain::Fixed(1))
        };
        Crew::lead_all(&pool, 2, work).expect("no error");
        assert!((0..2).all(|item| items.get(item) == 1));
    });
    check("cancelled by a helper", 3, || {
        let (pool, cancel) = (pool(2), AtomicBool::new(false));
        let stopped = Crew::lead(&pool, 2, &cancel, |crew| {
            crew.share(2, Grain::Fixed(1), LONG, &|pieces| {
                if pieces.flatten().any(|item| item == 1) {
                    cancel.store(true, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
    });
    check("two users of one pool", 2, || {
        let pool = Arc::new(pool(2));
        let other = Arc::clone(&pool);
        let user = move |pool: &Pool| {
            let items = Items::new(2);
            Crew::lead_all(pool, 2, |crew| items.add_one(crew, Grain::Fixed(1))).expect("no error");
            assert!((0..2).all(|item| items.get(item) == 1));
        };
        let thread = loom::thread::spawn(move || user(&other));
        user(&pool);
        thread.join().expect("no panic");
    });
    check("two calls and a reader of one context", 3, || {
        let context = Arc::new(Exclusive::new(0, [0; 2]));
        let copy = |steps: &usize, to: &mut [usize; 2]| *to = [*steps; 2];
        let call = move |context: &Exclusive<usize, [usize; 2]>| {
            let step = |steps: &mut usize| {
                *steps += 1;
                context.publish(steps, copy);
                *steps += 1;
                Ok(())
            };
            match context.with(step, copy) {
                Ok(()) => 2,
                Err(error) => {
                    assert!(matches!(error, Error::Busy));
                    0
                }
            }
        };
        let read = |context: &Exclusive<_, [usize; 2]>| {
            let [first, second] = context.read(|copy| Ok(*copy)).expect("no reader is busy");
            assert!(first == second, "half a copy");
            first
        };
        let others = [(); 2].map(|()| {
            let context = Arc::clone(&context);
            loom::thread::spawn(move || call(&context))
        });
        let (before, after) = (read(&context), read(&context));
        let steps: usize = others.into_iter().map(|other| other.join().expect("no panic")).sum();
        assert!(before <= after && after <= steps && steps >= 2, "{before} {after} {steps}");
        assert_eq!(read(&context), steps);
        assert_eq!(call(&context), 2, "busy for ever");
    });
    check("beside a call that computes", 3, || {
        let context = Arc::new(Exclusive::new((), 0));
        let ((now_computing, computing), (now_done, done)) = (mpsc::channel(), mpsc::channel());
        let computes = {
            let context = Arc::clone(&context);
            move || {
                let step = |(): &mut ()| {
                    context.publish(&(), |(), to| *to = 1);
                    // As a callback does.
                    assert!(matches!(context.with(|()| Ok(()), |_, _| ()), Err(Error::Busy)));
                    assert_eq!(context.read(|copy| Ok(*copy)).expect("not busy"), 1);
                    now_computing.send(()).expect("no panic");
                    done.recv().expect("no panic");
                    Ok(())
                };
                context.with(step, |(), to| *to = 2)
            }
        };
        let thread = loom::thread::spawn(computes);
        computing.recv().expect("no panic");
        assert!(matches!(context.with(|()| Ok(()), |_, _| ()), Err(Error::Busy)));
        assert_eq!(context.read(|copy| Ok(*copy)).expect("not busy"), 1);
        now_done.send(()).expect("no panic");
        thread.join().expect("no panic").expect("no error");
        assert_eq!(context.read(|copy| Ok(*copy)).expect("not busy"), 2);
    });
}
