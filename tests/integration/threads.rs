//! The text does not depend on the threads: their number, whose they are, how many contexts share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use esolm::{Context, ContextParams, Error, GenerateParams, Kernels, Prompt, ThreadPool, ThreadPoolParams};

use crate::runs::{both_phases, default_model, every_step, open};

/// Steps of many rows, and of one: with the built-in model some operations of both are shared by threads.
fn write(context: &mut Context) -> Vec<u32> {
    let params = GenerateParams { steps: 3, ..both_phases(5) };
    context.generate(&[Prompt::default(), Prompt::default()], &params, every_step).unwrap();
    (0..2).flat_map(|sequence| context.tokens(sequence).unwrap().to_vec()).collect()
}

fn limits(threads: usize) -> ContextParams {
    ContextParams { sequences: 2, length: 128, threads, ..ContextParams::default() }
}

/// A function that runs tasks in threads of its own, and counts its calls.
fn in_threads(calls: &Arc<AtomicUsize>) -> impl Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync + 'static {
    let calls = Arc::clone(calls);
    move |count, task| {
        calls.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for i in 0..count {
                scope.spawn(move || task(i));
            }
        });
    }
}

#[test]
fn text_depends_neither_on_the_threads_nor_on_whose_they_are() {
    let model = open(&default_model());
    let alone = write(&mut Context::new(&model, &limits(1)).unwrap());
    let mut own = Context::new(&model, &limits(5)).unwrap();
    for threads in [5, 3, 1, 4] {
        own.set_threads(threads).unwrap();
        assert_eq!(own.threads(), threads);
        assert!(write(&mut own) == alone, "{threads} threads");
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let pools = [
        ThreadPool::new(&ThreadPoolParams { threads: 3, poll: 0, ..ThreadPoolParams::default() }).unwrap(),
        ThreadPool::of_callers(3, in_threads(&calls)).unwrap(),
    ];
    for pool in &pools {
        let mut context = Context::with_pool(&model, &limits(0), pool).unwrap();
        assert_eq!((context.threads(), pool.threads()), (3, 3));
        assert!(write(&mut context) == alone, "{pool:?}");
        context.set_threads(2).unwrap();
        assert!(write(&mut context) == alone, "{pool:?}");
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
}

#[test]
fn contexts_that_share_a_pool_at_the_same_time_write_their_texts() {
    let model = open(&default_model());
    let alone = write(&mut Context::new(&model, &limits(1)).unwrap());
    let pool = ThreadPool::new(&ThreadPoolParams { threads: 2, ..ThreadPoolParams::default() }).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut context = Context::with_pool(&model, &limits(0), &pool).unwrap();
            let alone = &alone;
            scope.spawn(move || (0..3).for_each(|_| assert!(write(&mut context) == *alone)));
        }
    });
    // A context keeps the threads of a pool that is gone.
    let mut context = Context::with_pool(&model, &limits(0), &pool).unwrap();
    drop(pool);
    assert!(write(&mut context) == alone);
}

#[test]
fn fewer_threads_compute_with_ggml_too() {
    let model = open(&default_model());
    let params = |threads| ContextParams { kernels: Kernels::Ggml, ..limits(threads) };
    // Not with all of the threads: ggml's wait for each other by spinning, which takes minutes on busy cores.
    let mut context = Context::new(&model, &params(3)).unwrap();
    context.set_threads(1).unwrap();
    assert_eq!(context.threads(), 1);
    assert!(write(&mut context) == write(&mut Context::new(&model, &params(1)).unwrap()));
}

#[test]
fn impossible_threads_are_refused() {
    let model = open(&default_model());
    let mut context = Context::new(&model, &limits(2)).unwrap();
    for threads in [0, 3, usize::MAX] {
        assert!(matches!(context.set_threads(threads), Err(Error::InvalidArgument(_))));
    }
    let defaults = ThreadPoolParams::default();
    for params in [
        ThreadPoolParams { threads: 513, ..defaults },
        ThreadPoolParams { poll: 101, ..defaults },
        ThreadPoolParams { nice: 41, ..defaults },
    ] {
        assert!(matches!(ThreadPool::new(&params), Err(Error::InvalidArgument(_))), "{params:?}");
    }
    for threads in [0, 513] {
        let refused = ThreadPool::of_callers(threads, |_, _| ());
        assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    }
    // A function that runs nothing is an error of the call.
    let pool = ThreadPool::of_callers(2, |_, _| ()).unwrap();
    let mut context = Context::with_pool(&model, &limits(0), &pool).unwrap();
    let failed = context.generate(&[Prompt::default()], &both_phases(1), every_step);
    assert!(matches!(failed, Err(Error::InvalidArgument(_))), "{failed:?}");
}
