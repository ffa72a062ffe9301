//! `esolm bench`: speed and memory.

mod machine;
mod made_up;
mod measure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use esolm::config::Variant;
use esolm::convert::{QuantizeOptions, quantize};
use esolm::gguf::TensorType;
use esolm::{Context, ContextParams, Error, GenerateParams, Kernels, Model, Result, Sampling};
use serde_json::{Value, json};

use crate::model_file::{ComputeArgs, ModelArgs, human_bytes, resident_memory};
use crate::plot::{Axis, Plot, Point, Series};
use crate::quantize::TYPES;
use machine::Machine;
use made_up::{MadeUp, Shape};
use measure::{Times, quantile};

const HELP: &str = "\
Options with a comma take lists; every combination is measured. Combinations take turns, so that a machine that slows \
down for a while slows all of them down; times are medians. Sampling is part of every time.

Examples:
  # The built-in model
  esolm bench
  # The published size, without a checkpoint
  esolm bench --shape small --type q8_0,q4_k
  esolm bench --shape small --steps 128 --kernels own,ggml
  # Where a step's time goes
  esolm bench --shape small --steps 16,1024 --profile
  # One token per step, left to right
  esolm bench --shape small --alpha0 0
  esolm bench -m model.gguf --batch 1,4,16 --json speed.json";

/// Measure speed and memory.
///
/// Says what the machine can do at best (bytes read and f32 operations per second), how long the model takes to
/// open and what memory it takes, and how fast texts are written.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A made-up model of a published size with random weights, in place of a file.
    #[arg(long, value_enum, value_name = "SHAPE", conflicts_with = "model")]
    shape: Option<Shape>,
    /// Types of a made-up model's matrices (with --shape).
    #[arg(long = "type", value_delimiter = ',', default_value = "q8_0", requires = "shape", value_parser = TYPES, value_name = "TYPE,..")]
    types: Vec<String>,
    /// Kind of a made-up model (with --shape): Eso-LM (B), Eso-LM (A), MDLM or autoregressive.
    #[arg(long, default_value = "b", requires = "shape", value_parser = ["b", "a", "mdlm", "ar"], value_name = "VARIANT")]
    variant: String,
    /// Write the made-up model, of one type, to a file, and measure nothing.
    #[arg(long, value_name = "FILE", requires = "shape")]
    write: Option<PathBuf>,
    /// Replace the file of --write if it exists.
    #[arg(short, long, requires = "write")]
    force: bool,
    /// Texts written side by side.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "B,..")]
    batch: Vec<usize>,
    /// Shares of the tokens that diffusion writes, 0 to 1.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "A,..")]
    alpha0: Vec<f64>,
    /// Numbers of steps of the diffusion phase.
    #[arg(long, value_delimiter = ',', default_value = "16,64", value_name = "T,..")]
    steps: Vec<usize>,
    /// Tokens of a text; the model's context length if not given. A made-up model can be made longer.
    #[arg(short = 'n', long = "length", default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    length: usize,
    /// Nucleus, above 0 to 1; 1 draws from all tokens.
    #[arg(long, default_value_t = 0.9, value_name = "P")]
    top_p: f32,
    /// Who computes on the CPU: this library's own kernels, or ggml's. (Other devices are always ggml's.)
    #[arg(long, value_delimiter = ',', default_value = "own", value_parser = ["own", "ggml"], value_name = "WHO,..")]
    kernels: Vec<String>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// How often each combination is measured.
    #[arg(long, default_value_t = 3, value_name = "N")]
    repeat: usize,
    /// Also say where a step's time goes (with this library's own kernels).
    #[arg(long)]
    profile: bool,
    /// Also write the results, every single time among them, to this file, as JSON. A file that exists is replaced; `-` is
    /// standard output, in place of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the speeds over T into this file, as SVG. A file that exists is replaced.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// A model under test and what opening it cost.
struct Subject {
    model: Model,
    name: String,
    open_seconds: f64,
    /// Resident bytes that opening it added.
    resident: Option<u64>,
    /// The file of a made-up model; it goes last.
    _file: Option<MadeUp>,
}

