//! Adaptive steps against fixed schedules with the default model: passes, time, how likely the model itself finds the
//! texts, and how varied they are.
//!
//! `cargo bench --bench adaptive [-- TEXTS]` prints the table of `docs/adaptive.md` and writes `docs/adaptive.svg`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../cli/src/plot/mod.rs"]
#[allow(dead_code, unused_imports, reason = "parts of it are for the command and for its tests")]
mod plot;

use std::collections::HashMap;

use esolm::{
    Adaptive, Confidence, Context, ContextParams, GenerateParams, LoadOptions, Model, Order, Prompt,
    SamplingParams, Schedule,
};
use plot::{Axis, Plot, Point, Series};

const LENGTH: usize = 128;
const WINDOW: usize = 8;

/// Means over the texts of one way of writing them.
struct Row {
    name: String,
    passes: f64,
    /// Of the one thread, on the CPU: what else the machine does is not in it.
    milliseconds: f64,
    /// Per token in nats: minus the model's log-probability from left to right, and its standard error over texts.
    nll: (f64, f64),
    /// Entropy in nats of the tokens of a text.
    entropy: f64,
}

fn main() {
    let texts = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(8);
    let root = env!("CARGO_MANIFEST_DIR");
    let model = Model::open(format!("{root}/models/stories-q8_0.gguf"), &LoadOptions::default()).unwrap();
    let params = ContextParams { length: LENGTH, threads: 1, ..ContextParams::default() };
    let mut context = Context::new(&model, &params).unwrap();
    let mut series = vec![];
    for (order, title) in [(Order::Random, "random order"), (Order::LeftToRight, "left to right")] {
        let base = GenerateParams {
            length: LENGTH,
            alpha_0: 1.0,
            ignore_eos: true,
            order,
            sampling: SamplingParams { top_p: 0.9, ..SamplingParams::FULL },
            ..GenerateParams::default()
        };
        let fixed = [[1], [2], [3], [4], [8]].iter().map(|count| {
            let params = GenerateParams { schedule: Schedule::Custom(count), ..base };
            measure(&mut context, format!("{title}, {} per step", count[0]), params, texts)
        });
        series.push((format!("{title}, fixed"), fixed.collect::<Vec<_>>()));
        let measures: [(Confidence, &str, &[f32]); 3] = [
            (Confidence::Probability, "conf", &[0.8, 0.5, 0.2]),
            (Confidence::Margin, "margin", &[0.3, 0.1]),
            (Confidence::Entropy, "entropy", &[1.0, 3.0]),
        ];
        for (confidence, name, thresholds) in measures {
            let adaptive = thresholds.iter().map(|&threshold| {
                let adaptive =
                    Some(Adaptive { confidence, threshold, window: WINDOW, ..Adaptive::default() });
                let params = GenerateParams { adaptive, ..base };
                measure(&mut context, format!("{title}, {name}:{threshold}"), params, texts)
            });
            series.push((format!("{title}, {name}"), adaptive.collect()));
        }
    }
    println!("| | passes | ms of CPU per text | NLL per token | entropy |\n|---|---|---|---|---|");
    for (_, rows) in &series {
        for Row { name, passes, milliseconds, nll: (nll, error), entropy } in rows {
            println!("| {name} | {passes:.1} | {milliseconds:.0} | {nll:.2} ± {error:.2} | {entropy:.2} |");
        }
    }
    std::fs::write(format!("{root}/docs/adaptive.svg"), plot(&series, texts).svg()).unwrap();
}

fn measure(context: &mut Context, name: String, params: GenerateParams<'_>, texts: usize) -> Row {
    let left_to_right: Vec<u32> = (0..LENGTH as u32).collect();
    let (mut passes, mut seconds, mut entropy) = (0, 0.0, 0.0);
    let mut nlls = vec![];
    for seed in 0..texts as u64 {
        let started = cpu_seconds();
        context.begin(&[Prompt::default()], &GenerateParams { seed, ..params }).unwrap();
        while context.step().unwrap().is_some() {}
        seconds += cpu_seconds() - started;
        passes += context.progress().0;
        let tokens = context.tokens(0).unwrap().to_vec();
        entropy += token_entropy(&tokens);
        nlls.push(
            -context.score_order(&tokens, &left_to_right, 0).unwrap().iter().sum::<f64>() / LENGTH as f64,
        );
    }
    let n = texts as f64;
    let mean = nlls.iter().sum::<f64>() / n;
    let variance = nlls.iter().map(|nll| (nll - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Row {
        name,
        passes: passes as f64 / n,
        milliseconds: seconds * 1e3 / n,
        nll: (mean, (variance / n).sqrt()),
        entropy: entropy / n,
    }
}

/// Time that this thread has run (Linux).
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e-9
}

fn token_entropy(tokens: &[u32]) -> f64 {
    let mut counts = HashMap::new();
    tokens.iter().for_each(|token| *counts.entry(token).or_insert(0.0) += 1.0 / tokens.len() as f64);
    counts.values().map(|p: &f64| -p * p.ln()).sum()
}

/// Passes (logarithmic) against NLL, a line per series.
fn plot(series: &[(String, Vec<Row>)], texts: usize) -> Plot {
    let point = |row: &Row| Point { x: row.passes, y: row.nll.0, label: String::new() };
    let line = |(name, rows): &(String, Vec<Row>)| Series {
        name: name.clone(),
        points: rows.iter().map(point).collect(),
        line: true,
    };
    Plot {
        title: "Likelihood of samples against passes".into(),
        note: format!("seeds 0 to {}, a text of {LENGTH} tokens each, top-p 0.9", texts - 1),
        x: Axis { label: format!("passes for {LENGTH} tokens"), log: true },
        y: Axis { label: "NLL per token, nats".into(), log: false },
        series: series.iter().map(line).collect(),
    }
}
