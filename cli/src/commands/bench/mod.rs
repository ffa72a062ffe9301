//! `esolm bench`: speed and memory.

mod case;
mod floor;
mod kind;
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
use esolm::{Adaptive, Config, Error, GenerateParams, Kernels, Result, SamplingParams, Schedule, Variant};

use crate::phase_args::check_diffusion;
use crate::progress;
use case::{Amount, Case, Subject, whole_length};
use kind::Kind;
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
    check_amounts(args, &subjects)?;
    let mut cases = Vec::new();
    for subject in &subjects {
        let config = subject.model.config();
        // Other devices have ggml's, whatever was asked for.
        let kernels = match subject.model.device().as_str() {
            "cpu" => &args.kernels,
            _ => &vec![Kernels::Ggml],
        };
        for (&kernels, &batch) in kernels.iter().flat_map(|k| args.batch.iter().map(move |b| (k, b))) {
            for (&alpha_0, &length) in
                alphas(args, config).iter().flat_map(|a| args.length.iter().map(move |n| (a, n)))
            {
                for (amount, schedule) in amounts(args, config, alpha_0) {
                    let params = GenerateParams { schedule, ..params(args, alpha_0, amount, config, length) };
                    let times = Times::default();
                    cases.push(Case { subject, kernels, batch, length, amount, params, times });
                }
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
                let is_mdlm = case.subject.model.config().variant == Variant::Mdlm;
                case.times.run(&mut context, case.batch, &params, args.mdlm_steps.filter(|_| is_mdlm))?;
                done += 1;
            }
        }
        Ok::<_, Error>(())
    })?;
    machine.probe_again();
    let profile = if args.profile { report::profile(args, &machine, &cases) } else { String::new() };
    let table = report::table(args, &machine, &subjects, &cases)
        + &report::ratios(&cases)
        + &profile
        + report::beyond_limits(args, &machine, &cases);
    let plot = args.plot.as_ref().map(|path| (path, report::plot(args, &cases)));
    args.json.show(&table, report::json(args, &machine, &subjects, &cases)?, plot)?;
    Ok(ExitCode::SUCCESS)
}

/// The fractions written by diffusion, where a variant has a choice.
fn alphas<'a>(args: &'a Args, config: &Config) -> &'a [f64] {
    match config.variant {
        Variant::Ar => &[0.0],
        Variant::Mdlm | Variant::Bd3Lm => &[1.0],
        Variant::EsoA | Variant::EsoB | Variant::WeDlm => &args.alpha0,
    }
}

/// How much the steps of a model do, and by which schedule.
fn amounts<'a>(args: &'a Args, config: &Config, alpha_0: f64) -> Vec<(Amount, Schedule<'a>)> {
    let or = |given: &'a [usize], default: &'static [usize]| if given.is_empty() { default } else { given };
    match config.variant {
        // Nothing is left to steps of diffusion.
        _ if alpha_0 == 0.0 => vec![(Amount::Tokens(1), Schedule::Reference)],
        Variant::WeDlm => {
            let windows = or(&args.window, &[4, 16]).iter();
            windows.map(|&window| (Amount::Window(window), Schedule::Reference)).collect()
        }
        Variant::Ar => vec![(Amount::Tokens(1), Schedule::Reference)],
        _ if args.schedule.is_empty() => {
            let steps = or(&args.steps, &[16, 64]).iter();
            steps.map(|&steps| (Amount::Steps(steps), Schedule::Reference)).collect()
        }
        _ => {
            let with =
                |count: &'a u32| (Amount::Tokens(*count), Schedule::Custom(std::slice::from_ref(count)));
            args.schedule.iter().map(with).collect()
        }
    }
}

/// Refuses an option that acts on none of the models.
fn check_amounts(args: &Args, subjects: &[Subject]) -> Result<()> {
    let has = |fits: fn(Variant) -> bool| subjects.iter().any(|s| fits(s.model.config().variant));
    let has_steps = has(|v| !matches!(v, Variant::WeDlm | Variant::Ar));
    let without = "WeDLM has --window in place of it, and an autoregressive model writes one token a step";
    for (given, fits, what) in [
        (!args.window.is_empty(), has(|v| v == Variant::WeDlm), "--window: none of the models is WeDLM"),
        (!args.steps.is_empty(), has_steps, &format!("--steps: {without}")),
        (!args.schedule.is_empty(), has_steps, &format!("--schedule: {without}")),
        (args.mdlm_steps.is_some(), has(|v| v == Variant::Mdlm), "--mdlm-steps: none of the models is MDLM"),
    ] {
        if given && !fits {
            return Err(Error::InvalidArgument(what.into()));
        }
    }
    Ok(())
}

