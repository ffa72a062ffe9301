//! What runs once per token or per file, under criterion: `cargo bench --bench hot_paths [-- FILTER]`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use esolm::gguf::Gguf;
use esolm::{Context, ContextParams, LoadOptions, Model, Plan, Sampler, SamplingParams};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories-q8_0.gguf");
const VOCABULARY: usize = 50258;

/// One draw from a row of GPT-2's vocabulary: normal logits of a deviation of 1, where nearly all tokens count, and
/// of 4, where few do.
fn sampler(criterion: &mut Criterion) {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let mut sampler = Sampler::new(VOCABULARY, VOCABULARY as u32 - 1).unwrap();
    let plain = SamplingParams::FULL;
    for deviation in [1.0, 4.0] {
        let logits: Vec<f32> = (0..VOCABULARY).map(|_| (deviation * normal()) as f32).collect();
        for (name, sampling) in [
            ("nucleus 0.9", SamplingParams { top_p: 0.9, ..plain }),
            ("top-k 50", SamplingParams { top_k: 50, ..plain }),
            ("all tokens", SamplingParams { top_p: 1.0, ..plain }),
            ("greedy", SamplingParams { temperature: 0.0, ..plain }),
        ] {
            let mut number = 0.0;
            criterion.bench_function(&format!("sampler/{name}, deviation {deviation}"), |bencher| {
                bencher.iter(|| {
                    number = (number + 0.618034) % 1.0;
                    sampler.draw(black_box(&logits), &sampling, number).unwrap()
                });
            });
        }
    }
}

/// A model file's description, tokenizer included, from bytes in memory.
fn reader(criterion: &mut Criterion) {
    let bytes = std::fs::read(MODEL).unwrap();
    criterion.bench_function("reader/parse", |bencher| {
        bencher.iter(|| Gguf::parse(black_box(&bytes), "model").unwrap());
    });
}

/// One step of the default model, half of the text known: as many tokens as the name says at once.
fn step(criterion: &mut Criterion) {
    let model = Model::open(MODEL, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
    let length = model.config().context_length as u32;
    let mut context = Context::new(&model, &ContextParams::default()).unwrap();
    let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::FULL };
    for count in [1, 8, 32] {
        let half = length / 2;
        let plan = Plan {
            order: (0..length).collect(),
            known: vec![1; half as usize],
            counts: vec![count, count, half - 2 * count],
            diffusion: half as usize,
        };
        criterion.bench_function(&format!("step/{count} tokens"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    // The first step also takes in the known half; the second one is measured.
                    context.begin_with_plans(std::slice::from_ref(&plan), sampling, 1).unwrap();
                    context.step().unwrap();
                    let started = Instant::now();
                    context.step().unwrap();
                    time += started.elapsed();
                }
                time
            });
        });
    }
}

criterion_group!(benches, sampler, reader, step);
criterion_main!(benches);
