//! The published shape `small` (hidden 768, 12 blocks, 12 heads, vocabulary 50,258) with random weights: how long
//! opening takes, how much memory is resident, and how fast text is generated, sampling included.
//!
//! `cargo bench --bench published_shape [-- TYPE [STEPS..] [ggml] [KEY=VALUE..]]`: TYPE f16, q8_0 or q4_k (with
//! q6_k for the vocabulary, as the converter does); `ggml` measures ggml's kernels beside this library's, in turns.
//! Keys: `runs` (of which the median counts), `length`, `alpha_0`, `top_p`, `threads`. The processors' time is that of
//! all threads together: on a machine that others use, too, it says more than the clock.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Instant;

use esolm::config::{Config, Variant};
use esolm::gguf::{TensorType, Writer};
use esolm::{Context, ContextParams, GenerateParams, Kernels, LoadOptions, Model, Prompt, Sampling};

const SMALL: Config = Config {
    variant: Variant::EsoB,
    context_length: 1024,
    embedding_length: 768,
    block_count: 12,
    feed_forward_length: 3072,
    head_count: 12,
    layer_norm_epsilon: 1e-5,
    rope_freq_base: 10000.0,
    vocab_size: 50258,
    mask_token_id: 50257,
    eos_token_id: None,
    bos_token_id: None,
    prepend_token_id: None,
    train_alpha_0: None,
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number = |key: &str, default: f64| {
        let value = args.iter().find_map(|a| a.strip_prefix(key)?.strip_prefix('='));
        value.map_or(default, |v| v.parse().unwrap())
    };
    let ty = args.first().and_then(|a| TensorType::from_name(a)).unwrap_or(TensorType::Q8_0);
    let mut steps: Vec<usize> = args.iter().skip(1).filter_map(|a| a.parse().ok()).collect();
    if steps.is_empty() {
        steps = vec![16, 64, 128];
    }
    let length = number("length", 1024.0) as usize;
    let path = std::env::temp_dir().join(format!("esolm-small-{}-{}.gguf", ty.name(), std::process::id()));
    write(&path, ty, &Config { context_length: length, ..SMALL });
    let before = resident();
    let model = Model::open(&path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
    println!(
        "{} {:.0} M parameters: opened in {:.2} ms, {:.1} MiB resident for it",
        ty.name(),
        model.parameter_count() as f64 / 1e6,
        model.load_time().as_secs_f64() * 1e3,
        (resident() - before) / 1048576.0,
    );
    let ours = ContextParams { threads: number("threads", 0.0) as usize, ..ContextParams::default() };
    let mut contexts = vec![("own", Context::new(&model, &ours).unwrap())];
    if args.iter().any(|a| a == "ggml") {
        let theirs = ContextParams { kernels: Kernels::Ggml, ..ours };
        contexts.push(("ggml", Context::new(&model, &theirs).unwrap()));
    }
    let sampling = Sampling { top_p: number("top_p", 0.9) as f32, ..Sampling::default() };
    for steps in steps {
        let alpha_0 = number("alpha_0", 1.0);
        let params = GenerateParams { steps, sampling, seed: 1, alpha_0, ..GenerateParams::default() };
        let mut times = vec![Vec::new(); contexts.len()];
        let mut passes = 0;
        for _ in 0..number("runs", 1.0) as usize {
            for ((_, context), times) in contexts.iter_mut().zip(&mut times) {
                context.begin(&[Prompt::default()], &params).unwrap();
                let (started, processors) = (Instant::now(), processor_time());
                passes = 0;
                while context.step().unwrap().is_some() {
                    passes += 1;
                }
                times.push((started.elapsed().as_secs_f64(), processor_time() - processors));
            }
        }
        for ((kernels, _), times) in contexts.iter().zip(times) {
            let median = |of: fn(&(f64, f64)) -> f64| {
                let mut all: Vec<f64> = times.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let (seconds, processors) = (median(|t| t.0), median(|t| t.1));
            let speed = length as f64 / seconds;
            println!(
                "{kernels:5} T = {steps:4}: {passes:4} steps, {seconds:6.2} s, {speed:6.0} tokens/s; \
                 processors {processors:6.2} s"
            );
        }
    }
    let _ = std::fs::remove_file(path);
}

/// Random weights of a plausible size: uniform in about +-0.03.
fn write(path: &std::path::Path, ty: TensorType, config: &Config) {
    let mut writer = Writer::new();
    config.write(&mut writer);
    for spec in config.tensors() {
        writer.declare(&spec.name, type_of(ty, &spec.name, &spec.dims), &spec.dims).unwrap();
    }
    let tensors = config.tensors();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    writer
        .write(&mut file, |name, bytes| {
            let dims = &tensors.iter().find(|t| t.name == name).unwrap().dims;
            let count: usize = dims.iter().product();
            let uniform = |n: u32| (n % 2001) as f32 / 1000.0 - 1.0;
            let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
            match (dims.len(), type_of(ty, name, dims)) {
                (1, _) => {
                    bytes.extend((0..count).flat_map(|_| (1.0f32 + 0.1 * uniform(next())).to_le_bytes()))
                }
                (_, TensorType::F16) => bytes.extend((0..count).flat_map(|_| half(0.03 * uniform(next())))),
                // Scales and numbers of any bits; the least values make up for the numbers' mean.
                (_, TensorType::Q4K) => {
                    for _ in 0..count / 256 {
                        bytes.extend(half(0.03 / 32.0 / 8.0));
                        bytes.extend(half(0.03 / 32.0));
                        bytes.extend((0..140).map(|_| next() as u8));
                    }
                }
                (_, TensorType::Q6K) => {
                    for _ in 0..count / 256 {
                        bytes.extend((0..208).map(|_| next() as u8));
                        bytes.extend(half(0.03 / 32.0 / 64.0));
                    }
                }
                _ => {
                    for _ in 0..count / 32 {
                        bytes.extend(half(0.03 / 127.0));
                        bytes.extend((0..32).map(|_| next() as u8));
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

fn type_of(ty: TensorType, name: &str, dims: &[usize]) -> TensorType {
    match (dims.len(), ty) {
        (1, _) => TensorType::F32,
        (_, TensorType::Q4K) if ["token_embd.weight", "output.weight"].contains(&name) => TensorType::Q6K,
        _ => ty,
    }
}

/// Seconds that all threads have computed, in hundredths; 0 where the system does not say.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) * 1024.0
}
