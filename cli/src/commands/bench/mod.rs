//! `esolm bench`: speed and memory.

mod machine;
mod measure;
mod report;
mod synthetic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use esolm::gguf::TensorType;
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{Context, ContextParams, Error, GenerateParams, Kernels, Model, Result, SamplingParams, Variant};

use crate::args::{ComputeArgs, ModelArgs, kernels, tensor_types, variants};
use crate::memory;
use crate::output::{print, write_file};
use machine::Machine;
use measure::{Times, quantile};
use synthetic::{Shape, SyntheticModel};

const HELP: &str = "\
Options shown with a comma take lists; every combination is measured. The combinations take turns, so that a slow \
phase of the machine affects all of them; times are medians and include sampling.

Examples:
  # The built-in model
  esolm bench
  # A synthetic model of the published size, without a checkpoint
  esolm bench --shape small --type q8_0,q4_k
  esolm bench --shape small --steps 128 --kernels own,ggml
  # Where a step's time goes
  esolm bench --shape small --steps 16,1024 --profile
  # One token per step, left to right
  esolm bench --shape small --alpha0 0
  esolm bench -m model.gguf --batch 1,4,16 --json speed.json";

/// Measure speed and memory use.
///
/// Reports the limits of the machine (memory bandwidth and f32 operations per second), the time and memory that loading the
/// model takes, and the speed of generation.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Measure a synthetic model: one of a published size, with random weights, instead of a file.
    #[arg(long, value_enum, value_name = "SHAPE", conflicts_with = "model")]
    shape: Option<Shape>,
    /// Types of the synthetic model's weight matrices (with --shape).
    #[arg(long = "type", value_delimiter = ',', default_value = "q8_0", requires = "shape", value_parser = tensor_types(), value_name = "TYPE,..")]
    types: Vec<TensorType>,
    /// Variant of the synthetic model (with --shape): Eso-LM (B), Eso-LM (A), MDLM or autoregressive.
    #[arg(long, default_value = "b", requires = "shape", value_parser = variants(), value_name = "VARIANT")]
    variant: Variant,
    /// Write the synthetic model, of a single type, to this file and exit without measuring.
    #[arg(long, value_name = "FILE", requires = "shape")]
    write: Option<PathBuf>,
    /// Overwrite the file of --write if it exists.
    #[arg(short, long, requires = "write")]
    force: bool,
    /// Batch sizes: numbers of texts generated in parallel.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "B,..")]
    batch: Vec<usize>,
    /// Fractions of the tokens written by diffusion, 0 to 1.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "A,..")]
    alpha0: Vec<f64>,
    /// Numbers of diffusion steps.
    #[arg(long, value_delimiter = ',', default_value = "16,64", value_name = "T,..")]
    steps: Vec<usize>,
    /// Length of the texts in tokens. Default: the model's context length, which a synthetic model takes from this option.
    #[arg(short = 'n', long = "length", default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    length: usize,
    /// Top-p (nucleus) sampling, above 0 to 1; 1 = off.
    #[arg(long, default_value_t = 0.9, value_name = "P")]
    top_p: f32,
    /// Which CPU kernels to use: esolm's own, or ggml's. (Other devices always use ggml.)
    #[arg(long, value_delimiter = ',', default_value = "own", value_parser = kernels(), value_name = "KERNELS,..")]
    kernels: Vec<Kernels>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Number of times each combination is measured.
    #[arg(long, default_value_t = 3, value_name = "N")]
    repeat: usize,
    /// Also show how the time of a step is spent (own kernels only).
    #[arg(long)]
    profile: bool,
    /// Also write the results, with every measured time, to this file as JSON, overwriting it; `-` prints them to standard
    /// output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also plot speed over the number of diffusion steps to this file as SVG, overwriting it.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// A model under test, and what loading it takes.
struct Subject {
    model: Model,
    name: String,
    open_seconds: f64,
    /// Resident memory that loading it added, in bytes.
    resident: Option<u64>,
    /// The file of a synthetic model, which is deleted after the model is closed.
    _file: Option<SyntheticModel>,
}

