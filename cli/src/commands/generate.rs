//! `esolm generate`: writes text.

mod many;
mod report;
mod state;
mod tip;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use esolm::{Context, ContextParams, Error, GenerateParams, Model, Prompt, Result, Step, Variant};

use many::ManyArgs;
use report::Generated;
pub use tip::with_tip;

use crate::allocation::{collected, copy_of, push};
use crate::args::ComputeArgs;
use crate::exit_code::INTERRUPTED;
use crate::generation_args::GenerationArgs;
use crate::input::tokenizer;
use crate::memory;
use crate::model_args::ModelArgs;
use crate::output::{
    Ids, check_outputs, has_reader, json_line, print, print_json, print_to_reader, tell, write_file,
};
use crate::phase_args::PhaseArgs;
use crate::plot::{Axis, Plot, Point, Series};
use crate::prompt_args::{PromptArgs, check_first_token};
use crate::sampling_args::SamplingArgs;
use crate::seed::Seed;
use crate::signals::CancelOnInterrupt;
use crate::stop_args::StopArgs;
use crate::stream::Stream;
use crate::watch::Watch;

/// Generate text.
///
/// Prints the text to standard output, as it grows, and one line of statistics to standard error. The same seed, options and
/// prompt give the same text. Ctrl-C ends a text early: what is there is printed, and saved if --state is given.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten, next_help_heading = "Prompt")]
    prompt: PromptArgs,
    #[command(flatten, next_help_heading = "Length and end of the text")]
    stop: StopArgs,
    #[command(flatten)]
    phases: PhaseArgs,
    #[command(flatten, next_help_heading = "Sampling")]
    sampling: SamplingArgs,
    /// Continue from the state saved in this file, if it exists, and save the new state to it at the end. The prompt is then
    /// appended to the saved text, and --length is the length of the whole text. A text that had ended goes on behind its
    /// end. Not with --template.
    #[arg(long, value_name = "FILE", conflicts_with = "template", help_heading = "Output")]
    state: Option<PathBuf>,
    /// Random seed. Default, or -1: a different one each time, shown in the statistics.
    #[arg(short, long, value_name = "S", help_heading = "Sampling")]
    seed: Option<Seed>,
    /// Number of texts to generate in parallel from the same prompt. Several prompts are one text each.
    #[arg(long, default_value_t = 1, value_name = "B", help_heading = "Prompt")]
    batch: usize,
    #[command(flatten, next_help_heading = "Many texts")]
    many: ManyArgs,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
    /// Print JSON lines in place of text: one per step with the tokens written, their log-probabilities under the model, and the text of each
    /// sequence that has become final; and a last line with texts, tokens, orders, stop reasons and times.
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// With --json: the N most likely tokens at each written position, with their log-probabilities.
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        requires = "json",
        conflicts_with = "count",
        hide_default_value = true,
        help_heading = "Output"
    )]
    top_log_probs: usize,
    /// Show the text in the terminal as it is unmasked. Ignored if the output is not a terminal. Not with --json.
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    watch: bool,
    /// Plot which step wrote which position to this file as SVG, overwriting it.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    plot: Option<PathBuf>,
    /// Do not print the statistics.
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,
    #[command(flatten)]
    generation: GenerationArgs,
}

