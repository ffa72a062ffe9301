//! Time to draw a token from 50,258 logits, as `small` has them: `cargo bench --bench sampler`.
//!
//! The least time of many rows, since what else the machine does only adds to it; and the median.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Instant;

use esolm::{Sampler, Sampling};

const VOCAB: usize = 50258;

fn main() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut sampler = Sampler::new(VOCAB, VOCAB as u32 - 1);
    let plain = Sampling::default();
    for (name, sampling) in [
        ("no filter", plain),
        ("nucleus 0.9", Sampling { top_p: 0.9, ..plain }),
        ("nucleus 0.5", Sampling { top_p: 0.5, ..plain }),
        ("best 50", Sampling { top_k: 50, ..plain }),
    ] {
        // Logits of a deviation of 1, where nearly all tokens count, and of 4, where few do.
        for deviation in [1.0, 4.0] {
            let mut times: Vec<f64> = (0..200)
                .map(|_| {
                    let normal = |u: f64, v: f64| (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                    let logits: Vec<f32> =
                        (0..VOCAB).map(|_| (deviation * normal(1.0 - uniform(), uniform())) as f32).collect();
                    let started = Instant::now();
                    std::hint::black_box(sampler.draw(&logits, &sampling, uniform()).unwrap());
                    started.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let (least, median) = (times[0], times[times.len() / 2]);
            println!("{name:12} deviation {deviation}: {least:5.0} us at least, median {median:5.0} us");
        }
    }
}
