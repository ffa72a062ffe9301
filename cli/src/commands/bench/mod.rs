//! `esolm bench`: speed and memory.

mod case;
mod floor;
mod machine;
mod measure;
mod options;
mod report;
mod synthetic;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;

use esolm::gguf::TensorType;
use esolm::quantize::{FileOrPath, QuantizeOptions};
use esolm::{Adaptive, Config, Error, GenerateParams, Kernels, Result, SamplingParams, Variant};

use crate::generation_args::check_diffusion;
use crate::progress;
use case::{Case, Subject};
use machine::Machine;
use measure::Times;
pub use options::Args;
use synthetic::{Shape, SyntheticModel};

pub fn run(args: &Args) -> Result<ExitCode> {
    check(args)?;
    if let (Some(path), Some(shape)) = (&args.write, args.shape) {
        return write_model(args, shape, path);
    }
    let model = args.model.name()?;
    args.json.check(args.plot.as_deref(), model.as_deref().as_slice())?;
    let subjects = subjects(args)?;
    let mut cases = Vec::new();
    for subject in &subjects {
        // Other devices have ggml's, whatever was asked for.
        let kernels = match subject.model.device().as_str() {
            "cpu" => &args.kernels,
            _ => &vec![Kernels::Ggml],
        };
        for (&kernels, &batch) in kernels.iter().flat_map(|k| args.batch.iter().map(move |b| (k, b))) {
            // WeDLM has windows in place of steps.
            let slides = subject.model.config().variant == Variant::WeDlm;
            let numbers = if slides { &args.window } else { &args.steps };
            for (&alpha_0, &number) in args.alpha0.iter().flat_map(|a| numbers.iter().map(move |s| (a, s))) {
                let window = Some(Adaptive { window: number, ..Adaptive::WEDLM });
                let sampling = SamplingParams { top_p: args.top_p, ..SamplingParams::FULL };
                let params = GenerateParams {
                    alpha_0,
                    steps: if slides { 0 } else { number },
                    adaptive: window.filter(|_| slides && alpha_0 == 1.0),
                    sampling,
                    ignore_eos: true,
                    ..GenerateParams::default()
                };
                cases.push(Case { subject, kernels, batch, number, params, times: Times::default() });
            }
        }
    }
    let first = cases.first().ok_or_else(|| Error::InvalidArgument("there is nothing to measure".into()))?;
    let mut machine = Machine::probe(first.context(args)?.threads())?;
    let all = args.repeat.saturating_mul(cases.len());
    progress::of_items("generations", |show| {
        let mut done = 0;
        for round in 0..args.repeat {
            for case in &mut cases {
                show(done, all);
                let mut context = case.context(args)?;
                let params = GenerateParams { seed: round as u64, ..case.params };
                case.times.run(&mut context, case.batch, &params)?;
                done += 1;
            }
        }
        Ok::<_, Error>(())
    })?;
    machine.probe_again();
    let profile = if args.profile { report::profile(&cases) } else { String::new() };
    let table = report::table(args, &machine, &subjects, &cases) + &profile;
    let plot = args.plot.as_ref().map(|path| (path, report::plot(args, &cases)));
    args.json.show(&table, report::json(args, &machine, &subjects, &cases)?, plot)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the numbers that the options give.
fn check(args: &Args) -> Result<()> {
    if args.repeat == 0 || args.batch.contains(&0) {
        return Err(Error::InvalidArgument("--repeat and --batch must be at least 1".into()));
    }
    check_diffusion(&args.alpha0, &args.steps)?;
    // As those, it has a value that stands for a default in the library.
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return Err(Error::InvalidArgument(format!("--top-p is {}, not above 0 to 1", args.top_p)));
    }
    let threads = args.compute.cpu.threads;
    let processors = available_parallelism().map_or(usize::MAX, usize::from);
    if args.kernels.contains(&Kernels::Ggml) && threads > processors {
        return Err(Error::InvalidArgument(format!(
            "--threads {threads} with --kernels ggml, whose threads wait by spinning: at most one for each of the \
             {processors} processors that the process may use"
        )));
    }
    Ok(())
}

/// Loads the models that the options name.
fn subjects(args: &Args) -> Result<Vec<Subject>> {
    let Some(shape) = args.shape else {
        let name = args.model.name()?.map_or("built-in".into(), |path| path.display().to_string());
        return Ok(vec![Subject::open(name, || args.model.open(&args.compute.device))?]);
    };
    let subject = |ty: &TensorType| {
        let layout = QuantizeOptions { layout: args.layout, ..QuantizeOptions::new(*ty) };
        let file = SyntheticModel::write(&config(args, shape)?, &layout)?;
        let options = args.model.load_options(&args.compute.device);
        Subject::open(ty.name().into(), || file.open(&options))
    };
    args.types.iter().map(subject).collect()
}

/// Writes the synthetic model to `path`, whole or not at all.
fn write_model(args: &Args, shape: Shape, path: &Path) -> Result<ExitCode> {
    let [ty] = args.types.as_slice() else {
        return Err(Error::InvalidArgument("--write takes one --type: it writes one file".into()));
    };
    let options = QuantizeOptions { force: args.force, layout: args.layout, ..QuantizeOptions::new(*ty) };
    synthetic::create(&config(args, shape)?, FileOrPath::Path(path), &options)?;
    Ok(ExitCode::SUCCESS)
}

/// The hyperparameters of a synthetic model.
fn config(args: &Args, shape: Shape) -> Result<Config> {
    let config = shape.config(variant_of(shape, args.variant)?, args.length);
    // Of its hyperparameters, the options say the length alone.
    config.validate().map_err(|what| Error::InvalidArgument(format!("--length {}: {what}", args.length)))?;
    Ok(config)
}

/// The variant that is meant.
fn variant_of(shape: Shape, given: Option<Variant>) -> Result<Variant> {
    let qwen = matches!(shape, Shape::Qwen3Tiny | Shape::Qwen3Small | Shape::Qwen25 | Shape::Qwen3);
    let variant = given.unwrap_or(if qwen { Variant::WeDlm } else { Variant::EsoB });
    let fits = match variant {
        Variant::WeDlm => qwen,
        Variant::Ar => true,
        _ => !qwen,
    };
    match fits {
        true => Ok(variant),
        false => {
            Err(Error::InvalidArgument(format!("there is no --variant {} of this shape", variant.name())))
        }
    }
}
