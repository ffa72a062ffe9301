//! The limits of the machine: memory bandwidth and arithmetic speed.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};

/// The processor and its limits, measured with a number of threads.
pub struct Machine {
    pub processor: String,
    pub threads: usize,
    /// Bytes per second that all threads together read from memory.
    pub bandwidth: f64,
    /// Floating-point operations per second, f32, all threads together; a multiply-add is two.
    pub peak: f64,
}

impl Machine {
    /// Measures for about half a second.
    pub fn probe(threads: usize) -> Self {
        let processor = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| Some(text.lines().find_map(|l| l.strip_prefix("model name"))?.to_owned()))
            .map_or_else(|| std::env::consts::ARCH.into(), |name| name.trim_matches([' ', '\t', ':']).into());
        Self { processor, threads, bandwidth: bandwidth(threads), peak: peak(threads) }
    }

    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "threads": self.threads,
            "read_bytes_per_second": self.bandwidth,
            "f32_operations_per_second": self.peak,
        })
    }
}

/// Runs `work` on all threads at once, several times; the highest sum of its results per second.
fn best(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let round = || {
        let started = Instant::now();
        let done: f64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|number| {
                    let work = &work;
                    scope.spawn(move || work(number))
                })
                .collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).sum()
        });
        done / started.elapsed().as_secs_f64()
    };
    (0..5).map(|_| round()).fold(0.0, f64::max)
}

fn bandwidth(threads: usize) -> f64 {
    // Far larger than any cache.
    let words = vec![1u64; 24 << 20];
    let share = words.len() / threads;
    best(threads, |number| {
        let mine = words.iter().skip(number * share).take(share);
        black_box(mine.fold(0u64, |sum, word| sum.wrapping_add(*word)));
        (share * size_of::<u64>()) as f64
    })
}

fn peak(threads: usize) -> f64 {
    const LANES: usize = 16;
    const CHAINS: usize = if cfg!(target_feature = "avx512f") { 10 } else { 6 };
    const ROUNDS: usize = 1_000_000;
    best(threads, |_| {
        let (factor, addend) = (black_box([0.999_f32; LANES]), black_box([0.001_f32; LANES]));
        let mut sums = black_box([[0.0_f32; LANES]; CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                for ((sum, factor), addend) in sum.iter_mut().zip(factor).zip(addend) {
                    // `mul_add` is a slow function call on machines without the instruction.
                    *sum = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                        sum.mul_add(factor, addend)
                    } else {
                        *sum * factor + addend
                    };
                }
            }
        }
        black_box(sums);
        (2 * LANES * CHAINS * ROUNDS) as f64
    })
}
