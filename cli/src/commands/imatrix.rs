//! `esolm imatrix`: an importance matrix for `esolm quantize`.

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::Result;
use esolm::quantize::{ImatrixOptions, imatrix};
use serde_json::json;

use crate::args::{JsonArgs, OverwriteArgs, ThreadArgs, WindowArgs};
use crate::model_args::{MaskArgs, ModelFileArgs, check_other_file};
use crate::output::{print_json, tell};
use crate::progress;

const HELP: &str = "\
The model processes windows of the text as it generates texts (in random orders with many tokens per step, in blocks, or \
behind a prompt), and the mean square of each matrix's input is recorded per column. `esolm quantize --imatrix` then keeps quantization errors small in the \
columns with large inputs. Use text of the kind the model is meant to write, but not the text its quality is measured on, \
and a model in f32 or f16. If the machine is busy, --threads 1 is faster than one thread per core.

The output is a GGUF file with one f32 tensor per matrix, which has the matrix's name.

Example:
  esolm imatrix model.gguf text.txt -o model.imatrix
  esolm quantize model.gguf small.gguf --type q3_k --imatrix model.imatrix";

/// Compute an importance matrix, for quantizing to few bits.
#[derive(clap::Args)]
#[command(after_help = HELP, allow_missing_positional = true)]
pub struct Args {
    #[command(flatten)]
    model: ModelFileArgs,
    /// Text file (UTF-8).
    text: PathBuf,
    /// Importance matrix to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Maximum number of windows (pieces) to use, spread evenly over the text; 0 = all of it.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pieces: usize,
    /// Number of steps in which a window is written; WeDLM and autoregressive models write its last T tokens.
    #[arg(long, default_value_t = 32, value_name = "T")]
    steps: usize,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    mask: MaskArgs,
    #[command(flatten)]
    cpu: ThreadArgs,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = ImatrixOptions {
        length: args.window.length,
        pieces: args.pieces,
        steps: args.steps,
        seed: args.window.seed.value,
        mask_token: args.mask.mask_token,
        threads: args.cpu.threads,
        force: args.overwrite.force,
    };
    check_other_file(&args.model, &args.text, "text")?;
    let model = args.model.file()?;
    args.window.seed.tell_if_random();
    let observation =
        progress::of_items("pieces", |show| imatrix(&model, &args.text, &args.output, &options, show))?;
    if args.json.json {
        print_json(json!({
            "file": args.output.display().to_string(), "matrices": observation.matrices.len(), "pieces": observation.pieces.0,
            "piece_tokens": observation.pieces.1,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    tell(&format!(
        "{}: {} matrices, from {} piece{} of {} tokens",
        args.output.display(),
        observation.matrices.len(),
        observation.pieces.0,
        if observation.pieces.0 == 1 { "" } else { "s" },
        observation.pieces.1,
    ));
    Ok(ExitCode::SUCCESS)
}
