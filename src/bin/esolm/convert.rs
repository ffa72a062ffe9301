//! `esolm convert`: a training checkpoint becomes a model file.

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::Result;
use esolm::config::Variant;
use esolm::convert::{Options, TokenizerSource, Weights, convert};
use esolm::gguf::TensorType;

use crate::model_file::human_bytes;
use crate::progress;
use crate::quantize::{Details, TYPES};

/// Make a model file from a checkpoint.
///
/// INPUT is a Lightning checkpoint (.ckpt) as the authors' training code saves it, a model.safetensors with its
/// config.json beside it, or a folder with those two. Nothing in it is executed.
#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint.
    input: PathBuf,
    /// The model file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A tokenizer.json to put into the file, in place of one that comes with the checkpoint.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Type of the matrices; norms and biases are always f32 (`esolm quantize --help` says more).
    #[arg(short, long = "type", default_value = "f16", value_name = "TYPE", value_parser = TYPES)]
    tensor_type: String,
    #[command(flatten)]
    details: Details,
    /// Take the last step's weights instead of their moving average (EMA).
    #[arg(long)]
    raw_weights: bool,
    /// The kind of model, where the configuration does not say it: Eso-LM (B), Eso-LM (A), MDLM or autoregressive.
    #[arg(long, value_parser = ["b", "a", "mdlm", "ar"])]
    variant: Option<String>,
    /// Number of attention heads, where neither configuration nor tensors say it.
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Longest text in tokens, where the configuration does not say it.
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// The token that begins a text, where neither tokenizer nor configuration say it.
    #[arg(long, value_name = "ID")]
    bos: Option<u32>,
    /// The model's name in the file; the output's file name if not given.
    #[arg(long)]
    name: Option<String>,
    /// Replace an output that exists.
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = Options {
        tokenizer: args.tokenizer.clone(),
        tensor_type: TensorType::from_name(&args.tensor_type).unwrap_or(TensorType::F16),
        rules: args.details.keep.clone(),
        importance: args.details.imatrix.clone(),
        threads: args.details.threads,
        raw_weights: args.raw_weights,
        variant: args.variant.as_deref().and_then(Variant::from_name),
        head_count: args.heads,
        context_length: args.length,
        bos_token_id: args.bos,
        name: args.name.clone(),
        force: args.force,
    };
    let report = progress::of_file(|show| convert(&args.input, &args.output, &options, show))?;
    progress::notes(&report.notes);
    let weights = match report.weights {
        Weights::Ema => "averaged (EMA) weights",
        Weights::Raw => "raw weights",
        Weights::AsStored => "weights as stored",
    };
    let tokenizer = match report.tokenizer {
        TokenizerSource::None => "no tokenizer",
        _ => "with tokenizer",
    };
    eprintln!(
        "{}: variant {}, {:.1} M parameters, {}, {weights}, {tokenizer}",
        args.output.display(),
        report.config.variant.name(),
        report.parameters as f64 / 1e6,
        human_bytes(report.bytes),
    );
    Ok(ExitCode::SUCCESS)
}
