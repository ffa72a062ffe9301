//! `esolm generate`: writes text.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use esolm::{Context, ContextParams, Error, GenerateParams, Model, Prompt, Result, Sampling, Step, Template};
use serde_json::json;

use crate::model_file::{ComputeArgs, ModelArgs, human_bytes, read_stdin, resident_memory};
use crate::plot::{Axis, Plot, Point, Series};
use crate::steering::SteeringArgs;
use crate::watch::Watch;

/// Write text.
///
/// The text is written to standard output, a line about the speed to standard error. The same seed, options and
/// prompt give the same text.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// How the text begins; without it the model writes all of it. `-` reads it from standard input, without the newline
    /// at its end. Given several times: one text for each.
    #[arg(short, long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// In place of --prompt: a text with holes of so many tokens, such as "Once {{mask 12}} happily ever after."; its
    /// length is the text's, unless --length is more. `-` reads it from standard input, as --prompt does. Two braces are
    /// written '{{{{'.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompts")]
    template: Option<String>,
    /// Tokens of the text, prompt included: up to the model's context length, which is the default (`esolm inspect` shows
    /// it).
    #[arg(short = 'n', long = "length", default_value_t = 0, value_name = "LEN", hide_default_value = true)]
    length: usize,
    /// Share of the tokens that diffusion writes in parallel, 0 to 1; the rest goes one by one, left to right.
    #[arg(long, default_value_t = 1.0, value_name = "A")]
    alpha0: f64,
    /// Steps of the diffusion phase, if neither --schedule nor --adaptive is given. Fewer are faster, more write better
    /// text.
    #[arg(long, default_value_t = 128, value_name = "T")]
    steps: usize,
    /// Nucleus: draw from the most likely tokens that together have this probability, above 0 to 1; 1 is no limit.
    #[arg(long, default_value_t = 0.9, value_name = "P")]
    top_p: f32,
    /// Draw from this many most likely tokens; 0 is no limit.
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: u32,
    /// Temperature: below 1 draws likely tokens more often, above 1 less; 0 always takes the most likely one.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    temp: f32,
    /// Go on from the state in this file, if it is there, and save the state to it at the end, in place of the old one.
    /// The prompt is then what comes next in the text, and --length what it grows to. Not with --template.
    #[arg(long, value_name = "FILE", conflicts_with = "template")]
    state: Option<PathBuf>,
    /// Seed of the random numbers; another one each time if not given, which the line about the speed names.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Texts to write side by side, all from the same prompt; several prompts say themselves how many.
    #[arg(long, default_value_t = 1, value_name = "B")]
    batch: usize,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print JSON: a line for each step with the tokens it wrote and their log-probabilities under the model, and then
    /// one with texts, tokens, orders and times.
    #[arg(long)]
    json: bool,
    /// Show the text being unmasked, in place. Without a terminal the text is printed plainly. Not with --json.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Draw which positions each step wrote into this file, as SVG. A file that exists is replaced.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// No line about the speed.
    #[arg(short, long)]
    quiet: bool,
    // Last, for the heading of these options would be that of all that follow.
    #[command(flatten)]
    steering: SteeringArgs,
}

const EXAMPLES: &str = "\
Examples:
  # Fill a hole
  esolm generate --template \"Once upon a time {{mask 40}} happily ever after.\"
  # Block by block, two tokens at a time
  esolm generate -p \"The king\" --order blocks:32 --schedule 2
  # From left to right, without a word
  esolm generate -p \"The king\" --order ltr --alpha0 0 --ban \" queen\"
  # As many tokens at a time as the model is sure of
  esolm generate -p \"The king\" --adaptive conf:0.05
  # One of these tokens at these places
  esolm generate -p \"The\" -n 8 --allow \"1= king, queen\" --allow \"7=.,!\"
  # Write, keep the state, and go on from it
  esolm generate -p \"The king\" -n 64 --state king.state
  esolm generate -p \" Then\" -n 128 --state king.state
  # For programs
  esolm generate -p - --json < prompt.txt";