/// One combination.
struct Case<'a> {
    subject: &'a Subject,
    kernels: Kernels,
    batch: usize,
    params: GenerateParams<'static>,
    times: Times,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.repeat == 0 || args.batch.contains(&0) {
        return Err(Error::InvalidArgument("--repeat and --batch must be at least 1".into()));
    }
    if let (Some(path), Some(shape)) = (&args.write, args.shape) {
        return write_model(args, shape, path);
    }
    let subjects = subjects(args)?;
    let mut cases = Vec::new();
    for subject in &subjects {
        for (&kernels, &batch) in args.kernels.iter().flat_map(|k| args.batch.iter().map(move |b| (k, b))) {
            for (&alpha_0, &steps) in args.alpha0.iter().flat_map(|a| args.steps.iter().map(move |s| (a, s)))
            {
                let sampling = SamplingParams { top_p: args.top_p, ..SamplingParams::default() };
                let params = GenerateParams { alpha_0, steps, sampling, ..GenerateParams::default() };
                cases.push(Case { subject, kernels, batch, params, times: Times::default() });
            }
        }
    }
    let first = cases.first().ok_or_else(|| Error::InvalidArgument("there is nothing to measure".into()))?;
    let machine = Machine::probe(context(args, first)?.threads());
    for round in 0..args.repeat {
        for case in &mut cases {
            let mut context = context(args, case)?;
            let params = GenerateParams { seed: round as u64, ..case.params };
            case.times.run(&mut context, case.batch, &params)?;
        }
    }
    if args.json.as_deref().is_none_or(|path| path.as_os_str() != "-") {
        print(&report::table(&machine, &subjects, &cases))?;
        if args.profile {
            print(&report::profile(&cases))?;
        }
    }
    if let Some(path) = &args.json {
        let report = format!("{:#}\n", report::json(args, &machine, &subjects, &cases)?);
        if path.as_os_str() == "-" {
            print(&report)?;
        } else {
            write_file(path, &report)?;
        }
    }
    if let Some(path) = &args.plot {
        write_file(path, &report::plot(&cases).svg())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the models that the options name.
fn subjects(args: &Args) -> Result<Vec<Subject>> {
    let Some(shape) = args.shape else {
        let name = args.model.model.as_ref().map_or("model".into(), |path| path.display().to_string());
        return Ok(vec![Subject::open(name, None, || args.model.open(&args.compute.device))?]);
    };
    let subject = |ty: &TensorType| {
        let file = synthetic_model(args, shape, *ty)?;
        let path = file.path.clone();
        let options = args.model.load_options(&args.compute.device);
        Subject::open(ty.name().into(), Some(file), || Model::open(&path, &options))
    };
    args.types.iter().map(subject).collect()
}

/// Writes the synthetic model to `path`, whole or not at all.
fn write_model(args: &Args, shape: Shape, path: &Path) -> Result<ExitCode> {
    let [ty] = args.types.as_slice() else {
        return Err(Error::InvalidArgument("--write takes one --type: it writes one file".into()));
    };
    let options = QuantizeOptions { force: args.force, ..QuantizeOptions::new(*ty) };
    quantize(&synthetic_model(args, shape, TensorType::F16)?.path, path, &options, &mut |_| ())?;
    Ok(ExitCode::SUCCESS)
}

/// A synthetic model whose matrices have the type `ty`.
fn synthetic_model(args: &Args, shape: Shape, ty: TensorType) -> Result<SyntheticModel> {
    SyntheticModel::write(&shape.config(args.variant, args.length), ty)
}

impl Subject {
    /// Loads the model several times and keeps the first one, which is the one that adds to the resident memory.
    fn open(name: String, file: Option<SyntheticModel>, open: impl Fn() -> Result<Model>) -> Result<Self> {
        let (model, resident) = memory::added_by(&open);
        let model = model?;
        let again = || Ok(open()?.load_time().as_secs_f64());
        let seconds = (0..5).map(|_| again()).collect::<Result<Vec<_>>>()?;
        Ok(Self { model, name, open_seconds: quantile(&seconds, 0.5), resident, _file: file })
    }
}

fn context_params(args: &Args, case: &Case<'_>) -> ContextParams {
    ContextParams {
        sequences: case.batch,
        length: args.length,
        kernels: case.kernels,
        ..args.compute.context_params()
    }
}

fn context(args: &Args, case: &Case<'_>) -> Result<Context> {
    Context::new(&case.subject.model, &context_params(args, case))
}