const EXAMPLES: &str = "\
Examples:
  # Fill in a gap
  esolm generate --template \"Once upon a time {{mask 40}} happily ever after.\"
  # Block by block, two tokens per step
  esolm generate -p \"The king\" --order blocks:32 --schedule 2
  # Left to right, with a banned token
  esolm generate -p \"The king\" --order ltr --alpha0 0 --ban \" queen\"
  # As many tokens per step as the model is confident of
  esolm generate -p \"The king\" --adaptive conf:0.5
  # One by one, and up to five per step
  esolm generate -p \"The king\" --order random --schedule 1 --lookahead 4
  # Allow only some tokens at some positions
  esolm generate -p \"The\" -n 7 --allow \"1= king, queen\" --allow \"7=.,!\"
  # A text that matches a regular expression
  esolm generate -p \"The girl was\" --regex ' [0-9]{1,2} years old[.]'
  # Save the state, and continue from it
  esolm generate -p \"The king\" -n 64 --state king.state
  esolm generate -p \" Then\" -n 64 --state king.state
  # End at the end of a sentence
  esolm generate -p \"The king\" --stop . --stop !
  # Token ids in place of texts
  esolm generate --prompt-ids 464,5822 -m without-tokenizer.gguf
  # A prompt in a file
  esolm generate -f prompt.txt
  # For programs
  esolm generate --json < prompt.txt
  # The second of four parts of a thousand texts, eight side by side
  esolm generate --count 1000 --seed 1 --shard 2/4 -o texts-2.jsonl --batch 8";

impl Args {
    /// Whether a saved text is continued.
    fn is_resumed(&self) -> bool {
        self.state.as_deref().is_some_and(Path::exists)
    }

    /// Whether the steps are shown in the terminal.
    fn watches(&self) -> bool {
        self.watch && std::io::stdout().is_terminal()
    }

    /// Whether the only one of `batch` texts is printed as it grows.
    fn streams(&self, batch: usize) -> bool {
        batch == 1 && !self.json && !self.watches() && !self.many.is_given()
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    tip::check_model(&args.model)?;
    if let Some(file) = &args.state {
        state::check(file)?;
    }
    args.many.check(args.seed, args.generation.passes.measures())?;
    let name = args.model.name()?;
    let inputs = [name.as_deref(), args.state.as_deref()].into_iter().flatten().chain(args.prompt.files());
    let inputs = inputs.chain(args.generation.files());
    check_outputs(&[args.plot.as_deref(), args.many.output()], &inputs.collect::<Vec<_>>())?;
    let model = args.model.open(&args.compute.device)?;
    // Before the prompts: what these options read from standard input is none.
    let options = args.generation.parse(&model)?;
    let (given, length) = prompts(args, &model)?;
    let batch =
        if args.many.is_given() { args.many.side_by_side(args.batch) } else { given.len().max(args.batch) };
    let beyond = options.beyond(model.config().variant);
    let room = args.stop.room(&model, &given, length, args.is_resumed(), beyond);
    let context_params = ContextParams { sequences: batch, length: room, ..args.compute.context_params() };
    let mut context = args.compute.context(&model, &context_params)?;
    args.generation.passes.tell_overhead(&mut context)?;
    // After the context, which refuses a batch that memory is too small for.
    let prompts = match given.as_slice() {
        _ if args.many.is_given() => given,
        [] => repeated(&Prompt::default(), batch)?,
        [one] => repeated(one, batch)?,
        _ => given,
    };
    if args.state.is_some() {
        // Fails now, and not after the text is written, if this state cannot be saved.
        context.saved_size()?;
    }
    args.phases.check(args.generation.in_place_of_steps(), model.config().variant)?;
    let streams = matches!(tokenizer(&model)?, Some(tokenizer) if tokenizer.can_stream());
    let stop_strings = args.stop.strings();
    let params = args.phases.apply(options.apply(GenerateParams {
        length: room,
        max_tokens: args.stop.max_tokens(),
        stop_tokens: &args.stop.stop_tokens,
        stop_strings: &stop_strings,
        ignore_eos: args.stop.ignore_eos,
        step_text: streams && (args.json || args.streams(batch)),
        sampling: args.sampling.params()?,
        log_probs: args.json,
        top_log_probs: args.top_log_probs,
        seed: args.seed.unwrap_or_else(Seed::random).value,
        ..GenerateParams::default()
    }));
    if args.many.is_given() {
        return many::write(&args.many, &mut context, batch, &prompts, &params, args.quiet);
    }
    let ready = started.elapsed();
    let mut generated = generate(args, &mut context, prompts, &params)?;
    let exit_code = if generated.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS };
    // Files before words: what is printed may fail, too.
    let note = note(args, &params, context.model(), &generated);
    let saved = save(args, &context, || plot(std::mem::take(&mut generated.points), note));
    let texts = match tokenizer(&model)? {
        Some(_) => collected((0..batch).map(|i| context.text(i).map(Some)))?,
        None => collected((0..batch).map(|_| Ok(None)))?,
    };
    if args.json {
        print_json(report::whole(&context, &texts, &generated, ready, params.seed)?)?;
    } else if !generated.streamed {
        for (number, text) in texts.iter().enumerate() {
            let title = if texts.len() > 1 { format!("===== {} =====\n", number + 1) } else { String::new() };
            match text {
                Some(text) => print(format_args!("{title}{}\n", text.trim_end()))?,
                None => print(format_args!("{title}{}\n", Ids(context.tokens(number)?)))?,
            }
        }
    }
    if !(args.quiet || args.json) {
        let ahead = match generated.proposed {
            0 => String::new(),
            proposed => format!(" ({} of {proposed} proposed tokens accepted)", generated.accepted),
        };
        tell(&format!(
            "{} tokens in {} steps{ahead}, {:.2} s ({:.0} tokens/s); ready after {} ms; {} resident; seed {}",
            generated.tokens,
            generated.steps,
            generated.seconds,
            generated.tokens_per_second(),
            ready.as_millis(),
            memory::describe(memory::resident()),
            params.seed,
        ));
    }
    generated.printed.and(saved)?;
    Ok(exit_code)
}

