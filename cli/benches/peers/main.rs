//! This library beside llama.cpp and beside itself, on one machine, in one run, in turns.
//!
//! `make bench-peers`, or `cargo bench -p esolm-cli --bench peers -- [SHAPE..] [TYPE..] [ROUNDS]` (types q8_0 and q4_k, 5 rounds).
//! Shapes of Qwen (`qwen3-8b`, as `esolm bench` names them) are compared as qwen.rs says. Without one, every contestant has
//! the published shape `small` with random weights, 1024 tokens, batch 1, and all cores. Times are medians; this library's and PyTorch's hold sampling (nucleus 0.9), llama.cpp's hold taking the most likely
//! token. llama.cpp and PyTorch take part if PEER_PYTHON names a Python that has them.
#![allow(missing_docs)]

#[allow(dead_code, unused_imports, reason = "`esolm bench` uses more of it")]
#[path = "../../src/commands/bench/floor.rs"]
mod floor;
mod llama;
#[allow(dead_code, reason = "`esolm bench` uses more of it")]
#[path = "../../src/commands/bench/machine.rs"]
mod machine;
#[allow(dead_code, unused_imports, reason = "`esolm bench` uses more of it")]
#[path = "../../src/commands/bench/measure.rs"]
mod measure;
mod python;
mod qwen;
#[path = "../../src/commands/bench/synthetic.rs"]
mod synthetic;

use std::time::Instant;

use esolm::gguf::TensorType;
use esolm::quantize::QuantizeOptions;
use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Result, SamplingParams, Variant};

use measure::{Times, quantile};
use python::Program;
use synthetic::{Shape, SyntheticModel};

const TOKENS: usize = 1024;
/// Passes of the uncached model that are measured; each does the same work.
const MDLM_STEPS: usize = 4;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let mut types: Vec<TensorType> = args.iter().filter_map(|a| TensorType::from_name(a)).collect();
    if types.is_empty() {
        types = vec![TensorType::Q8_0, TensorType::Q4K];
    }
    let rounds = args.iter().find_map(|a| a.parse().ok()).unwrap_or(5);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let python = std::env::var("PEER_PYTHON").ok();
    println!("{threads} threads, medians of {rounds} rounds");
    let shapes: Vec<Shape> = args.iter().filter_map(|a| qwen::shape(a)).collect();
    for &shape in &shapes {
        for &ty in &types {
            qwen::compare(python.as_deref(), shape, ty, rounds, threads)?;
        }
    }
    if !shapes.is_empty() {
        return Ok(());
    }
    let mut gpt2s = Vec::new();
    for &ty in &types {
        gpt2s.push(python.as_ref().map(|python| llama::start(python, ty, threads)).transpose()?);
    }
    match gpt2s.first() {
        Some(Some(program)) => println!("{}\n", program.about),
        _ => println!("llama.cpp and PyTorch take part only if PEER_PYTHON names a Python that has them\n"),
    }
    for (&ty, gpt2) in types.iter().zip(&mut gpt2s) {
        compare(ty, rounds, gpt2.as_mut())?;
    }
    python.map_or(Ok(()), |python| compare_torch(&python, &types, rounds, threads))
}

