//! Qwen3 of several sizes, one token a pass and a prompt of 512 tokens, beside llama.cpp with the same weights in the same
//! types: llama.cpp reads the file that this library writes for both. Here the network is a WeDLM, whose windows are timed
//! in the same turns; it writes one token a pass by one row, as an autoregressive model does.

use std::ffi::OsStr;
use std::time::Instant;

use clap::ValueEnum;
use esolm::gguf::{Layout, TensorType};
use esolm::quantize::{FileOrPath, QuantizeOptions};
use esolm::{
    Adaptive, Context, ContextParams, Error, GenerateParams, LoadOptions, Model, Prompt, Result,
    SamplingParams, Variant,
};

use crate::floor::{Workload, floor};
use crate::machine::Machine;
use crate::measure::{Times, quantile};
use crate::python::Program;
use crate::synthetic::{Shape, create};

/// Tokens that are written one by one, behind one that is given.
const TOKENS: usize = 64;
const PROMPT: usize = 512;
const LENGTH: usize = 1024;
/// Masks of the windows.
const WINDOWS: [usize; 4] = [1, 4, 8, 16];

/// A shape that this comparison is of.
pub fn shape(name: &str) -> Option<Shape> {
    let shape = Shape::from_str(name, false).ok()?;
    (!shape.config(Variant::Ar, LENGTH).architecture.fused_qkv).then_some(shape)
}

/// Both, in turns. Nothing but the files' pages is in memory twice: this library's file is in panels.
pub fn compare(
    python: Option<&str>,
    shape: Shape,
    ty: TensorType,
    rounds: usize,
    threads: usize,
) -> Result<()> {
    let io = |source| Error::Io { file: "temporary folder".into(), source };
    let folder = tempfile::tempdir().map_err(io)?;
    let file = |name: &str, variant, layout| {
        let (path, config) = (folder.path().join(name), shape.config(variant, LENGTH));
        create(&config, FileOrPath::Path(&path), &QuantizeOptions { layout, ..QuantizeOptions::new(ty) })?;
        Ok::<_, Error>(path)
    };
    let mut theirs = None;
    if let Some(python) = python {
        let (plain, threads) = (file("plain.gguf", Variant::Ar, Layout::Plain)?, threads.to_string());
        let args = [plain.as_os_str(), OsStr::new("as-it-is"), OsStr::new(&threads)];
        theirs = Some(Program::start(python, "llama.py", args)?);
    }
    let panels = file("panels.gguf", Variant::WeDlm, Layout::Panels)?;
    let model = Model::open(&panels, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let params = ContextParams { length: LENGTH, ..ContextParams::default() };
    let mut context = Context::new(&model, &params)?;
    let mut machine = Machine::probe(threads)?;
    let mut cases =
        [Case::new("one token a pass", 1, TOKENS), Case::new("a prompt of 512 tokens", PROMPT, 1)];
    let mut windows = WINDOWS.map(|_| Times::default());
    // Each makes its buffers, and reads its file, before it is measured.
    for round in 0..=rounds {
        for case in &mut cases {
            let ours = write(&mut context, case.given, case.wanted)?;
            let request = match case.given {
                1 => case.wanted.to_string(),
                given => format!("prompt {given}"),
            };
            let peer = theirs.as_mut().map(|program| program.seconds(&request)).transpose()?;
            if round > 0 {
                case.ours.push(ours);
                case.theirs.extend(peer);
            }
        }
        for (size, times) in WINDOWS.into_iter().zip(&mut windows) {
            times.run(&mut context, 1, &window(size), None)?;
            if round == 0 {
                *times = Times::default();
            }
        }
        machine.probe_again();
    }
    let name = shape.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
    println!("{name}, {}:", ty.name());
    if let Some(program) = &theirs {
        println!("  {}", program.about);
    }
    for Case { what, given, wanted, ours, theirs } in &cases {
        let tokens = *given.max(wanted) as f64;
        let speed = tokens / quantile(ours, 0.5);
        let peer = tokens / quantile(theirs, 0.5);
        let beside = match theirs.is_empty() {
            true => String::new(),
            false => format!(", llama.cpp {peer:.1}: {:.2} x", speed / peer),
        };
        println!("  {what:22} esolm {speed:.1} tokens/s{beside}");
    }
    println!(
        "  reads {:.1} GB/s, {:.0} G int8 operations/s",
        machine.bandwidth / 1e9,
        machine.byte_operations / 1e9
    );
    for (size, times) in WINDOWS.into_iter().zip(&windows) {
        let workload = Workload { sequences: 1, length: TOKENS, window: Some(size) };
        let least = floor(&model, params.kv_type, workload, &times.written, &machine);
        let over = least.map_or(String::new(), |least| {
            format!(": {:.2} x the least time ({})", times.median() / least.seconds, least.by)
        });
        let pass = times.step_seconds(0.5) * 1e3;
        println!("  a window of {size:2}: {pass:.1} ms a pass, {} passes{over}", times.steps());
    }
    Ok(())
}

/// A window's passes, `TOKENS` at most: with random weights each fills one place.
fn window(size: usize) -> GenerateParams<'static> {
    GenerateParams {
        alpha_0: 1.0,
        adaptive: Some(Adaptive { window: size, ..Adaptive::WEDLM }),
        max_tokens: TOKENS,
        sampling: SamplingParams::FULL,
        ignore_eos: true,
        ..GenerateParams::default()
    }
}

/// What is measured, and the seconds of each round.
struct Case {
    what: &'static str,
    given: usize,
    wanted: usize,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Case {
    fn new(what: &'static str, given: usize, wanted: usize) -> Self {
        Self { what, given, wanted, ours: Vec::new(), theirs: Vec::new() }
    }
}

/// The seconds that a text takes of which `given` tokens are given and `wanted` follow, the most likely ones.
fn write(context: &mut Context, given: usize, wanted: usize) -> Result<f64> {
    let vocabulary = context.model().config().vocab_size as u32;
    let tokens: Vec<u32> = (0..given as u32).map(|token| token * 7919 % vocabulary).collect();
    let params = GenerateParams {
        alpha_0: 0.0,
        max_tokens: wanted,
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::FULL },
        ignore_eos: true,
        ..GenerateParams::default()
    };
    let prompt = Prompt::prefix(&tokens)?;
    let started = Instant::now();
    context.begin(&[prompt], &params)?;
    while context.step()?.is_some() {}
    Ok(started.elapsed().as_secs_f64())
}
