//! `esolm chat`: a conversation with a model.

mod conversation;
mod history;
mod instruction;
mod lines;

use std::io::IsTerminal;
use std::process::ExitCode;

use esolm::{ContextParams, Error, GenerateParams, Order, Result};

use conversation::{Answer, Conversation};
use instruction::{HELP, Instruction};
use lines::Lines;

use crate::args::ComputeArgs;
use crate::chat_format::ChatTemplateArgs;
use crate::exit_code;
use crate::generation_args::GenerationArgs;
use crate::input::take_stdin;
use crate::model_args::ModelArgs;
use crate::output::{print, print_to_reader, tell};
use crate::phase_args::PhaseArgs;
use crate::prompt_args::{check_params, shortest_prompt};
use crate::sampling_args::SamplingArgs;
use crate::seed::Seed;
use crate::stop_args::StopArgs;
use crate::stream::Stream;

/// Converse with a model.
///
/// Each line is a message; one that ends with a backslash goes on in the next line. Ctrl-C ends an answer, and between answers
/// the command; so does Ctrl-D. Keys and values of the conversation are kept: a turn computes its own tokens only. When the
/// context is full, the oldest turns are left out, but not the system's text. A line that begins with a slash is an instruction:
/// /help lists them. Where lines come from a file or a program, the exit code is that of the last one that failed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    template: ChatTemplateArgs,
    /// What holds for the whole conversation, as its first message; with --load, in place of the one that was saved.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Continue the conversation that /save wrote to this file.
    #[arg(long, value_name = "FILE")]
    load: Option<String>,
    #[command(flatten, next_help_heading = "Length and end of an answer")]
    stop: StopArgs,
    #[command(flatten)]
    phases: PhaseArgs,
    #[command(flatten, next_help_heading = "Sampling")]
    sampling: SamplingArgs,
    /// Random seed of the first answer; each further one has the next. Default, or -1: a different one each time.
    #[arg(short, long, value_name = "S", help_heading = "Sampling")]
    seed: Option<Seed>,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
    #[command(flatten)]
    generation: GenerationArgs,
}

const EXAMPLES: &str = "\
Examples:
  # A model whose file has a chat template
  esolm chat -m model.gguf --system \"Answer in one sentence.\"
  # The built-in model has none, and was never taught to converse
  esolm chat --template chatml --temp 0.7 -n 60
  # For programs: a message a line, an answer each
  printf 'Hello\\nAnd then?\\n' | esolm chat -m model.gguf --seed 1";

pub fn run(args: &Args) -> Result<ExitCode> {
    take_stdin("the conversation")?;
    let model = args.model.open(&args.compute.device)?;
    let format = args.template.format(&model)?;
    let options = args.generation.parse(&model)?;
    args.phases.check(args.generation.in_place_of_steps(), model.config().variant)?;
    let own = ContextParams { length: args.stop.length, ..args.compute.context_params() };
    let mut context = args.compute.context(&model, &own)?;
    args.generation.passes.tell_overhead(&mut context)?;
    let (mut stop_tokens, mut stop_strings) = (args.stop.stop_tokens.clone(), args.stop.strings());
    stop_tokens.extend(&format.stop_tokens);
    stop_strings.extend(format.stop_strings.iter().map(String::as_str));
    let params = args.phases.apply(options.apply(GenerateParams {
        max_tokens: args.stop.max_tokens(),
        stop_tokens: &stop_tokens,
        stop_strings: &stop_strings,
        ignore_eos: args.stop.ignore_eos,
        step_text: true,
        sampling: args.sampling.params()?,
        seed: args.seed.unwrap_or_else(Seed::random).value,
        ..GenerateParams::default()
    }));
    // Refused now, and not with each message; the length of an answer is not known yet, to which an order of one's own has to fit.
    let order = if let Order::Custom(_) = params.order { Order::default() } else { params.order };
    let whole = GenerateParams { max_tokens: 0, order, ..params };
    check_params(&mut context, &shortest_prompt(model.config())?, &whole)?;
    let mut conversation = Conversation::new(context, &format.template, &format.stop_strings, params);
    if let Some(system) = &args.system {
        conversation.set_system(system)?;
    }
    if let Some(file) = &args.load {
        conversation.load(history::read(file)?, args.system.is_some());
    }
    let by_hand = std::io::stdin().is_terminal();
    let failures = converse(&mut conversation, by_hand)?;
    // Who types has read why, and has gone on.
    Ok(failures.last.filter(|_| !by_hand).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// What went wrong with some lines, after which the conversation goes on as before.
#[derive(Default)]
struct Failures {
    /// The exit code of the last one.
    last: Option<u8>,
}

impl Failures {
    fn tell(&mut self, error: &Error) {
        tell(&format!("esolm: {error}"));
        self.last = Some(exit_code::of(error));
    }
}

/// Answers lines until there are no more.
fn converse(conversation: &mut Conversation<'_>, by_hand: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    if by_hand {
        tell("/help lists what else there is; Ctrl-C ends an answer, Ctrl-D the conversation");
    }
    let mut lines = Lines::new(by_hand);
    loop {
        let message = match lines.next() {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => {
                failures.tell(&error);
                continue;
            }
        };
        match Instruction::parse(&message) {
            Ok(None) if message.trim().is_empty() => (),
            Ok(None) => {
                // Of two slashes the first says that the message begins with one.
                let message = message.strip_prefix('/').unwrap_or(&message);
                if !answer(conversation, message, &mut failures)? {
                    break;
                }
            }
            Ok(Some(Instruction::Quit)) => break,
            Ok(Some(instruction)) => obey(conversation, &instruction, &mut failures)?,
            Err(what) => {
                tell(&what);
                failures.last = Some(exit_code::USAGE);
            }
        }
    }
    Ok(failures)
}

/// Prints the answer to a message as it grows. Returns whether somebody still reads.
fn answer(conversation: &mut Conversation<'_>, message: &str, failures: &mut Failures) -> Result<bool> {
    let mut stream = Stream::new(|text: &str| print_to_reader(text));
    let answered = conversation.answer(message, |text| {
        stream.push(text);
        !stream.is_unread()
    });
    let is_read = !stream.is_unread();
    match answered {
        Ok(Answer { dropped, .. }) => {
            stream.finish()?;
            if dropped > 0 {
                let turns = if dropped == 1 { "turn is" } else { "turns are" };
                tell(&format!("the context is full: {dropped} older {turns} left out of it"));
            }
        }
        // The conversation is as before this message.
        Err(error) => failures.tell(&error),
    }
    Ok(is_read)
}

/// Does what an instruction says.
fn obey(
    conversation: &mut Conversation<'_>,
    instruction: &Instruction<'_>,
    failures: &mut Failures,
) -> Result<()> {
    let done = match instruction {
        Instruction::Reset => {
            conversation.reset();
            Ok(())
        }
        Instruction::System(text) => conversation.set_system(text),
        Instruction::Save(file) => history::write(file, conversation.messages()),
        Instruction::Load(file) => history::read(file).map(|messages| conversation.load(messages, false)),
        Instruction::Stats => return print(&conversation.stats()?),
        Instruction::Help => return print(HELP),
        Instruction::Quit => Ok(()),
    };
    if let Err(error) = done {
        failures.tell(&error);
    }
    Ok(())
}