/// Writes the files that the options ask for. One that fails does not keep the other back.
fn save(args: &Args, context: &Context, plot: impl FnOnce() -> Plot) -> Result<()> {
    let state = args.state.as_ref().map_or(Ok(()), |file| context.save_to(file));
    let plot = args.plot.as_ref().map_or(Ok(()), |file| write_file(file, plot().svg()));
    state.and(plot)
}

/// Writes the texts, showing the steps as the options ask for.
fn generate(
    args: &Args,
    context: &mut Context,
    mut prompts: Vec<Prompt>,
    params: &GenerateParams<'_>,
) -> Result<Generated> {
    let model = context.model().clone();
    let mut watch = args.watches().then(Watch::new);
    let mut stream =
        (params.step_text && !args.json).then(|| Stream::new(|text: &str| print_to_reader(text)));
    let mut unread = false;
    let (mut tokens, mut steps, mut proposed, mut accepted) = (0, 0, 0, 0);
    let mut points = Vec::new();
    let mut printed = Ok(());
    let mut stopwatch = Stopwatch::start();
    match args.state.as_deref().filter(|file| file.exists()) {
        Some(file) => state::resume(context, file, &mut prompts, params)?,
        None => context.begin(&prompts, params)?,
    }
    let cancel = context.cancel_token();
    let interrupt = CancelOnInterrupt::new(cancel.clone());
    if let Some(stream) = &mut stream {
        let text = context.text(0)?;
        stopwatch.pause(|| stream.push(&text));
    }
    while !unread {
        let step = match context.step() {
            Ok(Some(step)) => step,
            Ok(None) | Err(Error::Cancelled) => break,
            Err(error) => {
                // What is there is a line of its own.
                stream.map(Stream::finish);
                return Err(error);
            }
        };
        tokens += step.updates.len();
        // Those that read the prompt write nothing.
        steps += usize::from(tokens > 0);
        proposed += step.proposed;
        accepted += step.accepted;
        if args.plot.is_some() {
            add_points(&mut points, &step, steps)?;
        }
        if args.json {
            let report = report::step(&model, &step, args.top_log_probs)?;
            if printed.is_ok() {
                let read = stopwatch.pause(|| print_to_reader(json_line(report)));
                unread = matches!(read, Ok(false));
                printed = read.map(|_| ());
            }
        }
        if let Some(stream) = &mut stream {
            stopwatch.pause(|| stream.push(step.text(0)));
            unread = stream.is_unread();
        }
        unread |= !has_reader();
        if let Some(watch) = &mut watch {
            let updates = copy_of(step.updates)?;
            stopwatch.pause(|| watch.show(context, &updates))?;
        }
    }
    let seconds = stopwatch.seconds();
    if let Some(watch) = watch {
        watch.clear();
    }
    drop(interrupt);
    let streamed = stream.is_some();
    let printed = printed.and(stream.map_or(Ok(()), Stream::finish));
    let interrupted = cancel.is_cancelled();
    Ok(Generated { tokens, steps, proposed, accepted, seconds, points, streamed, printed, interrupted })
}

