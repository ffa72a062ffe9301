//! `esolm quantize`: a model file with smaller tensor types.

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::gguf::{Layout, TensorType};
use esolm::quantize::{Policy, QuantizeOptions, Rule, quantize};
use esolm::{Defaults, Error, Result};
use serde_json::json;

use crate::args::{JsonArgs, OverwriteArgs, ThreadArgs, layouts, tensor_types};
use crate::model_args::{MaskArgs, ModelFileArgs};
use crate::output::{human_bytes, print_json, print_notes, tell};
use crate::progress;

const HELP: &str = "\
Types, with their bits per weight:
  f32 32     f16, bf16 16     q8_0 8.5     q6_k 6.56     q5_k, q5_0 5.5
  q4_k, q4_0, iq4_nl 4.5      q3_k 3.44    q2_k 2.63
  Fewer bits are smaller and lose more; below q4_k use an importance matrix (--imatrix).

Which tensor gets which type:
  Norms and biases are f32. The embedding (token_embd.weight) and the output matrix (output.weight) get q6_k if --type \
is smaller than that. --keep overrides this; if several match, the last one counts. PATTERN is a tensor name in which * \
stands for any text and blk.last for the last block. `esolm inspect` lists the tensor names.
  The types that end in _k pack blocks of 256 numbers of a row. If the row length of a matrix is not a multiple of 256, \
it gets the next larger type with blocks of 32 (q2_k, q3_k: iq4_nl; q4_k: q5_0; q5_k: q5_1; q6_k: q8_0); if it is not a \
multiple of 32 either, f16. A note says so.

Examples:
  esolm quantize model.gguf small.gguf --type q4_k
  # More bits for the first and the last block
  esolm quantize model.gguf small.gguf --type q3_k \\
    --keep 'blk.0.*=q5_k' --keep 'blk.last.*=q5_k'
  # Fewer bits for the embedding
  esolm quantize model.gguf small.gguf --type q4_k --keep 'token_embd.weight=q4_k'
  # The same weights in rows, for other programs
  esolm quantize small.gguf plain.gguf --layout plain
  # With an importance matrix
  esolm imatrix model.gguf text.txt -o model.imatrix
  esolm quantize model.gguf small.gguf --type q2_k --imatrix model.imatrix";

/// Quantize a model file: make it smaller and faster.
///
/// MODEL is best f32, bf16 or f16: quantizing twice adds up the errors. OUT only appears when it is
/// complete. The result does not depend on the number of threads.
#[derive(clap::Args)]
// -t is --type here.
#[command(after_help = HELP, allow_missing_positional = true, mut_arg("threads", |threads| threads.short(None)))]
pub struct Args {
    #[command(flatten)]
    model: ModelFileArgs,
    /// Model file to write.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Type of the weight matrices. Without it, where --layout is given, each keeps the one that it has.
    #[arg(
        short,
        long = "type",
        value_name = "TYPE",
        value_parser = tensor_types(),
        required_unless_present = "layout"
    )]
    tensor_type: Option<TensorType>,
    #[command(flatten)]
    mask: MaskArgs,
    #[command(flatten)]
    quantization: QuantizationArgs,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Options that `quantize` and `convert` share.
#[derive(clap::Args)]
pub struct QuantizationArgs {
    /// Type of the matrices whose name matches PATTERN, as in 'blk.0.*=q6_k'. May be repeated; the last match counts.
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = Rule::parse)]
    pub keep: Vec<Rule>,
    /// Importance matrix, made by `esolm imatrix`: keeps errors small in the columns that matter most.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Default of a generation to write into the file, as in temperature=0.8. KEY is steps, alpha_0, temperature, top_k, top_p,
    /// min_p, typical_p or top_n_sigma. May be repeated. `esolm generate` and every other program use it unless told otherwise.
    #[arg(long = "default", value_name = "KEY=VALUE")]
    pub defaults: Vec<String>,
    /// How the rows of quantized matrices lie in the file: in panels of sixteen, as the CPU's kernels read them, or plain, one
    /// after the other, as programs other than esolm do. The values are the same.
    #[arg(long, value_name = "LAYOUT", default_value = "panels", value_parser = layouts())]
    pub layout: Layout,
    #[command(flatten)]
    pub cpu: ThreadArgs,
}

impl QuantizationArgs {
    /// The defaults of a generation.
    pub fn defaults(&self) -> Result<Defaults> {
        let mut defaults = Defaults::default();
        for text in &self.defaults {
            let form = || Error::InvalidArgument(format!("--default: '{text}' is not KEY=VALUE"));
            let (key, value) = text.split_once('=').ok_or_else(form)?;
            defaults.set(key.trim(), value.trim())?;
        }
        Ok(defaults)
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let ty = args.tensor_type;
    let options = QuantizeOptions {
        policy: Policy {
            rules: args.quantization.keep.clone(),
            ..ty.map_or_else(Policy::unchanged, Policy::new)
        },
        importance: args.quantization.imatrix.clone(),
        defaults: args.quantization.defaults()?,
        layout: args.quantization.layout,
        mask_token: args.mask.mask_token,
        threads: args.quantization.cpu.threads,
        force: args.overwrite.force,
    };
    let input = args.model.file()?;
    let report = progress::of_file(|show| quantize(&input, &args.output, &options, show))?;
    if args.json.json {
        print_json(json!({
            "file": args.output.display().to_string(), "type": ty.map(TensorType::name), "parameters": report.parameters,
            "bytes_before": report.file_bytes.0, "bytes": report.file_bytes.1,
            "bits_per_weight": report.bits_per_weight(), "notes": report.notes,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print_notes(&report.notes);
    tell(&format!(
        "{}: {}, {:.1} M parameters, {}, {:.2} bits per weight (before: {})",
        args.output.display(),
        ty.map_or("types as before", TensorType::name),
        report.parameters as f64 / 1e6,
        human_bytes(report.file_bytes.1),
        report.bits_per_weight(),
        human_bytes(report.file_bytes.0),
    ));
    Ok(ExitCode::SUCCESS)
}
