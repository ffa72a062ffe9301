//! How much memory generating takes of the system, and that it does not grow. Linux only, for its resident set size.
//! Without a test harness, whose own threads would be counted, too.

use std::ops::ControlFlow;
use std::path::Path;

use esolm::convert::{Options, convert};
use esolm::gguf::{Layout, TensorType, Value};
use esolm::{
    Architecture, Config, Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt, SamplingParams,
    Variant,
};

#[path = "models/small.rs"]
mod small;

/// What may be resident beside weights and arena: the stacks of threads, the tokenizer, the program.
const CONSTANT: u64 = 16 << 20;
/// The same with a vocabulary as large as Qwen's, whose tables the tokenizer library has in memory of its own.
const CONSTANT_OF_QWEN: u64 = 64 << 20;
/// How far the memory of many generations may be above that of a few: pages of stack that were first touched
/// later, and an arena's last small pages, which the system joins to huge ones when it comes to it.
const SLACK: u64 = 4 << 20;
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories-q8_0.gguf");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if !cfg!(target_os = "linux") {
        println!("test memory ... ignored: needs Linux's resident set size");
        return Ok(());
    }
    let mut args = std::env::args().skip(1);
    if let (Some("qwen"), Some(file)) = (args.next().as_deref(), args.next()) {
        return qwen(Path::new(&file));
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

    // In a process of its own, as making the file takes memory, too.
    let file = dir.path().join("qwen.gguf");
    write_qwen(&file)?;
    let status = std::process::Command::new(std::env::current_exe()?).arg("qwen").arg(&file).status()?;
    assert!(status.success(), "{status}");
    println!("test a_vocabulary_of_qwens_size_takes_little_memory ... ok");
    Ok(())
}

/// Opens a file and makes tokens of a text, and looks at the memory that it took: first without a context, most of whose arena, planned
/// for the largest batch, is never touched, so that it would hide what else there is; then with one that writes.
fn qwen(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (before, files_before) = (resident("VmRSS")?, resident("RssFile")?);
    let model = Model::open(file, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    assert_eq!(model.tokenizer()?.encode("ab cd")?.len(), 3, "two merges");
    let (peak, now) = (resident("VmHWM")? - before, resident("VmRSS")? - before);
    // What became resident of the file, whose vocabulary is read, and of the program counts for nothing.
    let files = resident("RssFile")? - files_before;
    let (beside, now) = (peak - files.min(peak), now - files.min(now));
    println!("{beside} bytes at most and {now} then, beside {files} of files");
    assert!(beside <= CONSTANT_OF_QWEN, "{beside} > {CONSTANT_OF_QWEN}");
    let params = ContextParams::default();
    let (weights, arena) =
        (std::fs::metadata(file)?.len(), Context::memory_use(&model, &params)?.arena as u64);
    let mut context = Context::new(&model, &params)?;
    let whole =
        GenerateParams { sampling: SamplingParams::FULL, ignore_eos: true, ..GenerateParams::default() };
    context.generate(&[Prompt::prefix(&[0, 1])?], &whole, |_| ControlFlow::Continue(()))?;
    assert_eq!(context.tokens(0)?.len(), context.length());
    let peak = resident("VmHWM")? - before;
    println!("with a text {peak} bytes; weights {weights}, arena {arena}");
    assert!(peak <= weights + arena + CONSTANT_OF_QWEN, "{peak} > {weights} + {arena} + {CONSTANT_OF_QWEN}");
    Ok(())
}

/// A small Qwen3 with a vocabulary as large as the published ones: 151,387 merges, of words of six or seven letters.
fn write_qwen(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    const LETTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    const MERGES: usize = 151_387;
    let vocab_size = 151_936;
    let mut words: Vec<String> = LETTERS.map(String::from).to_vec();
    let mut merges = Vec::new();
    for number in 0..MERGES {
        let (longer, letter) = (&words[number / LETTERS.len()], LETTERS[number % LETTERS.len()]);
        merges.push(format!("{longer} {letter}"));
        words.push(format!("{longer}{letter}"));
    }
    words.extend(["\u{120}", "<|im_end|>"].map(String::from));
    let end = words.len() - 1;
    let config = Config {
        context_length: 64,
        embedding_length: 32,
        feed_forward_length: 32,
        architecture: Architecture { tied_output: true, ..Architecture::QWEN3 },
        eos_token_id: Some(end as u32),
        needs_first_token: true,
        ..small::config(Variant::Ar, vocab_size)
    };
    let texts = |texts: Vec<String>| texts.into_iter().map(Value::Str).collect::<Vec<_>>();
    let types: Vec<i32> = (0..=end).map(|id| if id == end { 3 } else { 1 }).collect();
    let mut writer = small::llama_keys(&config, &texts(words), &types, &texts(merges))?;
    let tensors = config.tensors()?;
    for tensor in &tensors {
        writer.declare_in(&tensor.name, TensorType::F32, Layout::Plain, &tensor.dims)?;
    }
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    writer.write(&mut out, |name, bytes| {
        let count = tensors.iter().find(|tensor| tensor.name == name).map_or(0, |t| t.dims.iter().product());
        bytes.extend((0..count).flat_map(|place: usize| ((place % 7) as f32 / 8.0).to_le_bytes()));
        Ok(())
    })?;
    Ok(())
}

/// A figure of this process's memory, in bytes.
fn resident(name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).ok_or("no such figure")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