/// Measures time, without that of some work.
struct Stopwatch {
    started: Instant,
    paused: Duration,
}

impl Stopwatch {
    fn start() -> Self {
        Self { started: Instant::now(), paused: Duration::ZERO }
    }

    /// Does `work`, whose time does not count.
    fn pause<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.paused += started.elapsed();
        result
    }

    fn seconds(&self) -> f64 {
        (self.started.elapsed() - self.paused).as_secs_f64()
    }
}

/// The prompts, of which there are none, one for all texts, or one per text; and the length of the texts, 0 for the
/// model's context length.
fn prompts(args: &Args, model: &Model) -> Result<(Vec<Prompt>, usize)> {
    let (given, template_length) = args.prompt.read(model, args.is_resumed())?;
    // A saved text goes on from its own first token.
    if !args.is_resumed() {
        check_first_token(model, &given)?;
    }
    match (given.len(), args.batch) {
        (_, 0) => Err(Error::InvalidArgument("--batch must be at least 1".into())),
        (count, batch) if count > 1 && batch > 1 && count != batch && !args.many.is_given() => {
            Err(Error::InvalidArgument(format!("{count} prompts for a batch of {batch}")))
        }
        _ => Ok((given, args.stop.length.max(template_length))),
    }
}

/// A prompt for each of `count` texts.
fn repeated(prompt: &Prompt, count: usize) -> Result<Vec<Prompt>> {
    collected((0..count).map(|_| Ok(Prompt { known: copy_of(&prompt.known)? })))
}

/// Adds a point for each token that a step wrote, the one of this number, in a series per text.
fn add_points(points: &mut Vec<Series>, step: &Step<'_>, number: usize) -> Result<()> {
    for update in step.updates {
        let text = update.sequence as usize;
        while points.len() <= text {
            let name = format!("text {}", points.len() + 1);
            push(points, Series { name, points: vec![], line: false })?;
        }
        let (x, y) = (f64::from(update.position), number as f64);
        push(&mut points[text].points, Point { x, y, label: String::new() })?;
    }
    Ok(())
}

/// What the plot is of: the seed, what was asked for of diffusion, and what it came to.
fn note(args: &Args, params: &GenerateParams<'_>, model: &Model, generated: &Generated) -> String {
    let each = if model.config().variant == Variant::Bd3Lm { " a block" } else { "" };
    let steps =
        params.diffusion_steps(model.config()).map(|steps| format!("T = {steps} diffusion steps{each}"));
    let alpha_0 = args.phases.alpha0.map(|alpha_0| format!("alpha_0 = {alpha_0}"));
    let given: String = [steps, alpha_0].into_iter().flatten().map(|given| given + ", ").collect();
    format!("seed {}, {given}{} tokens in {} steps", params.seed, generated.tokens, generated.steps)
}

fn plot(series: Vec<Series>, note: String) -> Plot {
    Plot {
        title: "When each token was written".into(),
        note,
        x: Axis { label: "position in the text".into(), log: false },
        y: Axis { label: "step".into(), log: false },
        series,
    }
}
