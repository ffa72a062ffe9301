//! `esolm generate`: writes text.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use esolm::{Context, ContextParams, Error, GenerateParams, KvType, Model, Prompt, Result, Sampling};
use serde_json::json;

use crate::model_file::{ModelArgs, human_bytes, read_stdin, resident_memory};
use crate::watch::Watch;

/// Write text.
///
/// The text is written to standard output, a line about the speed to standard error. The same seed, options and
/// prompt give the same text.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// How the text begins; `-` reads it from standard input. Given several times: one text for each.
    #[arg(short, long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// Tokens of the text, prompt included; the model's context length if not given.
    #[arg(short = 'n', long = "length", default_value_t = 0, value_name = "LEN", hide_default_value = true)]
    length: usize,
    /// Share of the tokens that diffusion writes in parallel, 0 to 1; the rest goes one by one, left to right.
    #[arg(long, default_value_t = 1.0, value_name = "A")]
    alpha0: f64,
    /// Steps of the diffusion phase. Fewer are faster, more write better text.
    #[arg(long, default_value_t = 128, value_name = "T")]
    steps: usize,
    /// Nucleus: draw from the most likely tokens that together have this probability.
    #[arg(long, default_value_t = 0.9, value_name = "P")]
    top_p: f32,
    /// Draw from this many most likely tokens; 0 is no limit.
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: u32,
    /// Temperature; 0 always takes the most likely token.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    temp: f32,
    /// Seed of the random numbers; another one each time if not given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Texts to write side by side.
    #[arg(long, default_value_t = 1, value_name = "B")]
    batch: usize,
    /// CPU threads; one per core if not given.
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    threads: usize,
    /// Precision of the K/V cache.
    #[arg(long, default_value = "f16", value_parser = ["f16", "f32"], value_name = "TYPE")]
    kv_type: String,
    /// Print one JSON object with texts, tokens and times.
    #[arg(long)]
    json: bool,
    /// Show the text being unmasked, in place. Without a terminal the text is printed plainly.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// No line about the speed.
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    let model = args.model.open()?;
    let prompts = prompts(args, &model)?;
    let context_params = ContextParams {
        sequences: prompts.len(),
        length: args.length,
        threads: args.threads,
        kv_type: if args.kv_type == "f32" { KvType::F32 } else { KvType::F16 },
        ..ContextParams::default()
    };
    let mut context = Context::new(&model, &context_params)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let params = GenerateParams {
        length: args.length,
        alpha_0: args.alpha0,
        steps: args.steps,
        sampling: Sampling { temperature: args.temp, top_k: args.top_k, top_p: args.top_p },
        seed,
    };
    let ready = started.elapsed();
    let mut watch = (args.watch && std::io::stdout().is_terminal()).then(Watch::new);
    // The time of the steps, without that of showing them.
    let mut generating = Instant::now();
    let mut elapsed = Duration::ZERO;
    context.begin(&prompts, &params)?;
    let mut written = 0;
    while let Some(step) = context.step()? {
        written += step.updates.len();
        if let Some(watch) = &mut watch {
            elapsed += generating.elapsed();
            let updates = step.updates.to_vec();
            watch.show(&context, &updates)?;
            generating = Instant::now();
        }
    }
    let seconds = (elapsed + generating.elapsed()).as_secs_f64();
    if let Some(watch) = watch {
        watch.clear();
    }
    let (_, steps) = context.progress();
    let texts = (0..prompts.len()).map(|i| context.text(i)).collect::<Result<Vec<_>>>()?;
    if args.json {
        let tokens = (0..prompts.len()).map(|i| context.tokens(i)).collect::<Result<Vec<_>>>()?;
        let report = json!({
            "texts": texts,
            "tokens": tokens,
            "seed": seed,
            "steps": steps,
            "tokens_written": written,
            "ready_seconds": ready.as_secs_f64(),
            "seconds": seconds,
            "tokens_per_second": written as f64 / seconds,
            "device": model.device(),
            "threads": context.threads(),
            "resident_bytes": resident_memory(),
        });
        crate::print(&format!("{report}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (number, text) in texts.iter().enumerate() {
        let title = if texts.len() > 1 { format!("===== {} =====\n", number + 1) } else { String::new() };
        crate::print(&format!("{title}{}\n", text.trim_end()))?;
    }
    if !args.quiet {
        eprintln!(
            "{written} tokens in {steps} steps, {seconds:.2} s ({:.0} tokens/s); ready after {} ms; {} resident; \
             seed {seed}",
            written as f64 / seconds,
            ready.as_millis(),
            resident_memory().map_or("memory unknown".into(), human_bytes),
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// One prompt per text: those given, or the one given (or none) for each of the batch.
fn prompts(args: &Args, model: &Model) -> Result<Vec<Prompt>> {
    let prompt = |text: &String| {
        let text = if text == "-" { read_stdin()? } else { text.clone() };
        Ok(Prompt::prefix(&model.tokenizer()?.encode(&text)?))
    };
    let given = args.prompts.iter().map(prompt).collect::<Result<Vec<_>>>()?;
    match (given.len(), args.batch) {
        (_, 0) => Err(Error::InvalidArgument("--batch must be at least 1".into())),
        (0, batch) => Ok(vec![Prompt::default(); batch]),
        (1, batch) => Ok(vec![given.into_iter().next().unwrap_or_default(); batch]),
        (count, 1) => Ok(given.into_iter().take(count).collect()),
        (count, batch) if count == batch => Ok(given),
        (count, batch) => Err(Error::InvalidArgument(format!("{count} prompts for a batch of {batch}"))),
    }
}

/// A seed that differs from run to run, short enough to type again.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) % 1_000_000
}
