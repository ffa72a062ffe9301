//! The limits of the machine: how fast it reads memory and multiplies.

use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism};
use std::time::Instant;

use esolm::limits::{memory_to_read, multiply_bytes, multiply_floats, read_memory};
use esolm::{Error, Result};
use serde_json::{Value, json};

/// The processor and its limits, measured with a number of threads.
pub struct Machine {
    pub processor: String,
    pub threads: usize,
    /// Bytes per second that all threads together read from memory, by the best way of [`Pattern::all`].
    pub bandwidth: f64,
    /// Operations per second of all threads together, with bytes and with floats of single precision, by the instructions of
    /// esolm's kernels; a multiplication and an addition are two.
    pub byte_operations: f64,
    pub float_operations: f64,
}

impl Machine {
    /// Measures for about a second. `threads` are those of the generations; more of them than there are processors are no
    /// faster, and would have the measurement take as many times as long.
    pub fn probe(threads: usize) -> Result<Self> {
        let side_by_side = available_parallelism().map_or(threads, |all| threads.min(all.get()));
        let processor = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| Some(text.lines().find_map(|l| l.strip_prefix("model name"))?.to_owned()))
            .map_or_else(|| std::env::consts::ARCH.into(), |name| name.trim_matches([' ', '\t', ':']).into());
        Ok(Self {
            processor,
            threads,
            bandwidth: bandwidth(side_by_side)?,
            byte_operations: peak(side_by_side, multiply_bytes),
            float_operations: peak(side_by_side, multiply_floats),
        })
    }

    /// Measures again, and keeps what is faster: a shared machine may have been slower the first time.
    pub fn probe_again(&mut self) {
        // What was measured meanwhile is not lost for it.
        let Ok(again) = Self::probe(self.threads) else { return };
        self.bandwidth = self.bandwidth.max(again.bandwidth);
        self.byte_operations = self.byte_operations.max(again.byte_operations);
        self.float_operations = self.float_operations.max(again.float_operations);
    }

    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "threads": self.threads,
            "read_bytes_per_second": self.bandwidth,
            "int8_operations_per_second": self.byte_operations,
            "f32_operations_per_second": self.float_operations,
        })
    }
}

/// Runs `work` on so many threads at once, or on as many as the system gives; the sum of its results per second, from when the
/// first begins until the last ends.
fn speed(threads: usize, work: impl Fn() -> f64 + Sync) -> f64 {
    let (work, start) = (&work, &RwLock::new(()));
    let timed = move || {
        drop(start.read());
        let began = Instant::now();
        (work(), began, Instant::now())
    };
    let done: Vec<_> = std::thread::scope(|scope| {
        let not_yet = start.write();
        let spawn = |_| Builder::new().spawn_scoped(scope, timed).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        drop(not_yet);
        let own = timed();
        std::iter::once(own).chain(others.into_iter().filter_map(|other| other.join().ok())).collect()
    });
    let began = done.iter().map(|(_, began, _)| *began).min();
    let ended = done.iter().map(|(_, _, ended)| *ended).max();
    let seconds = began.zip(ended).map_or(f64::INFINITY, |(began, ended)| (ended - began).as_secs_f64());
    done.iter().map(|(work, ..)| work).sum::<f64>() / seconds
}

/// Operations per second. `work` does some, and says how many.
fn peak(threads: usize, work: fn(usize) -> u64) -> f64 {
    // For about ten milliseconds.
    let rounds = (0.01 * speed(1, || work(1000) as f64) / work(1) as f64).max(1.0) as usize;
    (0..8).map(|_| speed(threads, || work(rounds) as f64)).fold(0.0, f64::max)
}

/// A way to read memory.
#[derive(Clone, Copy)]
struct Pattern {
    threads: usize,
    /// How many places a thread reads at once.
    places: usize,
    /// How many cache lines before it needs them it asks for them.
    lines_ahead: usize,
    /// Bytes that a thread takes at a time, as the kernels' threads take panels.
    piece: usize,
}

impl Pattern {
    fn all(threads: usize, bytes: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for places in [1, 2, 4, 8] {
            for lines_ahead in [0, 8, 32] {
                for piece in [bytes.div_ceil(threads), 256 << 10] {
                    all.push(Self { threads, places, lines_ahead, piece });
                }
                // One thread may get more than several, if the others are not alone on their cores.
                if threads > 1 {
                    all.push(Self { threads: 1, places, lines_ahead, piece: bytes });
                }
            }
        }
        all
    }

    /// Bytes per second.
    fn speed(self, memory: &[u8]) -> f64 {
        let pieces: Vec<_> = memory.chunks(self.piece).collect();
        let next = AtomicUsize::new(0);
        speed(self.threads, || {
            let mut bytes = 0;
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                read_memory(piece, self.places, self.lines_ahead);
                bytes += piece.len();
            }
            bytes as f64
        })
    }
}

/// The most bytes per second of all ways to read memory.
fn bandwidth(threads: usize) -> Result<f64> {
    // Far larger than most caches.
    let bytes = 192 << 20;
    let memory = memory_to_read(bytes).map_err(|_| {
        Error::OutOfMemory(format!("{bytes} bytes could not be allocated to measure how fast memory is read"))
    })?;
    let memory = memory.as_ref();
    let mut ways: Vec<_> =
        Pattern::all(threads, bytes).into_iter().map(|way| (way.speed(memory), way)).collect();
    ways.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = ways.iter().take(4).flat_map(|(once, way)| {
        let again = (0..8).map(|_| way.speed(memory));
        std::iter::once(*once).chain(again)
    });
    Ok(best.fold(0.0, f64::max))
}
