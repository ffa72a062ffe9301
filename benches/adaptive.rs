//! Adaptive steps against fixed schedules with the default model: passes, time, how likely the model itself finds the
//! texts, and how varied they are.
//!
//! `cargo bench --bench adaptive [-- TEXTS]` prints the table of `docs/adaptive.md` and writes `docs/adaptive.svg`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::fmt::Write;

use esolm::{
    Adaptive, Confidence, Context, ContextParams, GenerateParams, LoadOptions, Model, Order, Prompt,
    SamplingParams, Schedule,
};

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
                let adaptive = Some(Adaptive { confidence, threshold, window: WINDOW });
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
    std::fs::write(format!("{root}/docs/adaptive.svg"), plot(&series)).unwrap();
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
fn plot(series: &[(String, Vec<Row>)]) -> String {
    const COLOURS: [&str; 4] = ["#444444", "#c0392b", "#2471a3", "#1e8449"];
    let rows = || series.iter().flat_map(|(_, rows)| rows);
    let bounds = |values: Vec<f64>| {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        (low - 0.05 * (high - low), high + 0.05 * (high - low))
    };
    let x_bounds = bounds(rows().map(|row| row.passes.log2()).collect());
    let y_bounds = bounds(rows().map(|row| row.nll.0).collect());
    let x = |passes: f64| 70.0 + 480.0 * (passes.log2() - x_bounds.0) / (x_bounds.1 - x_bounds.0);
    let y = |nll: f64| 380.0 - 350.0 * (nll - y_bounds.0) / (y_bounds.1 - y_bounds.0);
    let mut svg = String::from(concat!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 430" font-family="sans-serif" font-size="12">"#,
        "\n",
        r#"<rect width="780" height="430" fill="white"/>"#,
        "\n",
        r##"<path d="M70 30V380H550" fill="none" stroke="#888"/>"##,
        "\n",
        r#"<text x="310" y="420" text-anchor="middle">passes for 128 tokens (logarithmic)</text>"#,
        "\n",
        r#"<text transform="translate(20 205) rotate(-90)" text-anchor="middle">NLL per token, nats</text>"#,
        "\n",
    ));
    for passes in [16.0, 32.0, 64.0, 128.0] {
        let at = x(passes);
        writeln!(svg, r#"<text x="{at:.0}" y="397" text-anchor="middle">{passes}</text>"#).unwrap();
    }
    let steps = (y_bounds.0 * 2.0).ceil() as i32..=(y_bounds.1 * 2.0).floor() as i32;
    for nll in steps.map(|half| f64::from(half) / 2.0) {
        let at = y(nll) + 4.0;
        writeln!(svg, r#"<text x="62" y="{at:.0}" text-anchor="end">{nll}</text>"#).unwrap();
    }
    for (number, (title, rows)) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let dash = if number < COLOURS.len() { "" } else { r#" stroke-dasharray="5 4""# };
        let points: Vec<String> =
            rows.iter().map(|row| format!("{:.1},{:.1}", x(row.passes), y(row.nll.0))).collect();
        let line = points.join(" ");
        writeln!(svg, r#"<polyline points="{line}" fill="none" stroke="{colour}"{dash}/>"#).unwrap();
        for row in rows {
            let (cx, cy) = (x(row.passes), y(row.nll.0));
            writeln!(svg, r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="3" fill="{colour}"/>"#).unwrap();
        }
        let at = 40 + number * 20;
        writeln!(svg, r#"<path d="M575 {at}h30" stroke="{colour}"{dash}/>"#).unwrap();
        writeln!(svg, r#"<text x="612" y="{}">{title}</text>"#, at + 4).unwrap();
    }
    svg.push_str("</svg>\n");
    svg
}
