//! `esolm quality`: what smaller model files lose.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use esolm::quality::{Quality, QualityOptions, compare};
use esolm::{Error, Model, Result};
use serde_json::{Value, json};

use crate::model_file::{ComputeArgs, read_text};
use crate::plot::{Axis, Plot, Point, Series};
use crate::progress;

const HELP: &str = "\
All files write the text in the same orders and steps, side by side: the share --alpha0 of it by diffusion in \
--steps steps, the rest from left to right. For each token the files' distributions are compared with BASE's. Take text \
that the model was not trained on.

  NLL        negative log-likelihood in nats per token, in these steps
  +%         how much it is above BASE's, with the standard error over windows
  KL         mean divergence of the distributions from BASE's, in nats
  KL 99.9    what one divergence in a thousand exceeds
  same top   tokens whose most likely value is BASE's
  tokens/s   of the steps, on this machine, as one text at a time

Example:
  esolm quality f32.gguf q8_0.gguf q4_k.gguf --text heldout.txt --plot out.svg";

/// Measure what smaller files of a model lose.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The model file to compare with, best in f32.
    base: PathBuf,
    /// The files to measure, made from it.
    #[arg(required = true)]
    others: Vec<PathBuf>,
    /// A text file (UTF-8); `-` reads standard input.
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    text: String,
    /// Most windows of the text to take, spread over it; 0 for the whole text.
    #[arg(long, default_value_t = 64, value_name = "N")]
    windows: usize,
    /// Tokens of a window; the model's context length if not given.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    length: usize,
    /// Share of the tokens that diffusion writes, 0 to 1; what BASE was trained with if not given, 1 if it does not say.
    #[arg(long, value_name = "A")]
    alpha0: Option<f64>,
    /// Steps of the diffusion phase.
    #[arg(long, default_value_t = 32, value_name = "T")]
    steps: usize,
    /// Chooses orders and schedules.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Also write the figures to this file, as JSON. A file that exists is replaced.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Also draw size against divergence into this file, as SVG. A file that exists is replaced.
    #[arg(long, value_name = "OUT.svg")]
    plot: Option<PathBuf>,
}

/// A file and what was measured of it.
struct Measured {
    name: String,
    bytes: usize,
    bits_per_weight: f64,
    quality: Quality,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let load = args.compute.load_options();
    let paths: Vec<&Path> = std::iter::once(&args.base).chain(&args.others).map(PathBuf::as_path).collect();
    let models = paths.iter().map(|path| Model::open(path, &load)).collect::<Result<Vec<_>>>()?;
    let text = read_text(&args.text)?;
    let base = models.first().ok_or_else(|| Error::InvalidArgument("no model".into()))?;
    let tokens = base.tokenizer()?.encode(&text)?;
    let options = QualityOptions {
        length: args.length,
        windows: args.windows,
        alpha_0: args.alpha0,
        steps: args.steps,
        seed: args.seed,
        threads: args.compute.threads,
        kv_type: args.compute.kv_type,
    };
    let qualities = progress::of_items("windows", |show| {
        compare(&models, &tokens, &options, |done, all| {
            show(done, all);
            ControlFlow::Continue(())
        })
    })?;
    let measured = |((path, model), quality): ((&&Path, &Model), Quality)| Measured {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: model.file_bytes(),
        bits_per_weight: model.tensor_bytes() as f64 * 8.0 / model.parameter_count() as f64,
        quality,
    };
    let all: Vec<Measured> = paths.iter().zip(&models).zip(qualities).map(measured).collect();
    crate::print(&table(&all))?;
    if let Some(path) = &args.json {
        let report = json!({ "seed": args.seed, "steps": args.steps, "alpha_0": options.alpha_0,
                             "files": all.iter().map(to_json).collect::<Vec<_>>() });
        crate::write(path, &format!("{report:#}\n"))?;
    }
    if let Some(path) = &args.plot {
        crate::write(path, &plot(&all).svg())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A table that is Markdown too.
fn table(all: &[Measured]) -> String {
    let width = all.iter().map(|m| m.name.chars().count()).max().unwrap_or(0).max(4);
    let mut out = format!(
        "| {:width$} |   MiB | bits |    NLL |     + % (error) |      KL | KL 99.9 | same top | tokens/s |\n\
         |-{:-<width$}-|------:|-----:|-------:|----------------:|--------:|--------:|---------:|---------:|\n",
        "file", ""
    );
    let base = all.first().map_or(f64::NAN, |m| m.quality.nll);
    for m in all {
        let q = &m.quality;
        let percent = |nats: f64| nats / base * 100.0;
        let error = percent(q.difference.standard_error);
        // One window has no error that could be known.
        let error = if error.is_finite() { format!("{error:.3}") } else { "?".into() };
        out += &format!(
            "| {:width$} | {:5.2} | {:4.2} | {:.4} | {:+7.3} ({:>5}) | {:.5} | {:7.4} | {:6.2} % | {:8.0} |\n",
            m.name,
            mebibytes(m.bytes),
            m.bits_per_weight,
            q.nll,
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
            "nll": q.nll, "nll_difference": q.difference.mean,
            "nll_difference_standard_error": q.difference.standard_error, "kl_mean": q.divergence,
            "kl_99.9": q.divergence_999, "same_top": q.same_top, "tokens_per_second": q.tokens_per_second })
}

/// Size against divergence. The base itself has none, and no place on a logarithmic axis.
fn plot(all: &[Measured]) -> Plot {
    let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
    let common = common_beginning(&names);
    let point = |m: &Measured| Point {
        x: mebibytes(m.bytes),
        y: m.quality.divergence,
        label: m.name.get(common..).unwrap_or(&m.name).to_owned(),
    };
    let base = all.first().map_or(String::new(), |m| format!("{} of {:.1} MiB", m.name, mebibytes(m.bytes)));
    Plot {
        title: format!("Size against divergence from {base}"),
        x: Axis { label: "file size, MiB".into(), log: false },
        y: Axis { label: "mean KL divergence per token, nats".into(), log: true },
        series: vec![Series {
            name: String::new(),
            points: all.iter().skip(1).map(point).collect(),
            line: false,
        }],
    }
}

/// How many bytes all names begin with alike, up to and with a `-`, `_` or `.`.
fn common_beginning(names: &[&str]) -> usize {
    let Some((first, others)) = names.split_first() else { return 0 };
    let mut ends = first.char_indices().filter(|(_, c)| "-_.".contains(*c)).map(|(at, c)| at + c.len_utf8());
    ends.rfind(|&end| others.iter().all(|name| name.get(..end) == first.get(..end))).unwrap_or(0)
}
