//! `esolm quantize`: a model file with smaller types.

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::Result;
use esolm::convert::{Policy, QuantizeOptions, Rule, quantize};
use esolm::gguf::TensorType;

use crate::model_file::human_bytes;
use crate::progress;

/// The types that a file can be written in, largest first.
pub const TYPES: [&str; 12] =
    ["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "iq4_nl", "q3_k", "q2_k"];

const HELP: &str = "\
Types, with their bits per weight:
  f32 32     f16, bf16 16     q8_0 8.5     q6_k 6.56     q5_k, q5_0 5.5
  q4_k, q4_0, iq4_nl 4.5      q3_k 3.44    q2_k 2.63
  Fewer bits are smaller and lose more; below q4_k an importance matrix (--imatrix) is worth its while.

What gets which type:
  Norms and biases are f32. The embedding (token_embd.weight) and the output matrix (output.weight) have at least six \
bits: below q6_k they become q6_k. --keep decides otherwise, the last one that matches: PATTERN is a tensor's name with \
* for anything; blk.last is the last block. `esolm inspect` lists the names.
  The types that end in k pack 256 numbers of a row at a time. Where rows are no multiple of that, the next larger type with \
blocks of 32 is taken (q2_k, q3_k: iq4_nl; q4_k: q5_0; q5_k: q5_1; q6_k: q8_0), where they are no multiple of 32 either \
f16, and a note says so.

Examples:
  esolm quantize model.gguf small.gguf --type q4_k
  # More bits for the first and the last block
  esolm quantize model.gguf small.gguf --type q3_k \\
    --keep 'blk.0.*=q5_k' --keep 'blk.last.*=q5_k'
  # Fewer for the embedding
  esolm quantize model.gguf small.gguf --type q4_k --keep 'token_embd.weight=q4_k'
  # Find out first what the matrices' columns are worth
  esolm imatrix model.gguf text.txt -o model.imatrix
  esolm quantize model.gguf small.gguf --type q2_k --imatrix model.imatrix";

/// Make a model file smaller and faster.
///
/// IN is a model file, best in f32, bf16 or f16: the errors of packing twice add up. OUT is written whole or not
/// at all. The result does not depend on the number of threads.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The model file to read.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The model file to write.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Type of the matrices.
    #[arg(short, long = "type", value_name = "TYPE", value_parser = TYPES)]
    tensor_type: String,
    #[command(flatten)]
    details: Details,
    /// Replace an output that exists.
    #[arg(short, long)]
    force: bool,
}

/// What `quantize` and `convert` have in common.
#[derive(clap::Args)]
pub struct Details {
    /// The type of some matrices, by name: 'blk.0.*=q6_k'. May be given several times; the last match holds.
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = parse_rule)]
    pub keep: Vec<Rule>,
    /// Keep the errors small where it matters: an importance matrix, made by `esolm imatrix`.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Threads that pack, up to 512; one per core if not given.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
}

fn parse_rule(text: &str) -> Result<Rule> {
    Rule::parse(text)
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let ty = TensorType::from_name(&args.tensor_type).unwrap_or(TensorType::F16);
    let options = QuantizeOptions {
        policy: Policy { rules: args.details.keep.clone(), ..Policy::new(ty) },
        importance: args.details.imatrix.clone(),
        threads: args.details.threads,
        force: args.force,
    };
    let report = progress::of_file(|show| quantize(&args.input, &args.output, &options, show))?;
    progress::notes(&report.notes);
    eprintln!(
        "{}: {}, {:.1} M parameters, {}, {:.2} bits per weight (before: {})",
        args.output.display(),
        ty.name(),
        report.parameters as f64 / 1e6,
        human_bytes(report.file_bytes.1),
        report.bits_per_weight(),
        human_bytes(report.file_bytes.0),
    );
    Ok(ExitCode::SUCCESS)
}
