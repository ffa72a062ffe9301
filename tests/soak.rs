//! Many generations in many threads, with everything that happens to a program that runs for long: `soak [GENERATIONS]`.
//!
//! Eight threads with a context each, of two models, generate texts of 16 tokens, while another thread cancels them at
//! random. In between states are saved and restored, calls fail, texts are scored, and contexts are made anew. The same seed
//! always gives the same text, and the memory of the process does not grow. `make soak` runs 100,000 generations.
#![allow(clippy::expect_used, clippy::panic, reason = "a test, though without the harness")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use esolm::convert::{Options, convert};
use esolm::{CancelToken, Context, ContextParams, Error, GenerateParams, LoadOptions, Model, Prompt, Result};

const THREADS: usize = 8;
const LENGTH: usize = 16;
/// Seeds return, so that the text of each is known.
const SEEDS: usize = 32;
/// Without an argument.
const GENERATIONS: usize = 2000;
/// How far the resident memory may be above that after a tenth of the generations. Freed blocks stay with the allocator of
/// each thread, and contexts are made anew all the time.
const GROWTH: u64 = 4 << 20;
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories-q8_0.gguf");
const CHECKPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiny-B/checkpoint.ckpt");

/// What a seed gives.
#[derive(PartialEq)]
struct Expected {
    text: Vec<u32>,
    /// Half of it generated, saved and continued.
    continued: Vec<u32>,
    log_probs: Vec<f64>,
}

fn main() {
    if !cfg!(target_os = "linux") {
        println!("test soak ... ignored: needs Linux's resident set size");
        return;
    }
    let given = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let generations = given.unwrap_or(GENERATIONS);
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = folder.path().join("tiny.gguf");
    convert(Path::new(CHECKPOINT), &tiny, &Options::default(), &mut |_| ()).expect("a model");
    let models = [tiny.as_path(), Path::new(MODEL)].map(|path| {
        Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).expect("a model")
    });
    let expected = [0, 1].map(|number| {
        let mut context = new_context(&models[number], 1);
        (0..SEEDS).map(|seed| what_a_seed_gives(&mut context, seed).expect("a text")).collect::<Vec<_>>()
    });
    let soak = Soak {
        models,
        expected,
        generations,
        next: AtomicUsize::new(0),
        tokens: Default::default(),
        kinds: Mutex::default(),
    };
    let started = Instant::now();
    let memory = soak.run();
    let kinds = soak.kinds.lock().expect("no thread has panicked");
    let counts: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("{generations} generations in {:.1?}: {}", started.elapsed(), counts.join(", "));
    println!(
        "resident after a tenth {} KiB, at most {} KiB, at the end {} KiB",
        memory.settled >> 10,
        memory.most >> 10,
        memory.end >> 10
    );
    assert!(memory.most <= memory.settled + GROWTH, "the memory grows");
    for kind in ["generated", "cancelled", "continued", "scored", "refused", "anew"] {
        assert!(kinds.get(kind).is_some_and(|&count| count > 0), "nothing {kind}");
    }
    println!("test soak ... ok");
}

fn new_context(model: &Model, threads: usize) -> Context {
    let params = ContextParams { length: LENGTH, threads, ..ContextParams::default() };
    Context::new(model, &params).expect("a context")
}

/// Both phases. Some seeds have a prompt.
fn request(seed: usize, length: usize) -> (Prompt, GenerateParams<'static>) {
    let prompt = if seed.is_multiple_of(3) {
        Prompt::prefix(&[5, 6]).expect("memory for two tokens")
    } else {
        Prompt::default()
    };
    let params =
        GenerateParams { length, alpha_0: 0.5, steps: 4, seed: seed as u64, ..GenerateParams::default() };
    (prompt, params)
}

fn what_a_seed_gives(context: &mut Context, seed: usize) -> Result<Expected> {
    let text = generated(context, seed)?;
    let continued = continued(context, seed)?;
    let log_probs = scored(context, &text)?;
    Ok(Expected { text, continued, log_probs })
}

fn generated(context: &mut Context, seed: usize) -> Result<Vec<u32>> {
    let (prompt, params) = request(seed, LENGTH);
    retried(context, |context| context.begin(std::slice::from_ref(&prompt), &params))?;
    finished(context)
}

fn continued(context: &mut Context, seed: usize) -> Result<Vec<u32>> {
    let (prompt, params) = request(seed, LENGTH / 2);
    retried(context, |context| context.begin(std::slice::from_ref(&prompt), &params))?;
    finished(context)?;
    let state = context.save()?;
    retried(context, |context| context.restore(&state))?;
    let (_, params) = request(seed, LENGTH);
    retried(context, |context| context.extend(&[Prompt::default()], &params))?;
    finished(context)
}

fn scored(context: &mut Context, text: &[u32]) -> Result<Vec<f64>> {
    let order: Vec<u32> = (0..text.len() as u32).collect();
    retried(context, |context| context.score_order(text, &order, 1))
}

fn finished(context: &mut Context) -> Result<Vec<u32>> {
    while retried(context, |context| context.step().map(|step| step.is_some()))? {}
    Ok(context.tokens(0)?.to_vec())
}