/// Parameters of a case, but for its schedule.
fn params(
    args: &Args,
    alpha_0: f64,
    amount: Amount,
    config: &Config,
    length: usize,
) -> GenerateParams<'static> {
    let length = whole_length(length, config);
    let window = |window| Adaptive { window, ..Adaptive::WEDLM };
    GenerateParams {
        alpha_0,
        steps: match amount {
            // The library takes those of a block.
            Amount::Steps(steps) if config.block_length > 0 => {
                steps.div_ceil(length.div_ceil(config.block_length))
            }
            Amount::Steps(steps) => steps,
            Amount::Tokens(_) | Amount::Window(_) => 0,
        },
        adaptive: match amount {
            Amount::Window(size) if alpha_0 == 1.0 => Some(window(size)),
            _ => None,
        },
        sampling: SamplingParams { top_p: args.top_p, ..SamplingParams::FULL },
        ignore_eos: true,
        ..GenerateParams::default()
    }
}

/// Checks the numbers that the options give.
fn check(args: &Args) -> Result<()> {
    let mdlm = args.mdlm_steps == Some(0);
    if args.repeat == 0 || args.batch.contains(&0) || args.schedule.contains(&0) || mdlm {
        return Err(Error::InvalidArgument(
            "--repeat, --batch, --schedule and --mdlm-steps must be at least 1".into(),
        ));
    }
    check_diffusion(&args.alpha0, &args.steps)?;
    if !(args.top_p > 0.0 && args.top_p <= 1.0 || args.top_p == SamplingParams::AUTO) {
        return Err(Error::InvalidArgument(format!("--top-p is {}, not above 0 to 1, or -1", args.top_p)));
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
        return Ok(vec![Subject::open(name, None, || args.model.open(&args.compute.device))?]);
    };
    let kinds = kinds(args, shape)?;
    let subject = |(&ty, &kind): (&TensorType, &Kind)| {
        let layout = QuantizeOptions { layout: args.layout, ..QuantizeOptions::new(ty) };
        let file = SyntheticModel::write(&config(args, shape, kind)?, &layout)?;
        let options = args.model.load_options(&args.compute.device);
        let name = if kinds.len() > 1 { format!("{kind} {}", ty.name()) } else { ty.name().into() };
        Subject::open(name, Some((ty, kind)), || file.open(&options))
    };
    args.types.iter().flat_map(|ty| kinds.iter().map(move |kind| (ty, kind))).map(subject).collect()
}

/// Writes the synthetic model to `path`, whole or not at all.
fn write_model(args: &Args, shape: Shape, path: &Path) -> Result<ExitCode> {
    let (&[ty], &[kind]) = (args.types.as_slice(), kinds(args, shape)?.as_slice()) else {
        return Err(Error::InvalidArgument(
            "--write takes one --type and --variant: it writes one file".into(),
        ));
    };
    let options = QuantizeOptions { force: args.force, layout: args.layout, ..QuantizeOptions::new(ty) };
    synthetic::create(&config(args, shape, kind)?, FileOrPath::Path(path), &options)?;
    Ok(ExitCode::SUCCESS)
}

/// The hyperparameters of a synthetic model.
fn config(args: &Args, shape: Shape, kind: Kind) -> Result<Config> {
    let length = args.length.iter().copied().max().unwrap_or(0);
    let config = Config { block_length: kind.block, ..shape.config(kind.variant, length) };
    // Of its hyperparameters, the options say the length and the block alone.
    let of = if kind.block > 0 { format!("--variant {kind}, ") } else { String::new() };
    config.validate().map_err(|what| Error::InvalidArgument(format!("{of}--length {length}: {what}")))?;
    Ok(config)
}

/// The variants that are meant.
fn kinds(args: &Args, shape: Shape) -> Result<Vec<Kind>> {
    let qwen = matches!(shape, Shape::Qwen3Tiny | Shape::Qwen3Small | Shape::Qwen25 | Shape::Qwen3);
    let own = Kind { variant: if qwen { Variant::WeDlm } else { Variant::EsoB }, block: 0 };
    let kinds = if args.variant.is_empty() { vec![own] } else { args.variant.clone() };
    let fits = |kind: &&Kind| match kind.variant {
        Variant::WeDlm => qwen,
        Variant::Ar => true,
        _ => !qwen,
    };
    match kinds.iter().find(|kind| !fits(kind)) {
        None => Ok(kinds),
        Some(kind) => Err(Error::InvalidArgument(format!("there is no --variant {kind} of this shape"))),
    }
}
