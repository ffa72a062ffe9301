//! The programs in examples/ run with the default model, as their comments say, and print what they should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs an example with cargo, which builds it first if this test was run alone, and in the same target directory, so
/// that nothing is compiled twice.
fn run(example: &str, arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["run", "--quiet", "--example", example, "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo.arg("--").args(arguments).output().unwrap()
}

/// What an example prints with the default model and a text; it must succeed.
fn output(example: &str, text: &str) -> (String, String) {
    let output = run(example, &["models/stories-q8_0.gguf", text]);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{example}: {stderr}");
    (stdout, stderr)
}

#[test]
fn generate_continues_the_prompt_and_reports_each_step() {
    let (text, steps) = output("generate", "A girl had a dog");
    assert!(text.starts_with("A girl had a dog"), "{text}");
    assert!(text.trim_end().len() > "A girl had a dog".len(), "{text}");
    assert!(steps.starts_with("step 1 of "), "{steps}");
    let positions: usize = steps.lines().map(|line| line.matches(", ").count() + 1).sum();
    // 64 tokens, of which the prompt has 5.
    assert_eq!(positions, 64 - 5, "{steps}");
    assert_eq!(output("generate", "A girl had a dog").0, text, "the seed is fixed");
}

#[test]
fn infill_keeps_the_text_around_the_hole() {
    let (text, _) = output("infill", "The fox{{mask 12}} went home.");
    assert!(text.starts_with("The fox"), "{text}");
    assert!(text.ends_with(" went home.\n"), "{text}");
    assert!(text.len() > "The fox went home.\n".len(), "{text}");
}

#[test]
fn lookahead_takes_fewer_steps() {
    let (texts, counts) = output("lookahead", "The fox{{mask 40}} went home.");
    assert_eq!(texts.lines().filter(|line| line.starts_with("The fox")).count(), 3, "{texts}");
    let steps = |line: &str| -> usize {
        let rest = line.strip_prefix("40 tokens in ").unwrap_or_else(|| panic!("{line}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let steps: Vec<usize> = counts.lines().map(steps).collect();
    assert!(steps[0] == 40 && steps[1] < 25 && steps[2] < 35, "{counts}");
}

#[test]
fn score_prints_a_number_for_each_token_and_their_mean() {
    let likely = perplexity("Once upon a time there was a king.");
    let unlikely = perplexity("king a was there time a upon Once.");
    assert!(1.0 < likely && likely < unlikely, "{likely} {unlikely}");
}

#[test]
fn json_matches_the_schema() {
    let (printed, _) = output("json", "There was a dog. ");
    let value: serde_json::Value =
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 3, "{printed}");
    assert!(["cat", "dog", "fish"].contains(&value["animal"].as_str().unwrap()), "{printed}");
    assert!((0..=8).contains(&value["legs"].as_u64().unwrap()), "{printed}");
}

#[test]
fn fill_mask_prints_the_likeliest_tokens_for_each_mask() {
    let (printed, _) = output("fill_mask", "There was a little[MASK] who had a dog named[MASK].");
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 10, "{printed}");
    for of_one in lines.chunks(5) {
        let probabilities: Vec<f64> = of_one.iter().map(|line| line[1].parse().unwrap()).collect();
        assert!(of_one.iter().all(|line| line[0] == of_one[0][0]), "{printed}");
        assert!(
            probabilities.is_sorted_by(|a, b| a >= b) && probabilities.iter().sum::<f64>() <= 1.0,
            "{printed}"
        );
    }
    assert!(lines[0][0] != lines[5][0] && printed.contains("girl"), "{printed}");
}

/// The perplexity that the example prints, which must be that of the tokens' numbers.
fn perplexity(text: &str) -> f64 {
    let (printed, _) = output("score", text);
    let mut lines: Vec<&str> = printed.lines().collect();
    let summary = lines.pop().unwrap();
    let (mut sum, mut joined) = (0.0, String::new());
    for line in &lines {
        let (number, token) = line.trim_start().split_once("  ").unwrap();
        sum += number.parse::<f64>().unwrap();
        joined.push_str(token.trim_matches('"'));
    }
    assert_eq!(joined, text);
    let (nats, perplexity) = summary.split_once(" nats per token, perplexity ").unwrap();
    assert!((nats.parse::<f64>().unwrap() + sum / lines.len() as f64).abs() < 2e-3, "{printed}");
    perplexity.parse().unwrap()
}

#[test]
fn examples_say_how_to_use_them() {
    for (example, usage) in
        [("generate", "[PROMPT]"), ("infill", "[TEMPLATE]"), ("score", "[TEXT]"), ("fill_mask", "[TEXT]")]
    {
        let output = run(example, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(error.contains(&format!("usage: {example} MODEL {usage}")), "{error}");
    }
}
