//! How much memory generating takes of the system, and that it does not grow. Linux only, for its resident set size.
//! Without a test harness, whose own threads would be counted, too.

use std::ops::ControlFlow;
use std::path::Path;

use esolm::convert::{Options, convert};
use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt, SamplingParams};

/// What may be resident beside weights and arena: the stacks of threads, the tokenizer, the program.
const CONSTANT: u64 = 16 << 20;
/// How far the memory of many generations may be above that of a few: pages of stack that were first touched
/// later.
const SLACK: u64 = 256 << 10;
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories-q8_0.gguf");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if !cfg!(target_os = "linux") {
        println!("test memory ... ignored: needs Linux's resident set size");
        return Ok(());
    }
    let before = resident("VmRSS")?;
    let model = Model::open(MODEL, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let params = ContextParams::default();
    let arena = Context::memory_use(&model, &params)?.arena as u64;
    let mut context = Context::new(&model, &params)?;
    let prompt = Prompt::prefix(&model.tokenizer()?.encode("Once upon a time")?)?;
    let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::FULL };
    let whole = GenerateParams { alpha_0: 1.0, steps: 16, sampling, ..GenerateParams::default() };
    context.generate(std::slice::from_ref(&prompt), &whole, |_| ControlFlow::Continue(()))?;
    let peak = resident("VmHWM")? - before;
    let weights = std::fs::metadata(MODEL)?.len();
    println!(
        "peak {peak} bytes; weights {weights}, arena {arena}: {} beside",
        peak.saturating_sub(weights + arena)
    );
    assert!(peak <= weights + arena + CONSTANT, "{peak} > {weights} + {arena} + {CONSTANT}");
    println!("test peak_memory_is_weights_arena_and_a_constant ... ok");

    // A very small model, since this generates ten thousand texts.
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("model.gguf");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B/checkpoint.ckpt");
    convert(&checkpoint, &file, &Options::default(), &mut |_| ())?;
    let model = Model::open(&file, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let mut context = Context::new(&model, &ContextParams { threads: 1, ..params })?;
    let prompt = Prompt::prefix(&[1, 2, 3])?;
    let mut settled = 0;
    for number in 0..10_000 {
        let short = GenerateParams {
            length: 8,
            alpha_0: 1.0,
            steps: 2,
            seed: number,
            sampling,
            ..GenerateParams::default()
        };
        context.generate(std::slice::from_ref(&prompt), &short, |_| ControlFlow::Continue(()))?;
        let _ = context.tokens(0)?;
        if number == 100 {
            settled = resident("VmRSS")?;
        }
    }
    let last = resident("VmRSS")?;
    println!("resident after 100 generations {settled}, after 10,000 {last}");
    assert!(last <= settled + SLACK, "{settled} bytes after 100 generations, {last} after 10,000");
    println!("test memory_does_not_grow_over_10_000_generations ... ok");
    Ok(())
}

/// A figure of this process's memory, in bytes.
fn resident(name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).ok_or("no such figure")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
