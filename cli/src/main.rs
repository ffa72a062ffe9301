//! The `esolm` command: reads the command line, runs a subcommand, turns errors into exit codes.
#![forbid(unsafe_code)]

mod allocation;
mod args;
#[cfg(feature = "chat")]
mod chat_format;
mod commands;
mod dry_args;
mod exit_code;
mod generation_args;
#[cfg(feature = "hub")]
mod hub;
mod input;
mod line_file;
mod log;
mod memory;
mod model_args;
mod model_file;
mod output;
mod phase_args;
mod plot;
mod progress;
mod prompt_args;
mod sampling_args;
mod seed;
mod shard;
mod signals;
mod stop_args;
mod stream;
mod tensor_types;
mod text_args;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
#[cfg(feature = "chat")]
use commands::chat;
#[cfg(feature = "hub")]
use commands::pull;
#[cfg(feature = "serve")]
use commands::serve;
use commands::{
    bench, completion, convert, detokenize, devices, evaluate, generate, imatrix, inspect, man, quality,
    quantize, score, tokenize, verify, version,
};

/// Run Esoteric Language Models (Eso-LMs) on this machine.
///
/// An Eso-LM is a masked diffusion model and an autoregressive model in one, with an exact K/V cache for both. It writes
/// one part of a text by diffusion, many tokens per step at arbitrary positions, and the rest token by token from left to
/// right. --alpha0 sets the fraction written by diffusion, --steps the number of diffusion steps.
#[derive(Parser)]
#[command(name = "esolm", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true)]
struct Cli {
    /// Print the licence of esolm, and those of the software that it contains
    #[arg(long)]
    licenses: bool,
    /// Show on standard error what the library says while it works; -vv: all of it
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 900)]
    verbose: u8,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    #[command(visible_alias = "run")]
    Generate(generate::Args),
    #[cfg(feature = "chat")]
    Chat(chat::Args),
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    Score(score::Args),
    Evaluate(evaluate::Args),
    Quality(quality::Args),
    #[cfg(feature = "hub")]
    Pull(pull::Args),
    Convert(convert::Args),
    Quantize(quantize::Args),
    Imatrix(imatrix::Args),
    Inspect(inspect::Args),
    Tokenize(tokenize::Args),
    Detokenize(detokenize::Args),
    Verify(verify::Args),
    Bench(bench::Args),
    Devices(devices::Args),
    Version(version::Args),
    Completion(completion::Args),
    Man(man::Args),
}

const EXAMPLES: &str = "\
Examples:
  esolm run -p \"Once upon a time\"                      write a text with the built-in model
  esolm generate -p \"Once upon a time\" --watch         watch the text being unmasked
  esolm generate --alpha0 0.5 --steps 32 --seed 7      half of the tokens by diffusion
  esolm chat -m model.gguf                             converse with a model
  esolm serve -m model.gguf                            answer programs that speak OpenAI's API
  esolm pull OWNER/NAME                                download a model and convert it
  esolm convert model.ckpt -o model.gguf --type q8_0   convert a training checkpoint
  esolm quantize model.gguf small.gguf --type q4_k     make a model smaller and faster
  esolm bench --shape small --type q8_0,q4_k           measure the speed of this machine
  esolm inspect                                        what the built-in model contains
  esolm score model.gguf story.txt                     likelihood and perplexity of a text
  esolm quality model.gguf small.gguf --text t.txt     what quantization loses

Exit codes:
  0  success
  1  `esolm verify` found a difference
  2  wrong usage
  3  a file is invalid, cannot be read or cannot be written
  4  any other failure
  130  `esolm generate` was ended by Ctrl-C";

const LICENSES: &str = concat!(
    include_str!(concat!(env!("ESOLM_FILES"), "/LICENSE")),
    "\n\n",
    include_str!(concat!(env!("ESOLM_FILES"), "/THIRD-PARTY.txt"))
);

/// The built-in model has licences and credits, too.
const MODEL_CARD: &str = if cfg!(feature = "embed-model") {
    concat!("\n\n", include_str!(concat!(env!("ESOLM_FILES"), "/models/README.md")))
} else {
    ""
};

fn main() -> ExitCode {
    match esolm::missing_instructions() {
        None => run(),
        Some(name) => refuse(name),
    }
}

/// Says that the command cannot run on this processor, with as little code of its own as possible: any of it may need the
/// instructions that are missing.
#[inline(never)]
fn refuse(missing: &str) -> ExitCode {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(b"esolm: this build needs instructions that the processor lacks, such as ");
    let _ = stderr.write_all(missing.as_bytes());
    let _ = stderr
        .write_all(b"; build esolm for this machine, or portably (RUSTFLAGS=\"-C target-cpu=nehalem\")\n");
    ExitCode::from(exit_code::RUNTIME)
}

/// Parses the command line and runs it.
#[inline(never)]
fn run() -> ExitCode {
    signals::remove_temporary_files_on_exit();
    signals::fail_at_the_file_size_limit();
    // `--seed -1`: -1 is the value of --seed, which may then be refused as such, and not an unknown option.
    let commands = Cli::command().mut_subcommands(|command| command.allow_negative_numbers(true));
    let matches = match commands.try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return say(&generate::with_tip(error)),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return say(&error),
    };
    if cli.verbose > 0 {
        log::show(cli.verbose);
    }
    if cli.licenses {
        return exit(output::print(format_args!("{LICENSES}{MODEL_CARD}")).map(|()| ExitCode::SUCCESS));
    }
    let Some(command) = cli.command else {
        return say(&Cli::command().error(ErrorKind::MissingSubcommand, "a command is missing"));
    };
    exit(match command {
        Command::Generate(args) => generate::run(&args),
        #[cfg(feature = "chat")]
        Command::Chat(args) => chat::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Quality(args) => quality::run(&args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Imatrix(args) => imatrix::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Detokenize(args) => detokenize::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => completion::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    })
}

/// Prints what clap has to say: help, the version, or an error of usage.
fn say(what: &clap::Error) -> ExitCode {
    let printed = what.print();
    let code = u8::try_from(what.exit_code()).unwrap_or(exit_code::USAGE);
    exit(if what.use_stderr() { Ok(()) } else { output::printed(printed) }.map(|()| ExitCode::from(code)))
}

/// The exit code of a command; its error is told.
fn exit(result: esolm::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        output::tell(&format!("esolm: {}", output::shortened(&error.to_string())));
        ExitCode::from(exit_code::of(&error))
    })
}
