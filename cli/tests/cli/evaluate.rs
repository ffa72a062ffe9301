//! `esolm evaluate`: the table, the files, and what is refused.

use serde_json::Value;

use crate::command_line::{err, esolm, esolm_reading, library_file, out};

/// Few and short texts.
const SMALL: [&str; 8] = ["--length", "24", "--samples", "3", "--batch", "2", "--threads", "1"];

#[test]
fn evaluation_is_a_table_figures_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (json, again, plot) = (path("out.json"), path("again.json"), path("out.svg"));
    let grid =
        ["evaluate", "--alpha0", "0,1", "--steps", "4,12", "--seed", "3", "--draws", "2", "--text", "-"];
    let text = "Once upon a time there was a girl who had a red ball. ".repeat(20);
    let run = |json: &str| {
        esolm_reading(&[&grid[..], &SMALL, &["--json-file", json, "--plot", &plot]].concat(), &text)
    };
    let measured = run(&json);
    assert_eq!(measured.status.code(), Some(0), "{}", err(&measured));
    let table = out(&measured);
    assert_eq!(table.lines().count(), 2 + 3 + 1, "alpha_0 of 0 has one row: {table}");
    assert!(table.contains("|    text |") && table.contains("bound"), "{table}");
    let read = |file: &str| serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap();
    let report = read(&json);
    let passes: Vec<f64> = (0..3).map(|i| report["rows"][i]["passes"].as_f64().unwrap()).collect();
    assert_eq!(passes[0], 24.0);
    assert!(passes[1] <= 4.0 && passes[2] > passes[1] && passes[2] <= 12.0, "{passes:?}");
    assert_eq!((&report["text"]["samples"], &report["rows"][1]["tokens"]), (&3.into(), &72.into()));
    // The texts are those of `generate`, and the first row's likelihood is that of `score`.
    let generated = ["generate", "--alpha0", "0", "--seed", "3", "--length", "24", "--batch", "2", "--json"];
    let generated: Value = serde_json::from_str(out(&esolm(&generated)).lines().last().unwrap()).unwrap();
    for i in 0..2 {
        assert_eq!(report["rows"][0]["token_ids"][i], generated["tokens"][i]);
    }
    let texts: Vec<&str> = (0..3).map(|i| report["rows"][0]["texts"][i].as_str().unwrap()).collect();
    assert!(texts.iter().all(|text| !text.is_empty()));
    let scores: Vec<Value> = texts
        .iter()
        .map(|text| esolm_reading(&["score", "-", "--draws", "0", "--json", "--threads", "1"], text))
        .map(|output| serde_json::from_slice(&output.stdout).unwrap())
        .collect();
    // A text may have other tokens than those it was written in; these have the same.
    let tokens: Vec<&Value> = scores.iter().map(|score| &score["tokens"]).collect();
    if tokens.iter().zip(0..).all(|(tokens, i)| **tokens == report["rows"][0]["token_ids"][i]) {
        let nll = scores.iter().map(|s| s["in_order"]["nll"].as_f64().unwrap()).sum::<f64>() / 72.0;
        assert!((report["rows"][0]["nll"].as_f64().unwrap() - nll).abs() < 1e-6);
    }
    let picture = std::fs::read_to_string(&plot).unwrap();
    assert!(picture.ends_with("</svg>\n") && picture.matches("<polyline").count() == 2, "{picture}");
    // All but the speed is the same again.
    assert!(run(&again).status.success());
    let without_speed = |mut report: Value| {
        for row in report["rows"].as_array_mut().unwrap() {
            row["tokens_per_second"] = Value::Null;
        }
        report
    };
    assert_eq!(without_speed(read(&again)), without_speed(report));
}

