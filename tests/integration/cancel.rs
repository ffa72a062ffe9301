//! Cancelling a generation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use esolm::{CancelToken, Context, ContextParams, Error, Kernels, Prompt, ThreadPool, Variant};

use crate::reference::Network;
use crate::runs::{both_phases, finish, params, texts, tokens};

#[test]
fn cancelled_generation_continues_unchanged() {
    let model = Network::small(Variant::EsoB, 1).model();
    for batch_rows in [0, 5] {
        let mut context = Context::new(&model, &ContextParams { batch_rows, ..params(2) }).unwrap();
        let prompts = [Prompt::prefix(&[4, 5, 6]).unwrap(), Prompt::default()];
        let whole = texts(&mut context, &prompts, &both_phases(8));
        context.begin(&prompts, &both_phases(8)).unwrap();
        let token = context.cancel_token();
        loop {
            token.cancel();
            let (done, total) = context.progress();
            if done == total {
                assert!(context.step().unwrap().is_none(), "nothing is left to cancel");
                break;
            }
            for _ in 0..2 {
                assert!(matches!(context.step(), Err(Error::Cancelled)));
            }
            assert_eq!(context.progress().0, done);
            token.reset();
            context.step().unwrap().unwrap();
        }
        assert_eq!(tokens(&context), whole);
        token.reset();
        context.begin(&prompts, &both_phases(8)).unwrap();
        token.cancel();
        let refused = context.begin(&prompts, &both_phases(8));
        assert!(matches!(refused, Err(Error::Cancelled)), "a cancel before the beginning is not lost");
        assert!(matches!(context.step(), Err(Error::Cancelled)));
        token.reset();
        finish(&mut context);
    }
}

/// A prompt is fed before the first token is written; a cancel ends the step in the midst of it.
#[test]
fn cancel_ends_the_feeding_of_a_prompt() {
    const ROWS: usize = 4;
    const PROMPT: [u32; 26] = [7; 26];
    let model = Network::small(Variant::Ar, 1).model();
    let limits = ContextParams { kernels: Kernels::Own, batch_rows: ROWS, ..params(1) };
    let prompts = [Prompt::prefix(&PROMPT).unwrap()];
    let whole = texts(&mut Context::new(&model, &limits).unwrap(), &prompts, &both_phases(8));

    // Each run of the network is a batch. One of them is told to be the last.
    let (runs, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::<CancelToken>::new()));
    let run = {
        let (runs, last) = (runs.clone(), last.clone());
        move |count, task: &(dyn Fn(usize) + Sync)| {
            if runs.fetch_add(1, Ordering::Relaxed) == 2 {
                last.get().unwrap().cancel();
            }
            (0..count).for_each(task);
        }
    };
    let pool = ThreadPool::of_callers(2, run).unwrap();
    let mut context = Context::with_pool(&model, &ContextParams { threads: 2, ..limits }, &pool).unwrap();
    last.set(context.cancel_token()).unwrap();
    context.begin(&prompts, &both_phases(8)).unwrap();
    assert!(matches!(context.step(), Err(Error::Cancelled)));
    assert_eq!(runs.load(Ordering::Relaxed), 3, "batches of {ROWS}, of {} rows", PROMPT.len());
    assert_eq!(context.progress().0, 0);
    context.cancel_token().reset();
    finish(&mut context);
    assert_eq!(tokens(&context), whole);

    // As one that joins, a step for each batch, which tells how far it is.
    let mut context = Context::new(&model, &ContextParams { prompt_rows: ROWS, ..limits }).unwrap();
    let sequence = context.add_sequence(&prompts[0], &both_phases(8)).unwrap();
    let mut fed = vec![context.cached_tokens(sequence).unwrap()];
    while context.step().unwrap().unwrap().updates.is_empty() {
        fed.push(context.cached_tokens(sequence).unwrap());
    }
    assert!(fed.len() > 5 && fed.windows(2).all(|two| two[1] == two[0] + ROWS), "{fed:?}");
    finish(&mut context);
    assert_eq!(tokens(&context), whole);
}