/// Says how a prompt is given where one stands alone: the likeliest first thing to try.
pub fn with_tip(mut error: clap::Error) -> clap::Error {
    let here = std::env::args_os().nth(1).is_some_and(|command| command == "generate");
    if let (true, ErrorKind::UnknownArgument, Some(ContextValue::String(text))) =
        (here, error.kind(), error.get(ContextKind::InvalidArg))
        && !text.starts_with('-')
    {
        let tip = format!("a prompt goes with -p, in quotes: esolm generate -p \"{text}\"");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    let model = args.model.open(&args.compute.device)?;
    let (given, length) = prompts(args, &model)?;
    let batch = given.len().max(args.batch);
    let steering = args.steering.read(&model)?;
    let context_params = ContextParams { sequences: batch, length, ..args.compute.context_params() };
    let mut context = Context::new(&model, &context_params)?;
    // Not before the context could be made: nobody has memory for any number of them.
    let mut prompts = match given.as_slice() {
        [] => vec![Prompt::default(); batch],
        [one] => vec![one.clone(); batch],
        _ => given,
    };
    if args.state.is_some() {
        // What cannot be saved is said before anything is written.
        context.saved_size()?;
    }
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let params = steering.apply(GenerateParams {
        length,
        alpha_0: args.alpha0,
        steps: args.steps,
        sampling: Sampling { temperature: args.temp, top_k: args.top_k, top_p: args.top_p },
        log_probs: args.json,
        seed,
        ..GenerateParams::default()
    });
    let ready = started.elapsed();
    let mut watch = (args.watch && std::io::stdout().is_terminal()).then(Watch::new);
    // The time of the steps, without that of showing them.
    let mut generating = Instant::now();
    let mut elapsed = Duration::ZERO;
    match args.state.as_deref().filter(|file| file.exists()) {
        Some(file) => go_on(&mut context, file, &mut prompts, &params)?,
        None => context.begin(&prompts, &params)?,
    }
    let mut written = 0;
    let mut series: Vec<Series> = Vec::new();
    while let Some(step) = context.step()? {
        written += step.updates.len();
        if args.plot.is_some() {
            add_points(&mut series, &step);
        }
        if args.json {
            elapsed += generating.elapsed();
            crate::print(&format!("{}\n", step_line(&model, &step)?))?;
            generating = Instant::now();
        }
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
        let orders = (0..prompts.len()).map(|i| context.order(i)).collect::<Result<Vec<_>>>()?;
        let report = json!({
            "texts": texts,
            "tokens": tokens,
            "orders": orders,
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
    } else {
        for (number, text) in texts.iter().enumerate() {
            let title = if texts.len() > 1 { format!("===== {} =====\n", number + 1) } else { String::new() };
            crate::print(&format!("{title}{}\n", text.trim_end()))?;
        }
    }
    if !(args.quiet || args.json) {
        eprintln!(
            "{written} tokens in {steps} steps, {seconds:.2} s ({:.0} tokens/s); ready after {} ms; {} resident; \
             seed {seed}",
            written as f64 / seconds,
            ready.as_millis(),
            resident_memory().map_or("memory unknown".into(), human_bytes),
        );
    }
    // Behind the text, which is not lost if a file cannot be written.
    if let Some(file) = &args.state {
        context.save_to(file)?;
    }
    if let Some(file) = &args.plot {
        let plot = Plot {
            title: "When each token was written".into(),
            x: Axis { label: "position in the text".into(), log: false },
            y: Axis { label: "step".into(), log: false },
            series,
        };
        crate::write(file, &plot.svg())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes on from a saved state: the prompts come behind what is there.
fn go_on(
    context: &mut Context,
    file: &Path,
    prompts: &mut [Prompt],
    params: &GenerateParams<'_>,
) -> Result<()> {
    let bad = |what: &str| Error::BadFile { file: file.display().to_string(), what: what.into() };
    // Others may have no end.
    if !file.is_file() {
        return Err(bad("is no regular file"));
    }
    let state = std::fs::read(file).map_err(|source| io_error(file, source))?;
    context.restore(&state).map_err(|error| match error {
        Error::BadFile { what, .. } => bad(&format!("saved state: {what}")),
        error => error,
    })?;
    for (number, prompt) in prompts.iter_mut().enumerate().take(context.sequences()) {
        let there = context.tokens(number)?.len() as u32;
        prompt.known.iter_mut().for_each(|(position, _)| *position += there);
    }
    context.extend(prompts, params)
}

fn io_error(file: &Path, source: std::io::Error) -> Error {
    Error::Io { file: file.display().to_string(), source }
}

/// A point for each token, a series for each text.
fn add_points(series: &mut Vec<Series>, step: &Step<'_>) {
    for update in step.updates {
        let number = update.sequence as usize;
        while series.len() <= number {
            series.push(Series { name: format!("text {}", series.len() + 1), points: vec![], line: false });
        }
        if let Some(series) = series.get_mut(number) {
            let (x, y) = (f64::from(update.position), (step.index + 1) as f64);
            series.points.push(Point { x, y, label: String::new() });
        }
    }
}

/// A step for programs.
fn step_line(model: &Model, step: &Step<'_>) -> Result<serde_json::Value> {
    let update = |(update, log_prob): (&esolm::Update, &f64)| {
        let text = model.tokenizer()?.decode(&[update.token])?;
        let esolm::Update { sequence, position, token } = *update;
        Ok(json!({ "sequence": sequence, "position": position, "token": token, "text": text,
                   "log_prob": log_prob }))
    };
    let updates = step.updates.iter().zip(step.log_probs).map(update).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "step": step.index, "of": step.total, "updates": updates }))
}

/// The prompts given, which are one or none for the whole batch or one for each text; and the length of the texts, 0 if
/// it is the longest.
fn prompts(args: &Args, model: &Model) -> Result<(Vec<Prompt>, usize)> {
    let text = |text: &String| if text == "-" { read_prompt() } else { Ok(text.clone()) };
    let prompt = |given: &String| Ok(Prompt::prefix(&model.tokenizer()?.encode(&text(given)?)?));
    let mut given = args.prompts.iter().map(prompt).collect::<Result<Vec<_>>>()?;
    let mut length = args.length;
    if let Some(template) = &args.template {
        let (prompt, own) = Template::parse(&text(template)?)?.prompt(model.tokenizer()?)?;
        given.push(prompt);
        length = length.max(own);
    }
    match (given.len(), args.batch) {
        (_, 0) => Err(Error::InvalidArgument("--batch must be at least 1".into())),
        (count, batch) if count > 1 && batch > 1 && count != batch => {
            Err(Error::InvalidArgument(format!("{count} prompts for a batch of {batch}")))
        }
        _ => Ok((given, length)),
    }
}

/// What standard input has. A line there ends with a newline that nobody meant to write.
fn read_prompt() -> Result<String> {
    let mut text = read_stdin()?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// A seed that differs from run to run, short enough to type again.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) % 1_000_000
}
