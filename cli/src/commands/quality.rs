//! `esolm quality`: what quantized files of a model lose.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use esolm::evaluate::quality::{Quality, QualityOptions, compare};
use esolm::{Error, LoadOptions, Model, Result};
use serde_json::{Value, json};

use crate::args::{ComputeArgs, JsonFileArgs, WindowArgs};
use crate::input::read_text;
use crate::model_args::MaskArgs;
use crate::model_file::model_file;
use crate::phase_args::{check_alpha_0, check_diffusion};
use crate::plot::{Axis, Plot, Point, Series};
use crate::progress;

const HELP: &str = "\
Every model processes windows of the text as if it were generating them, in the same order and steps: the fraction \
--alpha0 by diffusion in --steps steps, the rest left to right. For each token, the model's distribution is compared with that of \
BASE. Use text that the model was not trained on.

  NLL        negative log-likelihood in nats per token, written in these steps
  PPL        perplexity, e^NLL
  +%         increase over the NLL of BASE, with its standard error over the windows
  KL         mean KL divergence from the distribution of BASE, in nats
  KL 99.9    99.9th percentile of the KL divergence
  same top   fraction of tokens where the most likely token is the same as for BASE
  tokens/s   speed on this machine, one text at a time

Example:
  esolm quality f32.gguf q8_0.gguf q4_k.gguf --text heldout.txt --plot out.svg";

/// Compare quantized files of a model with the original: NLL, KL divergence, same top token.
#[derive(clap::Args)]
#[command(after_help = HELP)]
#[command(override_usage = "esolm quality [OPTIONS] --text <FILE> <BASE> <MODEL>...")]
pub struct Args {
    /// Model files (GGUF), or hf:OWNER/NAME: the one to compare with (BASE), preferably f32, and those to measure, quantized
    /// from it.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// BASE, if it is not the first argument.
    #[arg(short = 'm', long = "model", value_name = "FILE")]
    base: Option<PathBuf>,
    #[command(flatten)]
    mask: MaskArgs,
    /// Text file (UTF-8); `-` reads standard input.
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    text: String,
    /// Maximum number of windows to use, spread evenly over the text; 0 = all of it.
    #[arg(long, default_value_t = 64, value_name = "N")]
    windows: usize,
    #[command(flatten)]
    window: WindowArgs,
    /// Fraction of the tokens written by diffusion, 0 to 1. Default: the alpha_0 that BASE was trained with, 1 if its file
    /// does not say.
    #[arg(long, value_name = "A")]
    alpha0: Option<f64>,
    /// Number of diffusion steps.
    #[arg(long, default_value_t = 32, value_name = "T")]
    steps: usize,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
    #[command(flatten, next_help_heading = "Output")]
    json: JsonFileArgs,
    /// Also plot file size against KL divergence to this file as SVG, overwriting it.
    #[arg(long, value_name = "OUT.svg", help_heading = "Output")]
    plot: Option<PathBuf>,
}