/// One combination.
struct Case<'a> {
    subject: &'a Subject,
    kernels: &'a str,
    batch: usize,
    params: GenerateParams<'static>,
    times: Times,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.repeat == 0 || args.batch.contains(&0) {
        return Err(Error::InvalidArgument("--repeat and --batch must be at least 1".into()));
    }
    if let (Some(path), Some(shape)) = (&args.write, args.shape) {
        return write(args, shape, path);
    }
    let subjects = subjects(args)?;
    let mut cases = Vec::new();
    for subject in &subjects {
        for (kernels, &batch) in args.kernels.iter().flat_map(|k| args.batch.iter().map(move |b| (k, b))) {
            for (&alpha_0, &steps) in args.alpha0.iter().flat_map(|a| args.steps.iter().map(move |s| (a, s)))
            {
                let sampling = Sampling { top_p: args.top_p, ..Sampling::default() };
                let params = GenerateParams { alpha_0, steps, sampling, ..GenerateParams::default() };
                cases.push(Case { subject, kernels, batch, params, times: Times::default() });
            }
        }
    }
    let threads = cases.first().map_or(Ok(1), |case| Ok::<_, Error>(context(args, case)?.threads()))?;
    let machine = Machine::probe(threads);
    for round in 0..args.repeat {
        for case in &mut cases {
            let mut context = context(args, case)?;
            let params = GenerateParams { seed: round as u64, ..case.params };
            case.times.run(&mut context, case.batch, &params)?;
        }
    }
    if args.json.as_deref().is_none_or(|path| path.as_os_str() != "-") {
        crate::print(&table(&machine, &subjects, &cases))?;
        if args.profile {
            crate::print(&profile(&cases))?;
        }
    }
    if let Some(path) = &args.json {
        let report = format!("{:#}\n", report(args, &machine, &subjects, &cases)?);
        if path.as_os_str() == "-" {
            crate::print(&report)?;
        } else {
            crate::write(path, &report)?;
        }
    }
    if let Some(path) = &args.plot {
        crate::write(path, &plot(&cases).svg())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The models that the options name, opened.
fn subjects(args: &Args) -> Result<Vec<Subject>> {
    let Some(shape) = args.shape else {
        let name = args.model.model.as_ref().map_or("model".into(), |path| path.display().to_string());
        return Ok(vec![Subject::open(name, None, || args.model.open(&args.compute.device))?]);
    };
    let subject = |name: &String| {
        let file = made_up(args, shape, tensor_type(name)?)?;
        let path = file.path.clone();
        let options = args.model.options(&args.compute.device);
        Subject::open(name.clone(), Some(file), || Model::open(&path, &options))
    };
    args.types.iter().map(subject).collect()
}

/// Writes the made-up model to `path`, whole or not at all.
fn write(args: &Args, shape: Shape, path: &Path) -> Result<ExitCode> {
    let [name] = args.types.as_slice() else {
        return Err(Error::InvalidArgument("--write takes one --type: it writes one file".into()));
    };
    let options = QuantizeOptions { force: args.force, ..QuantizeOptions::new(tensor_type(name)?) };
    quantize(&made_up(args, shape, TensorType::F16)?.path, path, &options, &mut |_| ())?;
    Ok(ExitCode::SUCCESS)
}

/// A made-up model whose matrices have the type `ty`.
fn made_up(args: &Args, shape: Shape, ty: TensorType) -> Result<MadeUp> {
    let variant = Variant::from_name(&args.variant).unwrap_or(Variant::EsoB);
    MadeUp::write(&shape.config(variant, args.length), ty)
}

fn tensor_type(name: &str) -> Result<TensorType> {
    TensorType::from_name(name).ok_or_else(|| Error::InvalidArgument(format!("there is no type '{name}'")))
}

impl Subject {
    /// Opens the model some times; the first one, which is the one that adds to the resident memory, stays.
    fn open(name: String, file: Option<MadeUp>, open: impl Fn() -> Result<Model>) -> Result<Self> {
        let before = resident_memory();
        let model = open()?;
        let resident = resident_memory().zip(before).map(|(after, before)| after.saturating_sub(before));
        let again = || Ok(open()?.load_time().as_secs_f64());
        let seconds = (0..5).map(|_| again()).collect::<Result<Vec<_>>>()?;
        Ok(Self { model, name, open_seconds: quantile(&seconds, 0.5), resident, _file: file })
    }
}

fn context_params(args: &Args, case: &Case<'_>) -> ContextParams {
    ContextParams {
        sequences: case.batch,
        length: args.length,
        kernels: if case.kernels == "ggml" { Kernels::Ggml } else { Kernels::Own },
        ..args.compute.context_params()
    }
}

fn context(args: &Args, case: &Case<'_>) -> Result<Context> {
    Context::new(&case.subject.model, &context_params(args, case))
}

fn table(machine: &Machine, subjects: &[Subject], cases: &[Case<'_>]) -> String {
    let mut text = format!(
        "{}, {} threads: reads {:.1} GB/s, {:.0} GFLOP/s (f32)\n\n",
        machine.processor,
        machine.threads,
        machine.bandwidth / 1e9,
        machine.peak / 1e9
    );
    for Subject { model, name, open_seconds, resident, .. } in subjects {
        text += &format!(
            "{name}: {:.0} M parameters, opened in {:.1} ms, {} resident for it\n",
            model.parameter_count() as f64 / 1e6,
            open_seconds * 1e3,
            resident.map_or("unknown".into(), human_bytes),
        );
    }
    text += "\nmodel     kernels  batch  length  alpha_0  T      steps  tokens/s  ms/step  p99 ms/step\n";
    for case in cases {
        let GenerateParams { alpha_0, steps, .. } = case.params;
        let times = &case.times;
        text += &format!(
            "{:9} {:8} {:<6} {:<7} {alpha_0:<8} {steps:<6} {:<6} {:<9.0} {:<8.2} {:.2}\n",
            case.subject.name,
            case.kernels,
            case.batch,
            times.tokens / case.batch,
            times.passes(),
            times.speed(),
            times.step(0.5) * 1e3,
            times.step(0.99) * 1e3,
        );
    }
    text
}

/// Milliseconds per step of each case's last generation, and their shares.
fn profile(cases: &[Case<'_>]) -> String {
    let mut text = String::from("\nWhere a step's time goes, in ms (the last generation of each):\n");
    for case in cases {
        let GenerateParams { alpha_0, steps, .. } = case.params;
        text += &format!("{}, batch {}, alpha_0 {alpha_0}, T {steps}:", case.subject.name, case.batch);
        match case.times.parts() {
            Some(parts) => {
                let whole: f64 = parts.iter().map(|(_, ms)| ms).sum();
                for (name, ms) in parts {
                    text += &format!("  {name} {ms:.3} ({:.0} %)", 100.0 * ms / whole);
                }
                text += "\n";
            }
            None => text += " not known for ggml's kernels\n",
        }
    }
    text
}

/// A line for each model, kernels, batch and alpha_0.
/// What is the same in all cases stands in the title, not in the legend.
fn plot(cases: &[Case<'_>]) -> Plot {
    let parts = |case: &Case<'_>| {
        [
            case.subject.name.clone(),
            case.kernels.to_string(),
            format!("batch {}", case.batch),
            format!("alpha_0 {}", case.params.alpha_0),
        ]
    };
    let all: Vec<_> = cases.iter().map(parts).collect();
    let varies =
        |part: usize| all.iter().any(|parts| parts.get(part) != all.first().and_then(|p| p.get(part)));
    let join = |case: &Case<'_>, varying: bool| {
        let kept = parts(case).into_iter().enumerate().filter(|(part, _)| varies(*part) == varying);
        kept.map(|(_, part)| part).collect::<Vec<_>>().join(", ")
    };
    let mut series: Vec<Series> = Vec::new();
    for case in cases {
        let name = join(case, true);
        let point = Point { x: case.params.steps as f64, y: case.times.speed(), label: String::new() };
        match series.iter_mut().find(|s| s.name == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name, points: vec![point], line: true }),
        }
    }
    let same = cases.first().map(|case| join(case, false)).filter(|same| !same.is_empty());
    Plot {
        title: format!(
            "Speed over diffusion steps, sampling included{}",
            same.map_or(String::new(), |s| format!(": {s}"))
        ),
        x: Axis { label: "T (diffusion steps)".into(), log: true },
        y: Axis { label: "tokens/s".into(), log: false },
        series,
    }
}

fn report(args: &Args, machine: &Machine, subjects: &[Subject], cases: &[Case<'_>]) -> Result<Value> {
    let models: Vec<_> = subjects
        .iter()
        .map(|subject| {
            json!({
                "name": subject.name,
                "parameters": subject.model.parameter_count(),
                "open_seconds": subject.open_seconds,
                "open_resident_bytes": subject.resident,
            })
        })
        .collect();
    let measured: Vec<_> = cases
        .iter()
        .map(|case| {
            let memory = Context::memory_use(&case.subject.model, &context_params(args, case))?;
            Ok(json!({
                "model": case.subject.name,
                "kernels": case.kernels,
                "batch": case.batch,
                "alpha_0": case.params.alpha_0,
                "T": case.params.steps,
                "top_p": case.params.sampling.top_p,
                "arena_bytes": memory.arena,
                "times": case.times.json(),
            }))
        })
        .collect::<Result<_>>()?;
    Ok(json!({ "machine": machine.json(), "models": models, "measured": measured }))
}
