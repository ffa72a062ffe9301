//! The `esolm` command: one file per subcommand.

mod bench;
mod completion;
mod convert;
mod detokenize;
mod devices;
mod generate;
mod imatrix;
mod inspect;
mod model_file;
mod plot;
mod progress;
mod quality;
mod quantize;
mod score;
mod steering;
mod tokenize;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Runs Esoteric Language Models: text written many tokens at a time, on this machine.
///
/// An Eso-LM writes part of a text by diffusion, many tokens per step at random places, and the rest from left
/// to right, and keeps an exact cache throughout. How much of each is yours to say with --alpha0, and how many
/// diffusion steps with --steps.
#[derive(Parser)]
#[command(name = "esolm", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Args),
    Score(score::Args),
    Quality(quality::Args),
    Convert(convert::Args),
    Quantize(quantize::Args),
    Imatrix(imatrix::Args),
    Inspect(inspect::Args),
    Tokenize(tokenize::Args),
    Detokenize(detokenize::Args),
    Verify(verify::Args),
    Bench(bench::Args),
    Devices(devices::Args),
    Completion(completion::Args),
}

const EXAMPLES: &str = "\
Examples:
  esolm generate -p \"Once upon a time\"                 with the built-in model
  esolm generate -p \"Once upon a time\" --watch         see the text being unmasked
  esolm generate --alpha0 0.5 --steps 32 --seed 7      half of it from left to right
  esolm convert model.ckpt -o model.gguf --type q8_0   from a training checkpoint
  esolm quantize model.gguf small.gguf --type q4_k     a smaller and faster model
  esolm bench --shape small --type q8_0,q4_k           how fast this machine is
  esolm inspect model.gguf                             what is in a model file
  esolm score story.txt                                how likely a text is
  esolm quality model.gguf small.gguf --text t.txt     what a smaller file loses

Exit codes:
  0  done
  1  a verification found a difference
  2  wrong usage
  3  a file that is bad or cannot be read
  4  anything that failed while running";

/// Exit code of a verification that found a difference.
const DIFFERENT: u8 = 1;
/// Exit code for arguments that make no sense together or for this model.
const USAGE: u8 = 2;
/// Exit code for files.
const BAD_FILE: u8 = 3;
/// Exit code for everything else.
const RUNTIME: u8 = 4;

fn main() -> ExitCode {
    // A number below 0 where a value is due is that value, whatever becomes of it then, and no option.
    let commands = Cli::command().mut_subcommands(|command| command.allow_negative_numbers(true));
    let matches = commands.try_get_matches().unwrap_or_else(|error| generate::with_tip(error).exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Quality(args) => quality::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Imatrix(args) => imatrix::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Detokenize(args) => detokenize::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Completion(args) => completion::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("esolm: {error}");
            ExitCode::from(match error {
                esolm::Error::InvalidArgument(_) | esolm::Error::Unsupported(_) => USAGE,
                esolm::Error::BadFile { .. } | esolm::Error::Io { .. } | esolm::Error::Tokenizer(_) => {
                    BAD_FILE
                }
                _ => RUNTIME,
            })
        }
    }
}

/// Writes `text` to stdout. A reader that went away (`esolm .. | head`) is no error.
fn print(text: &str) -> esolm::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(esolm::Error::Io { file: "standard output".into(), source: e })
        }
        _ => Ok(()),
    }
}

/// Writes a file that a command was asked for beside its output.
fn write(path: &std::path::Path, content: &str) -> esolm::Result<()> {
    std::fs::write(path, content)
        .map_err(|source| esolm::Error::Io { file: path.display().to_string(), source })
}
