//! `esolm imatrix`: which columns of a model's matrices matter.

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::Result;
use esolm::convert::{ImatrixOptions, imatrix};

use crate::progress;

const HELP: &str = "\
The model writes the text's own words, in random orders and many per step as it would write its own, and for each \
matrix the mean square of what goes in is noted by column. `esolm quantize --imatrix` then keeps the errors small where \
much goes in. Take text of the kind that the model is to write, but not the text that its quality is measured on, and \
the model in f32 or f16. On a machine that is busy otherwise, --threads 1 is faster than all cores.

The output is a GGUF file with an f32 tensor for each matrix, of the matrix's name.

Example:
  esolm imatrix model.gguf text.txt -o model.imatrix
  esolm quantize model.gguf small.gguf --type q3_k --imatrix model.imatrix";

/// Find out which columns of a model's matrices matter, for quantizing with few bits.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The model file.
    model: PathBuf,
    /// A text file (UTF-8).
    text: PathBuf,
    /// The importance matrix to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Most pieces of the text to take, spread over it; 0 for the whole text.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pieces: usize,
    /// Tokens of a piece; the model's context length if not given.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    length: usize,
    /// Steps in which a piece is written.
    #[arg(long, default_value_t = 32, value_name = "T")]
    steps: usize,
    /// Chooses the orders.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// CPU threads, up to 512; one per core if not given.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    threads: usize,
    /// Replace an output that exists.
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let Args { length, pieces, steps, seed, threads, force, .. } = *args;
    let options = ImatrixOptions { length, pieces, steps, seed, threads, force };
    let observation =
        progress::of_items("pieces", |show| imatrix(&args.model, &args.text, &args.output, &options, show))?;
    eprintln!(
        "{}: {} matrices, from {} pieces of {} tokens",
        args.output.display(),
        observation.matrices.len(),
        observation.pieces.0,
        observation.pieces.1,
    );
    Ok(ExitCode::SUCCESS)
}
