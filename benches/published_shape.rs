//! The published shape `small` (hidden 768, 12 blocks, 12 heads, vocabulary 50,258) with random weights: how long
//! opening takes, how much memory is resident, and how fast text is generated, sampling included.
//!
//! `cargo bench --bench published_shape [-- TYPE [STEPS..] [ggml]]`, TYPE f16 or q8_0; `ggml` measures ggml's kernels
//! beside this library's, in turns.
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
    let ty = args.first().and_then(|a| TensorType::from_name(a)).unwrap_or(TensorType::Q8_0);
    let mut steps: Vec<usize> = args.iter().skip(1).filter_map(|a| a.parse().ok()).collect();
    if steps.is_empty() {
        steps = vec![16, 64, 128];
    }
    let path = std::env::temp_dir().join(format!("esolm-small-{}.gguf", ty.name()));
    write(&path, ty);
    let before = resident();
    let model = Model::open(&path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
    println!(
        "{} {:.0} M parameters: opened in {:.2} ms, {:.1} MiB resident for it",
        ty.name(),
        model.parameter_count() as f64 / 1e6,
        model.load_time().as_secs_f64() * 1e3,
        (resident() - before) / 1048576.0,
    );
    let ours = ContextParams::default();
    let mut contexts = vec![("own", Context::new(&model, &ours).unwrap())];
    if args.iter().any(|a| a == "ggml") {
        let theirs = ContextParams { kernels: Kernels::Ggml, ..ours };
        contexts.push(("ggml", Context::new(&model, &theirs).unwrap()));
    }
    for steps in steps {
        for (kernels, context) in &mut contexts {
            let sampling = Sampling { top_p: 0.9, ..Sampling::default() };
            let params = GenerateParams { steps, sampling, seed: 1, ..GenerateParams::default() };
            context.begin(&[Prompt::default()], &params).unwrap();
            let started = Instant::now();
            let mut passes = 0;
            while context.step().unwrap().is_some() {
                passes += 1;
            }
            let seconds = started.elapsed().as_secs_f64();
            let speed = 1024.0 / seconds;
            println!("{kernels:5} T = {steps:4}: {passes:4} steps, {seconds:6.2} s, {speed:6.0} tokens/s");
        }
    }
    let _ = std::fs::remove_file(path);
}

/// Random weights of a plausible size: uniform in about +-0.03.
fn write(path: &std::path::Path, ty: TensorType) {
    let mut writer = Writer::new();
    SMALL.write(&mut writer);
    for spec in SMALL.tensors() {
        let ty = if spec.dims.len() > 1 { ty } else { TensorType::F32 };
        writer.declare(&spec.name, ty, &spec.dims).unwrap();
    }
    let tensors = SMALL.tensors();
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
            match (dims.len(), ty) {
                (1, _) => {
                    bytes.extend((0..count).flat_map(|_| (1.0f32 + 0.1 * uniform(next())).to_le_bytes()))
                }
                (_, TensorType::F16) => bytes.extend(
                    (0..count).flat_map(|_| half::f16::from_f32(0.03 * uniform(next())).to_le_bytes()),
                ),
                _ => {
                    for _ in 0..count / 32 {
                        bytes.extend(half::f16::from_f32(0.03 / 127.0).to_le_bytes());
                        bytes.extend((0..32).map(|_| next() as u8));
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) * 1024.0
}