/// A model file and its results.
struct Measured {
    name: String,
    bytes: usize,
    bits_per_weight: f64,
    quality: Quality,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    check_diffusion(args.alpha0.as_slice(), &[args.steps])?;
    let inputs: Vec<_> = args.base.iter().chain(&args.models).map(PathBuf::as_path).collect();
    args.json.check(args.plot.as_deref(), &[&inputs[..], &[Path::new(&args.text)]].concat())?;
    let load = LoadOptions { mask_token: args.mask.mask_token, ..args.compute.load_options() };
    let given = args.base.iter().chain(&args.models);
    let paths = given.map(|path| model_file(path)).collect::<Result<Vec<_>>>()?;
    if paths.len() < 2 {
        return Err(Error::InvalidArgument("one model file, and none to compare with it".into()));
    }
    args.window.seed.tell_if_random();
    let models = paths.iter().map(|path| Model::open(path, &load)).collect::<Result<Vec<_>>>()?;
    let text = read_text(&args.text)?;
    let base = models.first().ok_or_else(|| Error::InvalidArgument("no model".into()))?;
    check_alpha_0(args.alpha0.as_slice(), base.config().variant)?;
    let tokens = base.tokenizer()?.encode_corpus(&text)?;
    let options = QualityOptions {
        length: args.window.length,
        windows: args.windows,
        alpha_0: args.alpha0,
        steps: args.steps,
        seed: args.window.seed.value,
        threads: args.compute.cpu.threads,
        kv_type: args.compute.kv_type,
    };
    let pool = args.compute.pool()?;
    let qualities = progress::of_windows(|show| compare(&models, &tokens, &options, pool.as_ref(), show))?;
    let measured = |((path, model), quality): ((&PathBuf, &Model), Quality)| Measured {
        name: path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        bytes: model.file_bytes(),
        bits_per_weight: model.tensor_bytes() as f64 * 8.0 / model.parameter_count() as f64,
        quality,
    };
    let all: Vec<Measured> = paths.iter().zip(&models).zip(qualities).map(measured).collect();
    let report = json!({ "seed": args.window.seed.value, "steps": args.steps, "alpha_0": options.alpha_0,
                             "files": all.iter().map(to_json).collect::<Vec<_>>() });
    let plot = args.plot.as_ref().map(|path| (path, plot(&all, note(args))));
    args.json.show(&table(&all), report, plot)?;
    Ok(ExitCode::SUCCESS)
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The results as a Markdown table.
fn table(all: &[Measured]) -> String {
    let width = all.iter().map(|m| m.name.chars().count()).max().unwrap_or(0).max(4);
    let mut out = format!(
        "| {:width$} |   MiB | bits |    NLL |     PPL |     + % (error) |      KL | KL 99.9 | same top | tokens/s |\n\
         |-{:-<width$}-|------:|-----:|-------:|--------:|----------------:|--------:|--------:|---------:|---------:|\n",
        "file", ""
    );
    let base = all.first().map_or(f64::NAN, |m| m.quality.nll);
    for m in all {
        let q = &m.quality;
        let percent = |nats: f64| nats / base * 100.0;
        let error = percent(q.difference.standard_error);
        // A single window has no standard error.
        let error = if error.is_finite() { format!("{error:.3}") } else { "?".into() };
        out += &format!(
            "| {:width$} | {:5.2} | {:4.2} | {:.4} | {:7.2} | {:+7.3} ({:>5}) | {:.5} | {:7.4} | {:6.2} % | {:8.0} |\n",
            m.name,
            mebibytes(m.bytes),
            m.bits_per_weight,
            q.nll,
            q.nll.exp(),
            percent(q.difference.mean),
            error,
            q.divergence,
            q.divergence_999,
            q.same_top * 100.0,
            q.tokens_per_second,
        );
    }
    out
}

fn to_json(m: &Measured) -> Value {
    let q = &m.quality;
    json!({ "file": m.name, "bytes": m.bytes, "bits_per_weight": m.bits_per_weight, "tokens": q.tokens,
            "nll": q.nll, "perplexity": q.nll.exp(), "nll_difference": q.difference.mean,
            "nll_difference_standard_error": q.difference.standard_error, "kl_mean": q.divergence,
            "kl_p999": q.divergence_999, "same_top": q.same_top, "tokens_per_second": q.tokens_per_second })
}

/// How the files were measured.
fn note(args: &Args) -> String {
    let alpha_0 = args.alpha0.map_or("that of training".into(), |alpha_0| alpha_0.to_string());
    format!("seed {}, T = {} diffusion steps, alpha_0 {alpha_0}", args.window.seed.value, args.steps)
}

/// File size against divergence. The base is left out: its divergence is 0, which a logarithmic axis cannot show.
fn plot(all: &[Measured], note: String) -> Plot {
    let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
    let common = common_prefix(&names);
    let point = |m: &Measured| Point {
        x: mebibytes(m.bytes),
        y: m.quality.divergence,
        label: m.name.get(common..).unwrap_or(&m.name).to_owned(),
    };
    let base = all.first().map_or(String::new(), |m| format!("{} of {:.1} MiB", m.name, mebibytes(m.bytes)));
    Plot {
        title: format!("Size against divergence from {base}"),
        note,
        x: Axis { label: "file size, MiB".into(), log: false },
        y: Axis { label: "mean KL divergence per token, nats".into(), log: true },
        series: vec![Series {
            name: String::new(),
            points: all.iter().skip(1).map(point).collect(),
            line: false,
        }],
    }
}

/// Length in bytes of the longest common prefix of all names that ends in `-`, `_` or `.`.
fn common_prefix(names: &[&str]) -> usize {
    let Some((first, others)) = names.split_first() else { return 0 };
    let mut ends = first.char_indices().filter(|(_, c)| "-_.".contains(*c)).map(|(at, c)| at + c.len_utf8());
    ends.rfind(|&end| others.iter().all(|name| name.get(..end) == first.get(..end))).unwrap_or(0)
}