/// Calls again what has been cancelled.
fn retried<T>(context: &mut Context, mut call: impl FnMut(&mut Context) -> Result<T>) -> Result<T> {
    loop {
        match call(context) {
            Err(Error::Cancelled) => {
                CANCELLED.fetch_add(1, Ordering::Relaxed);
                context.cancel_token().reset();
            }
            other => return other,
        }
    }
}

static CANCELLED: AtomicUsize = AtomicUsize::new(0);

/// Calls that have to fail, and change nothing.
fn fail(context: &mut Context) {
    let vocabulary = context.model().config().vocab_size as u32;
    let (_, good) = request(0, LENGTH);
    let before = context.tokens(0).map(<[u32]>::to_vec);
    let wrong = [
        (Prompt::prefix(&[vocabulary]).expect("memory for a token"), good),
        (Prompt { known: vec![(LENGTH as u32, 1)] }, good),
        (Prompt { known: vec![(1, 1), (1, 2)] }, good),
        (Prompt::default(), GenerateParams { alpha_0: f64::NAN, ..good }),
        (Prompt::default(), GenerateParams { length: LENGTH + 1, ..good }),
    ];
    for (prompt, params) in wrong {
        let result = retried(context, |context| context.begin(std::slice::from_ref(&prompt), &params));
        assert!(matches!(result, Err(Error::InvalidArgument(_))), "{result:?}");
    }
    if let Ok(mut state) = context.save() {
        let middle = state.len() / 2;
        state[middle] ^= 1;
        let result = retried(context, |context| context.restore(&state));
        assert!(matches!(result, Err(Error::BadFile { .. })), "{result:?}");
    }
    assert!(Model::open("/nowhere", &LoadOptions::default()).is_err());
    assert_eq!(context.tokens(0).map(<[u32]>::to_vec).ok(), before.ok());
}

struct Soak {
    models: [Model; 2],
    expected: [Vec<Expected>; 2],
    generations: usize,
    next: AtomicUsize,
    /// Cancels each thread's context.
    tokens: [Mutex<Option<CancelToken>>; THREADS],
    /// How often what was done.
    kinds: Mutex<BTreeMap<&'static str, usize>>,
}

/// Resident bytes.
struct Memory {
    settled: u64,
    most: u64,
    end: u64,
}

impl Soak {
    fn run(&self) -> Memory {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || self.work(number))).collect();
            let watch = scope.spawn(|| self.watch(&done));
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(|result| result.is_ok()), "a thread has failed");
            watch.join().expect("the watching thread")
        })
    }

    /// Cancels contexts and measures memory until all is done.
    fn watch(&self, done: &AtomicBool) -> Memory {
        let mut memory = Memory { settled: 0, most: 0, end: 0 };
        let mut round = 0usize;
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(300));
            round += 1;
            let token = self.tokens[round * 5 % THREADS].lock().expect("a token").clone();
            if let Some(token) = token {
                token.cancel();
            }
            if self.next.load(Ordering::Relaxed) * 10 < self.generations {
                memory.settled = resident();
            } else if round.is_multiple_of(16) {
                memory.most = memory.most.max(resident());
            }
        }
        memory.end = resident();
        memory.most = memory.most.max(memory.end);
        memory
    }

    /// Generates, and holds each result to what its seed gives.
    fn work(&self, thread: usize) {
        let number = thread % 2;
        let (model, expected) = (&self.models[number], &self.expected[number]);
        let mut context = self.context(model, thread);
        let mut kinds = BTreeMap::new();
        loop {
            let generation = self.next.fetch_add(1, Ordering::Relaxed);
            if generation >= self.generations {
                break;
            }
            let seed = generation % SEEDS;
            let mut count = |kind| *kinds.entry(kind).or_insert(0) += 1;
            // A number that has nothing to do with the seed.
            match generation / SEEDS % 7 {
                0 => {
                    let text = continued(&mut context, seed).expect("a text");
                    assert!(text == expected[seed].continued, "seed {seed} of model {number}, continued");
                    count("continued");
                }
                1 => {
                    fail(&mut context);
                    count("refused");
                }
                2 => {
                    let found = scored(&mut context, &expected[seed].text).expect("a score");
                    assert!(found == expected[seed].log_probs, "seed {seed} of model {number}, scored");
                    count("scored");
                }
                3 if seed.is_multiple_of(8) => {
                    drop(context);
                    context = self.context(model, thread);
                    count("anew");
                }
                _ => (),
            }
            let text = generated(&mut context, seed).expect("a text");
            assert!(text == expected[seed].text, "seed {seed} of model {number}");
            count("generated");
        }
        let mut all = self.kinds.lock().expect("counts");
        kinds.into_iter().for_each(|(kind, count)| *all.entry(kind).or_default() += count);
        all.insert("cancelled", CANCELLED.load(Ordering::Relaxed));
    }

    /// A context, which can be cancelled from now on. Every other one has two threads.
    fn context(&self, model: &Model, thread: usize) -> Context {
        let context = new_context(model, 1 + thread / 2 % 2);
        *self.tokens[thread].lock().expect("a token") = Some(context.cancel_token());
        context
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
