//! `esolm convert`: a training checkpoint becomes a model file.

use std::path::PathBuf;
use std::process::ExitCode;

use esolm::convert::{Options, SpecialToken, TokenizerSource, WeightSet, convert};
use esolm::gguf::TensorType;
use esolm::{Error, Result, Variant};
use serde_json::json;

use super::quantize::QuantizationArgs;
use crate::args::{JsonArgs, OverwriteArgs, tensor_types, variants};
use crate::model_file::{checkpoint_file, tokenizer_file};
use crate::output::{human_bytes, print_json, print_notes, tell};
use crate::progress;

/// Convert a training checkpoint to a model file (GGUF).
///
/// INPUT is a PyTorch Lightning checkpoint (.ckpt) as the authors' training code saves it, or a model.safetensors, the
/// model.safetensors.index.json of one in shards, or a state dictionary (pytorch_model.bin, .pt) with config.json beside it,
/// or a folder with one of these, or hf:OWNER/NAME (see `esolm pull`). No code in a checkpoint is executed.
///
/// The tokenizer is the checkpoint's own, or the one beside the weights: tokenizer.json, else vocab.json and merges.txt.
/// Without one the model works on token ids. docs/checkpoints.md lists what is converted and what is refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm convert checkpoint.ckpt -o model.gguf --type q8_0
  esolm convert folder -o model.gguf --tokenizer tokenizer.json")]
// -t is --type here.
#[command(mut_arg("threads", |threads| threads.short(None)))]
pub struct Args {
    /// The checkpoint, or its folder. It may also be given with -m.
    #[arg(required_unless_present = "model")]
    input: Option<PathBuf>,
    /// The checkpoint, if it is not the first argument.
    #[arg(short, long, value_name = "FILE", conflicts_with = "input")]
    model: Option<PathBuf>,
    /// Model file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A tokenizer.json to use instead of the checkpoint's own tokenizer.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Type of the weight matrices; norms and biases are always f32 (see `esolm quantize --help`).
    #[arg(short, long = "type", default_value = "f16", value_name = "TYPE", value_parser = tensor_types())]
    tensor_type: TensorType,
    #[command(flatten)]
    quantization: QuantizationArgs,
    /// Use the weights of the last training step instead of their exponential moving average (EMA).
    #[arg(long)]
    raw_weights: bool,
    /// Model variant, if the configuration does not say: Eso-LM (B), Eso-LM (A), MDLM, autoregressive, WeDLM or
    /// BD3-LM.
    #[arg(long, value_parser = variants())]
    variant: Option<Variant>,
    /// Number of attention heads, if neither configuration nor tensors say.
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Context length in tokens, if the configuration does not say.
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// The token that begins a text, by its text or id, in place of the one that configuration or tokenizer name.
    #[arg(long, value_name = "TOKEN", value_parser = special_token)]
    bos: Option<SpecialToken>,
    /// The token that ends a text, by its text or id, in place of the one that configuration or tokenizer name.
    #[arg(long, value_name = "TOKEN", value_parser = special_token)]
    eos: Option<SpecialToken>,
    /// The mask token, by its text or id, where the configuration does not say it; in place of the one that the tokenizer names.
    #[arg(long, value_name = "TOKEN", value_parser = special_token)]
    mask_token: Option<SpecialToken>,
    /// Model name to store in the file. Default: from the output's file name.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// A number, or #ID, is an id; everything else is a token's text.
fn special_token(text: &str) -> std::result::Result<SpecialToken, std::convert::Infallible> {
    let id = text.strip_prefix('#').unwrap_or(text).parse();
    Ok(id.map_or_else(|_| SpecialToken::Text(text.to_owned()), SpecialToken::Id))
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = Options {
        tokenizer: args.tokenizer.as_deref().map(tokenizer_file).transpose()?,
        tensor_type: args.tensor_type,
        rules: args.quantization.keep.clone(),
        importance: args.quantization.imatrix.clone(),
        layout: args.quantization.layout,
        threads: args.quantization.cpu.threads,
        raw_weights: args.raw_weights,
        variant: args.variant,
        head_count: args.heads,
        context_length: args.length,
        bos: args.bos.clone(),
        eos: args.eos.clone(),
        mask_token: args.mask_token.clone(),
        defaults: args.quantization.defaults()?,
        name: args.name.clone(),
        force: args.overwrite.force,
    };
    let given = args.input.as_deref().or(args.model.as_deref());
    let input = checkpoint_file(given.ok_or_else(|| Error::InvalidArgument("no checkpoint".into()))?)?;
    let report = progress::of_file(|show| convert(&input, &args.output, &options, show))?;
    let (weights, weights_name) = match report.weights {
        WeightSet::Ema => ("averaged (EMA) weights", "ema"),
        WeightSet::Raw => ("raw weights", "raw"),
        WeightSet::AsStored => ("weights as stored", "as_stored"),
    };
    let (tokenizer, tokenizer_name) = match report.tokenizer {
        TokenizerSource::None => ("no tokenizer", None),
        TokenizerSource::Given => ("with tokenizer", Some("given")),
        TokenizerSource::Embedded => ("with tokenizer", Some("embedded")),
        TokenizerSource::Beside => ("with tokenizer", Some("beside")),
    };
    if args.json.json {
        print_json(json!({
            "file": args.output.display().to_string(), "type": args.tensor_type.name(), "variant": report.config.variant.name(),
            "parameters": report.parameters, "bytes": report.bytes, "weights": weights_name,
            "tokenizer": tokenizer_name, "notes": report.notes,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print_notes(&report.notes);
    tell(&format!(
        "{}: variant {}, {:.1} M parameters, {}, {weights}, {tokenizer}",
        args.output.display(),
        report.config.variant.name(),
        report.parameters as f64 / 1e6,
        human_bytes(report.bytes),
    ));
    Ok(ExitCode::SUCCESS)
}
