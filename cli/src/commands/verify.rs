//! `esolm verify`: does this model compute what the authors' code computes?

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::evaluate::verify::{left_out, verify};
use esolm::{Error, Result};
use serde_json::json;

use crate::args::{ComputeArgs, JsonArgs};
use crate::exit_code;
use crate::model_args::{ModelArgs, check_other_file};
use crate::output::{print, print_json, short};

/// Compare a model with reference outputs, logit by logit and token by token.
///
/// GOLDEN is a safetensors file of what the authors' code computed for this model: trajectories, single steps, logits of
/// texts. What of it can be replayed with the model's variant is (nothing yet of WeDLM and BD3-LM), and what is left out is told. A
/// golden.json beside it has the numbers of sampled trajectories. Exits with 1 if a logit differs by more than the tolerance, or a token
/// differs.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  esolm convert tests/golden/tiny-B/checkpoint.ckpt -o tiny.gguf --type f32
  esolm verify tiny.gguf tests/golden/tiny-B/golden.safetensors")]
#[command(allow_missing_positional = true, mut_arg("kv_type", |kv_type| kv_type.default_value("f32")))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Reference outputs (safetensors).
    golden: PathBuf,
    /// Largest absolute difference of a logit that is accepted.
    #[arg(long, default_value_t = 1e-4, value_name = "D")]
    tolerance: f32,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
    #[command(flatten, next_help_heading = "Output")]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.tolerance.is_nan() || args.tolerance < 0.0 {
        let tolerance = args.tolerance;
        return Err(Error::InvalidArgument(format!("--tolerance {tolerance} is not a number from 0")));
    }
    check_other_file(&args.model.file, &args.golden, "reference outputs")?;
    let model = args.model.open(&args.compute.device)?;
    let outcomes =
        verify(&model, &args.golden, &args.compute.context_params(), args.compute.pool()?.as_ref())?;
    let left_out = left_out(&model, &args.golden)?;
    let largest = outcomes
        .iter()
        .map(|o| o.largest_difference)
        .fold(0.0, |a: f32, b| if b > a || b.is_nan() { b } else { a });
    let differing: usize = outcomes.iter().map(|o| o.differing).sum();
    let agrees = largest <= args.tolerance && differing == 0;
    if args.json.json {
        let one = |o: &esolm::evaluate::verify::Outcome| {
            json!({ "name": o.name, "sampled": o.sampled, "steps": o.steps, "rows": o.rows, "tokens": o.tokens,
                    "differing_tokens": o.differing, "largest_difference": o.largest_difference })
        };
        let report = json!({
            "agrees": agrees,
            "tolerance": short(args.tolerance),
            "largest_difference": largest,
            "differing_tokens": differing,
            "left_out": left_out,
            "trajectories": outcomes.iter().map(one).collect::<Vec<_>>(),
        });
        print_json(report)?;
    } else {
        for o in &outcomes {
            print(format_args!(
                "{:16} {:>7} {:4} steps   {:5} rows of logits, largest difference {:.2e}   {:5} tokens, {} differ\n",
                o.name,
                if o.sampled { "sampled" } else { "greedy" },
                o.steps,
                o.rows,
                o.largest_difference,
                o.tokens,
                o.differing,
            ))?;
        }
        if !left_out.is_empty() {
            print(format_args!("not compared: {}\n", left_out.join(", ")))?;
        }
        let verdict = if agrees { "agrees" } else { "DIFFERS" };
        print(format_args!("{verdict}: largest {largest:.2e}, tolerance {:.0e}\n", args.tolerance))?;
    }
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::from(exit_code::DIFFERENT) })
}