#[test]
fn prompts_are_given_as_to_generate() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompt.txt").display().to_string();
    std::fs::write(&file, "\u{feff}Once upon a time\r\n").unwrap();
    let texts = |more: &[&str], piped: &str| {
        let output =
            esolm_reading(&[&["evaluate", "--alpha0", "0", "--json"], &SMALL[..], more].concat(), piped);
        assert_eq!(output.status.code(), Some(0), "{more:?}: {}", err(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["rows"][0]["texts"].clone()
    };
    let given = texts(&["-p", "Once upon a time"], "");
    assert!(given[0].as_str().unwrap().starts_with("Once upon a time"), "{given}");
    assert_eq!(texts(&["-f", &file], ""), given);
    assert_eq!(texts(&["-p", "-"], "Once upon a time\n"), given);
    assert_eq!(texts(&[], "Once upon a time\n"), given, "piped");
    assert_ne!(texts(&[], ""), given);
    let end = texts(&["-p", "<|endoftext|>The king", "--special"], "");
    assert!(end[0].as_str().unwrap().starts_with("<|endoftext|>The king"), "{end}");
    // What --text reads is no prompt.
    let text = "Once upon a time there was a girl who had a red ball. ".repeat(20);
    assert_eq!(texts(&["--text", "-"], &text), texts(&[], ""));
    let several = esolm(&["evaluate", "-p", "a", "-p", "b"]);
    assert!(
        several.status.code() == Some(2) && err(&several).contains("several prompts"),
        "{}",
        err(&several)
    );
}

/// What takes one alpha_0 alone has it by default, as in `generate`.
#[test]
fn default_alpha_0_is_one_that_the_options_take() {
    let grammar: &[&str] =
        if cfg!(feature = "grammar") { &["--regex", "[a-z ]*"] } else { &["--alpha0", "0"] };
    // Steps mean diffusion, which a grammar takes from left to right.
    let in_steps = [grammar, &["--order", "ltr", "--schedule", "1"]].concat();
    let in_steps = if cfg!(feature = "grammar") { (&in_steps[..], 1.0) } else { (grammar, 0.0) };
    for (options, alpha_0) in
        [(&["--adaptive", "conf:0.5"][..], 1.0), (&["--window", "4"], 1.0), (grammar, 0.0), in_steps]
    {
        let output = esolm(&[&["evaluate", "--json"], &SMALL[..], options].concat());
        assert_eq!(output.status.code(), Some(0), "{options:?}: {}", err(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.len() == 1 && rows[0]["alpha_0"] == alpha_0, "{options:?}: {rows:?}");
    }
    for command in ["evaluate", "generate"] {
        for adaptive in [["--adaptive", "conf:0.5"], ["--window", "4"]] {
            let output = esolm(&[&[command, "--alpha0", "0.5"], &adaptive[..]].concat());
            assert_eq!(output.status.code(), Some(2), "{command} {adaptive:?}");
            let says = format!("{}: it takes an --alpha0 of 1, not 0.5", adaptive[0]);
            assert!(err(&output).contains(&says), "{command}: {}", err(&output));
        }
    }
}

#[test]
fn variants_and_options_are_evaluated_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = |name: &str| {
        let checkpoint = library_file(&format!("tests/golden/{name}/checkpoint.ckpt"));
        let model = dir.path().join(name).display().to_string();
        assert!(esolm(&["convert", &checkpoint, "-o", &model]).status.success());
        model
    };
    let (ar, mdlm) = (model("ar-tiny"), model("mdlm-tiny"));
    let wedlm = dir.path().join("wedlm").display().to_string();
    let folder = library_file("tests/golden/wedlm-qwen3");
    assert!(esolm(&["convert", &folder, "-o", &wedlm]).status.success());
    let evaluate = |more: &[&str]| esolm(&[&["evaluate"], &SMALL[2..], more].concat());
    // An autoregressive model has one way to write.
    let one = evaluate(&["-m", &ar, "--order", "ltr", "--length", "16"]);
    assert_eq!((one.status.code(), out(&one).lines().count()), (Some(0), 3), "{}", err(&one));
    // A judge with another tokenizer reads the text.
    let judged = evaluate(&["--judge", &ar, "--alpha0", "0", "--length", "24"]);
    assert_eq!((judged.status.code(), out(&judged).lines().count()), (Some(0), 3), "{}", err(&judged));
    // What says how many tokens a step writes leaves nothing for --steps to say.
    let scheduled = evaluate(&["--alpha0", "0,1", "--schedule", "4", "--length", "16", "--json"]);
    let report: Value = serde_json::from_slice(&scheduled.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() == 2 && rows.iter().all(|row| row["steps"].is_null()), "{rows:?}");
    let refused = |more: &[&str], code: i32, words: &str| {
        let output = evaluate(more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", err(&output));
        assert!(err(&output).contains(words), "{more:?}: {}", err(&output));
        assert!(out(&output).is_empty());
    };
    // Before any text is drawn.
    refused(&["-m", &mdlm, "--length", "16"], 2, "--judge");
    refused(&["--judge", &ar, "--draws", "1"], 2, "--draws");
    refused(&["-m", &ar, "--alpha0", "0.5"], 2, "this model has only 0");
    refused(&["-m", &wedlm, "--alpha0", "0,0.5"], 2, "only 0 and 1");
    // So do other commands.
    let text = library_file("tests/heldout/stories.txt");
    for args in [&["generate", "-m", &ar, "-q"][..], &["quality", &mdlm, &mdlm, "--text", &text]] {
        let output = esolm(&[args, &["--alpha0", "0.5"]].concat());
        let words = err(&output);
        assert!(output.status.code() == Some(2) && words.contains("this model has only"), "{words}");
    }
    refused(&["--judge", "no-such-file"], 3, "no-such-file");
    refused(&["--text", "no-such-file"], 3, "no-such-file");
    refused(&["--alpha0", "2"], 2, "--alpha0");
    refused(&["--alpha0", "0,-1"], 2, "--alpha0");
    refused(&["--steps", "0"], 2, "--steps");
    refused(&["-m", &ar, "--steps", "4"], 2, "one token a step");
    refused(&["-m", &wedlm, "--steps", "4"], 2, "WeDLM slides a window");
    refused(&["--alpha0", "0", "--steps", "4"], 2, "no row has diffusion steps");
    refused(&["--top-p", "0"], 2, "top_p");
    refused(&["-m", &ar, "--adaptive", "conf:0.5"], 2, "--adaptive: an autoregressive model");
    refused(&["-m", &wedlm], 2, "this model was trained without a token before the text");
    refused(&["-p", "Once upon a time", "--length", "4"], 2, "there is nothing to write");
    // The second row, before the first one, which would take hours.
    let grammar = ["--alpha0", "0,0.5", "--regex", "a*", "--samples", "1000000"];
    let second = esolm(&[&["evaluate"], &grammar[..]].concat());
    assert!(second.status.code() == Some(2) && err(&second).contains("grammar"), "{}", err(&second));
    let none = esolm(&["evaluate", "--samples", "0"]);
    assert!(none.status.code() == Some(2) && err(&none).contains("--samples"), "{}", err(&none));
    let short = esolm_reading(&[&["evaluate", "--text", "-"], &SMALL[..]].concat(), "Once upon a time");
    assert!(short.status.code() == Some(2) && err(&short).contains("--text"), "{}", err(&short));
}
