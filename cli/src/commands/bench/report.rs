//! What `esolm bench` reports: a table, where a step's time goes, a plot, JSON.

use esolm::{Context, GenerateParams, Result, Variant};
use serde_json::{Value, json};

use super::case::{Amount, Case, Subject};
use super::floor::Floor;
use super::machine::Machine;
use super::options::Args;
use crate::args::kernels_name;
use crate::memory;
use crate::output::short;
use crate::plot::{Axis, Plot, Point, Series};

pub fn table(args: &Args, machine: &Machine, subjects: &[Subject], cases: &[Case<'_>]) -> String {
    let mut text = format!(
        "{}, {} threads: reads {:.1} GB/s, {:.0} G operations/s (int8), {:.0} (f32)\n\n",
        machine.processor,
        machine.threads,
        machine.bandwidth / 1e9,
        machine.byte_operations / 1e9,
        machine.float_operations / 1e9
    );
    for Subject { model, name, open_seconds, resident, .. } in subjects {
        text += &format!(
            "{name}: {:.0} M parameters, loaded in {:.1} ms, which made {} resident\n",
            model.parameter_count() as f64 / 1e6,
            open_seconds * 1e3,
            memory::describe(*resident),
        );
    }
    text += "\nmodel          kernels  batch  length  alpha_0  T      steps  tokens/s  ms/step  p99 ms/step  of the limit\n";
    for case in cases {
        let (GenerateParams { alpha_0, .. }, steps) = (case.params, case.amount.name());
        let times = &case.times;
        text += &format!(
            "{:14} {:8} {:<6} {:<7} {alpha_0:<8} {steps:<6} {:<6} {:<9.0} {:<8.2} {:<12.2} {}\n",
            case.subject.name,
            kernels_name(case.kernels),
            case.batch,
            times.tokens() / case.batch,
            times.steps(),
            times.speed(),
            times.step_seconds(0.5) * 1e3,
            times.step_seconds(0.99) * 1e3,
            case.floor(args, machine).map_or("-".into(), |floor| {
                format!("{:.0} % ({})", 100.0 * floor.seconds / times.median(), floor.by)
            }),
        );
    }
    text
}

/// The times of the variants over those of the first one, all else being equal. An autoregressive model has neither steps nor
/// alpha_0: it stands beside all of the same length.
pub fn ratios(cases: &[Case<'_>]) -> String {
    let synthetic = || cases.iter().filter_map(|case| Some((case, case.subject.synthetic?)));
    let Some((_, (_, reference))) = synthetic().next() else { return String::new() };
    let is_ar = |case: &Case<'_>| case.subject.model.config().variant == Variant::Ar;
    let mut text = String::new();
    for (first, (ty, _)) in synthetic().filter(|(_, (_, kind))| *kind == reference) {
        let alike = |case: &Case<'_>| {
            (case.kernels, case.batch, case.length) == (first.kernels, first.batch, first.length)
                && (is_ar(case)
                    || is_ar(first)
                    || (case.amount, case.params.alpha_0) == (first.amount, first.params.alpha_0))
        };
        let others: Vec<_> = synthetic()
            .filter(|&(case, (of, kind))| of == ty && kind != reference && alike(case))
            .map(|(case, (_, kind))| {
                let about = if case.times.is_calculated() { "about " } else { "" };
                let which = match is_ar(first) {
                    true => format!(" (alpha_0 {}, T {})", case.params.alpha_0, case.amount.name()),
                    false => String::new(),
                };
                format!("{kind}{which} {about}{:.2}", case.times.median() / first.times.median())
            })
            .collect();
        if !others.is_empty() {
            text += &format!(
                "{}, batch {}, length {}, alpha_0 {}, T {}: {}\n",
                first.subject.name,
                first.batch,
                first.whole_length(),
                first.params.alpha_0,
                first.amount.name(),
                others.join(", ")
            );
        }
    }
    match text.is_empty() {
        true => text,
        false => format!("\nTimes over those of the first variant:\n{text}"),
    }
}

/// How the time of a step is spent, in milliseconds and per cent, in the last generation of each case; and which shares of the time
/// that matrices take reading and multiplying would, at the machine's limits.
pub fn profile(args: &Args, machine: &Machine, cases: &[Case<'_>]) -> String {
    let mut text = String::from(
        "\nWhere a step's time goes, in ms (the last generation of each), and how near matrices come to reading and to int8 or f32:\n",
    );
    for case in cases {
        let (GenerateParams { alpha_0, .. }, steps) = (case.params, case.amount.name());
        text += &format!("{}, batch {}, alpha_0 {alpha_0}, T {steps}:", case.subject.name, case.batch);
        let floor = case.floor(args, machine);
        match case.times.parts() {
            Some(parts) => {
                let whole: f64 = parts.iter().map(|(_, ms)| ms).sum();
                for (name, ms) in parts {
                    text += &format!("  {name} {ms:.3} ({:.0} %", 100.0 * ms / whole);
                    if let Some([reading, multiplying]) = shares(floor.as_ref(), case, name, ms) {
                        text += &format!(
                            "; {:.0} % of reading, {:.0} % of multiplying",
                            100.0 * reading,
                            100.0 * multiplying
                        );
                    }
                    text += ")";
                }
                text += "\n";
            }
            None => text += " not known for ggml's kernels\n",
        }
    }
    text
}

/// Which share of its time, `ms` in each step, a part of a step would take to read its matrices, and to multiply with them, at the
/// machine's limits.
fn shares(floor: Option<&Floor>, case: &Case<'_>, part: &str, ms: f64) -> Option<[f64; 2]> {
    if case.times.is_calculated() {
        return None;
    }
    let least = floor?.part(part)?;
    let seconds = ms / 1e3 * case.times.steps() as f64;
    Some([least.reading / seconds, least.multiplying / seconds])
}

/// Said where something was faster than the limits, which are those of memory: from a cache, or because they were measured too low.
pub fn beyond_limits(args: &Args, machine: &Machine, cases: &[Case<'_>]) -> &'static str {
    let is_beyond = |case: &Case<'_>| {
        let Some(floor) = case.floor(args, machine) else { return false };
        floor.seconds > case.times.median()
            || args.profile
                && case.times.parts().is_some_and(|parts| {
                    let mut all =
                        parts.into_iter().filter_map(|(name, ms)| shares(Some(&floor), case, name, ms));
                    all.any(|shares| shares.iter().any(|share| *share > 1.0))
                })
    };
    match cases.iter().any(is_beyond) {
        true => {
            "\nMore than 100 % of a limit: matrices stay in a cache, or something else kept the machine busy while its \
             limits were measured. In that case measure again.\n"
        }
        false => "",
    }
}

/// Speed over diffusion steps or what takes their place, with a line for each model, kernels, batch and alpha_0. What all cases have
/// in common is in the note, not in the legend.
pub fn plot(args: &Args, cases: &[Case<'_>]) -> Plot {
    let parts = |case: &Case<'_>| {
        [
            case.subject.name.clone(),
            kernels_name(case.kernels).to_string(),
            format!("batch {}", case.batch),
            format!("alpha_0 {}", case.params.alpha_0),
            format!("length {}", case.whole_length()),
            case.amount.kind().to_string(),
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
        let point = Point { x: case.amount.number() as f64, y: case.times.speed(), label: String::new() };
        match series.iter_mut().find(|s| s.name == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name, points: vec![point], line: true }),
        }
    }
    let same = cases.first().map(|case| join(case, false)).filter(|same| !same.is_empty());
    let mut kinds: Vec<&str> = cases.iter().map(|case| case.amount.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let seeds = match args.repeat {
        1 => "seed 0".into(),
        repeat => format!("seeds 0 to {}, medians", repeat - 1),
    };
    Plot {
        title: "Speed, sampling included".into(),
        note: [Some(seeds), same].into_iter().flatten().collect::<Vec<_>>().join("; "),
        x: Axis { label: kinds.join(" or "), log: true },
        y: Axis { label: "tokens/s".into(), log: false },
        series,
    }
}

pub fn json(args: &Args, machine: &Machine, subjects: &[Subject], cases: &[Case<'_>]) -> Result<Value> {
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
            let floor = case.floor(args, machine);
            let memory = Context::memory_use(&case.subject.model, &case.context_params(args))?;
            let sampling = case.params.sampling.resolved(&case.subject.model.config().generation_defaults());
            Ok(json!({
                "model": case.subject.name,
                "kernels": kernels_name(case.kernels),
                "batch": case.batch,
                "alpha_0": case.params.alpha_0,
                "length": case.whole_length(),
                "steps": case.amount.number(),
                "per_step": matches!(case.amount, Amount::Tokens(_)),
                "calculated": case.times.is_calculated(),
                "top_p": short(sampling.top_p),
                "arena_bytes": memory.arena,
                "floor_seconds": floor.map(|floor| floor.seconds),
                "floor_share": floor.map(|floor| floor.seconds / case.times.median()),
                "floor_by": floor.map(|floor| floor.by),
                "shares": case.times.parts().and_then(|parts| {
                    let all = parts.into_iter().filter_map(|(name, ms)| {
                        let [reading, multiplying] = shares(floor.as_ref(), case, name, ms)?;
                        Some((name.to_owned(), json!({ "reading": reading, "multiplying": multiplying })))
                    });
                    Some(all.collect::<serde_json::Map<_, _>>()).filter(|all| !all.is_empty())
                }),
                "times": case.times.json(),
            }))
        })
        .collect::<Result<_>>()?;
    Ok(json!({ "machine": machine.json(), "models": models, "measured": measured }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use esolm::LoadOptions;
    use esolm::gguf::TensorType;
    use esolm::quantize::QuantizeOptions;

    use super::super::measure::Times;
    use super::super::synthetic::{Shape, SyntheticModel};
    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// A machine that reads and multiplies at once is faster than any step, one that takes years slower.
    #[test]
    fn limits_that_a_step_exceeds_are_told() -> Result<()> {
        let args = Command::parse_from(["bench", "--threads", "1"]).args;
        let file = SyntheticModel::write(
            &Shape::Stories.config(Variant::EsoB, 8),
            &QuantizeOptions::new(TensorType::F32),
        )?;
        let load = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
        let subject = Subject::open("stories".into(), None, || file.open(&load))?;
        let mut case = Case {
            subject: &subject,
            kernels: esolm::Kernels::Own,
            batch: 1,
            length: 8,
            amount: Amount::Steps(2),
            params: GenerateParams { steps: 2, ignore_eos: true, ..GenerateParams::default() },
            times: Times::default(),
        };
        let mut context = case.context(&args)?;
        case.times.run(&mut context, 1, &case.params, None)?;
        let said = |speed: f64| {
            let machine = Machine {
                processor: String::new(),
                threads: 1,
                bandwidth: speed,
                byte_operations: speed,
                float_operations: speed,
            };
            beyond_limits(&args, &machine, std::slice::from_ref(&case))
        };
        assert_eq!(said(f64::INFINITY), "");
        assert!(said(1.0).contains("measure again"));
        Ok(())
    }
}
