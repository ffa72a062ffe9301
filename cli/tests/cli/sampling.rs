//! How the tokens of `esolm generate` are drawn, and by how many threads.

#[cfg(target_os = "linux")]
use std::io::{BufRead, BufReader};
#[cfg(target_os = "linux")]
use std::process::{Command, Stdio};

use crate::command_line::{built_in, err, esolm, esolm_reading, out};

#[test]
fn threads_do_not_change_the_text() {
    let args = ["generate", "-q", "-p", "Once upon", "--alpha0", "0.5", "--steps", "4", "--seed", "3"];
    let text = out(&esolm(&args));
    assert!(text.len() > 100, "{text}");
    for threads in [
        &["--threads", "3"][..],
        &["--threads", "2", "--poll", "0"],
        #[cfg(target_os = "linux")]
        &["--threads", "2", "--cpus", "0"],
        #[cfg(target_os = "linux")]
        &["--threads", "2", "--nice", "1"],
    ] {
        assert_eq!(out(&esolm(&[&args[..], threads].concat())), text, "{threads:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn threads_may_give_way_to_other_programs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
    command.args(["generate", "--json", "--batch", "64", "--ignore-eos", "--threads", "2", "--nice", "3"]);
    command.env_remove("ESOLM_MODEL").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let tasks = format!("/proc/{}/task", child.id());
    // Fields behind the name, which ends with a parenthesis: the nice value is the 19th of all.
    let nice = |task: &str| -> i32 {
        let stat = std::fs::read_to_string(format!("{tasks}/{task}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    let all: Vec<i32> = std::fs::read_dir(&tasks)
        .unwrap()
        .map(|task| nice(task.unwrap().file_name().to_str().unwrap()))
        .collect();
    let own = nice(&child.id().to_string());
    child.kill().unwrap();
    child.wait().unwrap();
    // It adds to that of the process, which may be nice itself, up to the system's 19.
    assert!(all.contains(&(own + 3).min(19)), "{own}, of all {all:?}");
}

#[test]
fn filters_and_penalties_change_the_text() {
    let base = ["generate", "-q", "-p", "The king and the king and the", "-n", "48", "--seed", "3"];
    let text = |more: &[&str]| {
        let output = esolm(&[&base[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        out(&output)
    };
    let greedy = text(&["--temp", "0"]);
    assert_eq!(text(&["--min-p", "1"]), greedy);
    assert_eq!(text(&["--top-n-sigma", "0.000001"]), greedy);
    let plain = text(&[]);
    assert_eq!(text(&["--typical", "1", "--min-p", "0", "--top-n-sigma", "0"]), plain);
    for changed in [
        &["--typical", "0.3"][..],
        &["--frequency-penalty", "-20"],
        &["--presence-penalty", "20"],
        &["--dry-multiplier", "100", "--dry-allowed-length", "1", "--dry-base", "1.1", "--dry-range", "20"],
    ] {
        assert_ne!(text(changed), plain, "{changed:?}");
    }
    // A breaker in every token: nothing is repeated.
    let dry = ["--dry-multiplier", "100", "--dry-allowed-length", "1"];
    let vowels = ["a", "e", "i", "o", "u", "y", ".", ","].map(|text| ["--dry-sequence-breaker", text]);
    assert_eq!(text(&[&dry[..], &vowels.concat()].concat()), plain);
    assert_ne!(text(&[&dry[..], &["--dry-sequence-breaker", "none"]].concat()), plain);
    let output = esolm(&["generate", "--min-p", "2"]);
    assert!(err(&output).contains("min_p is 2, not in 0..=1"), "{}", err(&output));
}

#[test]
fn dry_has_no_breakers_by_default_as_in_the_library() {
    let prompt = "Once upon a time";
    let dry = ["--dry-multiplier", "100", "--dry-allowed-length", "1"];
    let text = |more: &[&str]| {
        let base = ["generate", "-q", "-p", prompt, "-n", "80", "--temp", "0"];
        let output = esolm(&[&base[..], &dry, more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        out(&output)
    };
    let model = esolm::Model::open(built_in(), &esolm::LoadOptions::default()).unwrap();
    let mut context = esolm::Context::new(&model, &esolm::ContextParams::default()).unwrap();
    let prompt = esolm::Prompt::prefix(&model.tokenizer().unwrap().encode(prompt).unwrap()).unwrap();
    let dry = esolm::Dry { multiplier: 100.0, allowed_length: 1, ..esolm::Dry::default() };
    let rules = [esolm::Constraints { dry, ..esolm::Constraints::default() }];
    let params = esolm::GenerateParams {
        max_tokens: 80,
        sampling: esolm::SamplingParams { temperature: 0.0, ..esolm::SamplingParams::default() },
        constraints: &rules,
        ..esolm::GenerateParams::default()
    };
    context.begin(&[prompt], &params).unwrap();
    while context.step().unwrap().is_some() {}
    assert_eq!(text(&[]).trim_end(), context.text(0).unwrap().trim_end());
    assert_eq!(text(&["--dry-sequence-breaker", "none"]), text(&[]));
    // What followed a breaker before may follow it again.
    assert_ne!(text(&["--dry-sequence-breaker", "."]), text(&[]));
}

#[test]
fn grammars_rule_the_text() {
    let base = ["generate", "-q", "-n", "48", "--seed", "3"];
    let write = |more: &[&str]| esolm(&[&base[..], more].concat());
    let output = write(&["-p", "The girl was", "--regex", " [0-9]{1,2} years old\\."]);
    let text = out(&output);
    let years =
        text.trim_end().strip_prefix("The girl was ").and_then(|t| t.strip_suffix(" years old.")).unwrap();
    assert!(years.parse::<u32>().is_ok(), "{text}");
    // A hole, from left to right.
    let hole = ["generate", "-q", "--template", "She is{{mask 4}} years old.", "--regex", "[0-9 ]+"];
    let output = esolm(&hole);
    let text = out(&output);
    let hole = text.trim_end().strip_prefix("She is").and_then(|t| t.strip_suffix(" years old.")).unwrap();
    assert!(hole.chars().all(|c| c.is_ascii_digit() || c == ' '), "{text}");

    let schema = r#"{"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"],
                     "additionalProperties": false}"#;
    let output = esolm_reading(&[&base[..], &["--json-schema", "-", "--temp", "0.3"]].concat(), schema);
    let value: serde_json::Value = serde_json::from_str(out(&output).trim()).unwrap();
    assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()), "{value}");

    for (bad, says) in [
        (&["--regex", "("][..], "regex: "),
        (&["--regex", "a", "--steps", "4"], "from left to right"),
        (&["--template", "A{{mask 3}}b{{mask 3}}", "--regex", "a"], "several holes"),
        (&["--json-schema", "/nowhere.json"], "/nowhere.json"),
        (&["--json-schema", "a", "--regex", "a"], "cannot be used with"),
    ] {
        let output = write(bad);
        assert!(!output.status.success() && err(&output).contains(says), "{bad:?}: {}", err(&output));
    }
}

#[test]
fn json_has_the_most_likely_tokens() {
    let output = esolm(&["generate", "--json", "-n", "16", "--top-log-probs", "3", "--seed", "2"]);
    let steps: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for update in steps.iter().filter_map(|step| step["updates"].as_array()).flatten() {
        let top = update["top_log_probs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        let log_prob = |entry: &serde_json::Value| entry["log_prob"].as_f64().unwrap();
        assert!(top.is_sorted_by(|a, b| log_prob(a) >= log_prob(b)), "{update}");
        for entry in top.iter().filter(|entry| entry["token"] == update["token"]) {
            assert!((log_prob(entry) - log_prob(update)).abs() < 1e-4 && entry["text"] == update["text"]);
        }
    }
    assert!(err(&esolm(&["generate", "--top-log-probs", "3"])).contains("--json"));
}

/// Eso-LM (B), the built-in model's variant, slides a window, too.
#[test]
fn window_slides_and_may_choose_its_size() {
    let write = |window: &str, threads: &str| {
        let args = ["generate", "--json", "-n", "48", "--seed", "5", "--ignore-eos", "--threads", threads];
        esolm(&[&args[..], &["--window", window]].concat())
    };
    let report = |window: &str, threads: &str| {
        let output = write(window, threads);
        assert_eq!(output.status.code(), Some(0), "{window}: {}", err(&output));
        let report: serde_json::Value = serde_json::from_str(out(&output).lines().last().unwrap()).unwrap();
        assert_eq!(report["tokens_written"], 48);
        (report["steps"].as_u64().unwrap(), report["texts"][0].as_str().unwrap().to_owned())
    };
    let steps = |window: &str| report(window, "1").0;
    // A place in each pass, as nobody is certain enough; and as many as the window has.
    assert_eq!((steps("1"), steps("16:0"), steps("16:100:0")), (48, 48, 3));
    // The size depends on the text and not on a clock.
    let auto = report("auto:2", "1");
    assert!((4..48).contains(&auto.0), "{}", auto.0);
    assert_eq!(report("auto:2", "2"), auto);
    for wrong in ["", "x", "auto:x", "16:0.4:0.02:1", "auto,16"] {
        let output = write(wrong, "1");
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(err(&output).contains("W, W:X or W:X:P, where W is a number or auto"), "{}", err(&output));
    }
}