/// The same steps in PyTorch: f32 and bf16 there; f32 and the given types here.
fn compare_torch(python: &str, types: &[TensorType], rounds: usize, threads: usize) -> Result<()> {
    let mut theirs = Vec::new();
    for precision in ["f32", "bf16"] {
        theirs.push((precision, Program::start(python, "eso_torch.py", [precision, &threads.to_string()])?));
    }
    if let Some((_, program)) = theirs.first() {
        println!("{}", program.about);
    }
    let mut ours = Vec::new();
    for &ty in std::iter::once(&TensorType::F32).chain(types) {
        ours.push((ty.name(), context(Variant::EsoB, ty)?));
    }
    for steps in [16, 64] {
        let mut their_seconds = vec![Vec::new(); theirs.len()];
        let mut our_times: Vec<Times> = ours.iter().map(|_| Times::default()).collect();
        for round in 0..rounds {
            for ((_, program), seconds) in theirs.iter_mut().zip(&mut their_seconds) {
                seconds.push(program.seconds(&format!("{steps} {round}"))?);
            }
            for ((_, context), times) in ours.iter_mut().zip(&mut our_times) {
                times.run(context, 1, &diffusion(steps, round), None)?;
            }
        }
        let f32_seconds = their_seconds.first().map_or(f64::NAN, |seconds| quantile(seconds, 0.5));
        println!("T = {steps}:");
        for ((precision, _), seconds) in theirs.iter().zip(&their_seconds) {
            println!("  PyTorch {precision:5} {:7.2} s", quantile(seconds, 0.5));
        }
        for ((name, _), times) in ours.iter().zip(&our_times) {
            let seconds = times.median();
            println!("  esolm   {name:5} {seconds:7.2} s   {:.2} x PyTorch f32", f32_seconds / seconds);
        }
    }
    Ok(())
}

/// A whole text by diffusion.
fn diffusion(steps: usize, seed: usize) -> GenerateParams<'static> {
    let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::FULL };
    GenerateParams {
        alpha_0: 1.0,
        steps,
        sampling,
        seed: seed as u64,
        ignore_eos: true,
        ..GenerateParams::default()
    }
}

/// A context for a synthetic model of one variant.
fn context(variant: Variant, ty: TensorType) -> Result<Context> {
    let file = SyntheticModel::write(&Shape::Small.config(variant, TOKENS), &QuantizeOptions::new(ty))?;
    let model = file.open(&LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    Context::new(&model, &ContextParams::default())
}

/// Texts of this library at several settings, its model without a cache, and `gpt2` if there is one.
fn compare(ty: TensorType, rounds: usize, mut gpt2: Option<&mut Program>) -> Result<()> {
    let cases = [
        ("T = 16", 1.0, 16),
        ("T = 64", 1.0, 64),
        ("T = 128", 1.0, 128),
        ("T = 1024", 1.0, 1024),
        ("alpha_0 = 0", 0.0, 1),
    ];
    let mut ours = context(Variant::EsoB, ty)?;
    let mut uncached = context(Variant::Mdlm, ty)?;
    let mut times: Vec<Times> = cases.iter().map(|_| Times::default()).collect();
    let (mut llama, mut mdlm) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for ((_, alpha_0, steps), times) in cases.iter().zip(&mut times) {
            let params = GenerateParams { alpha_0: *alpha_0, ..diffusion(*steps, round) };
            times.run(&mut ours, 1, &params, None)?;
        }
        if let Some(gpt2) = &mut gpt2 {
            llama.push(gpt2.seconds(&TOKENS.to_string())?);
        }
        uncached.begin(&[Default::default()], &diffusion(TOKENS, round))?;
        let started = Instant::now();
        for _ in 0..MDLM_STEPS {
            uncached.step()?;
        }
        mdlm.push(started.elapsed().as_secs_f64() / MDLM_STEPS as f64);
    }
    let peer = gpt2.map(|_| TOKENS as f64 / quantile(&llama, 0.5));
    println!("{}:", ty.name());
    if let Some(peer) = peer {
        println!("  llama.cpp, GPT-2 of the same shape: {peer:.0} tokens/s");
    }
    for ((name, ..), times) in cases.iter().zip(&times) {
        let speed = times.speed();
        let over = peer.map_or(String::new(), |peer| format!("   {:.2} x llama.cpp", speed / peer));
        println!("  esolm, {name:12} {:4} steps {speed:6.0} tokens/s{over}", times.steps());
    }
    // T = L: about as many passes as the cached model makes, each over the whole text.
    if let Some(cached) = times.get(3) {
        let pass = quantile(&mdlm, 0.5);
        let whole = pass * cached.steps() as f64;
        println!(
            "  esolm, MDLM without a cache: {pass:.2} s per pass, {whole:.0} s for {} of them (calculated): {:.0} x as \
             long as with the cache\n",
            cached.steps(),
            whole / cached.median()
        );
    }
    Ok(())
}
