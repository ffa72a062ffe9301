//! Many contexts at once: the throughput of eight contexts in eight threads with the default number of threads each, and
//! of eight that share a pool, over that of one context with one thread per core. `cargo bench --bench contexts [MODEL]`

#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use esolm::{
    Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt, ThreadPool, ThreadPoolParams,
};

const ROUNDS: usize = 7;

/// Tokens per second of all contexts together, each in a thread of its own, for about two seconds.
fn throughput(mut contexts: Vec<Context>) -> f64 {
    let start = Instant::now();
    let tokens: usize = std::thread::scope(|scope| {
        let work = |context: &mut Context, seed: u64| {
            let params = GenerateParams { seed, ..GenerateParams::default() };
            let mut tokens = 0;
            while start.elapsed() < Duration::from_secs(2) {
                context.begin(&[Prompt::default()], &params).expect("a generation");
                while start.elapsed() < Duration::from_secs(2) {
                    match context.step().expect("a step") {
                        Some(step) => tokens += step.updates.len(),
                        None => break,
                    }
                }
            }
            tokens
        };
        let threads: Vec<_> = (contexts.iter_mut().zip(1..))
            .map(|(context, seed)| scope.spawn(move || work(context, seed)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    tokens as f64 / start.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() {
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let path = path.unwrap_or_else(|| "models/stories-q8_0.gguf".into());
    let model =
        Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).expect("a model");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let alone = ContextParams { threads: 1, ..ContextParams::default() };
    let make = |count: usize, params: &ContextParams| {
        (0..count).map(|_| Context::new(&model, params).expect("a context")).collect::<Vec<_>>()
    };
    let (mut eight, mut shared) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let one_per_core = throughput(make(cores, &alone));
        eight.push(throughput(make(8, &ContextParams::default())) / one_per_core);
        let pool = ThreadPool::new(&ThreadPoolParams::default()).expect("a pool");
        let params = ContextParams::default();
        let contexts = (0..8).map(|_| Context::with_pool(&model, &params, &pool).expect("a context"));
        shared.push(throughput(contexts.collect()) / one_per_core);
    }
    println!("throughput over {cores} contexts of one thread, median of {ROUNDS}:");
    println!("eight contexts, default threads  {:.2}", median(eight));
    println!("eight contexts, one pool         {:.2}", median(shared));
}
