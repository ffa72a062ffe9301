//! --json: every subcommand prints the fields that docs/cli.md lists, all of them and no others.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::command_line::{
    built_in, err, esolm, esolm_reading, golden, golden_with_words, library_file, out,
};

/// The version of the fields.
const SCHEMA: u64 = 1;

/// Adds the names of all fields of a value: `a.b` is a field of an object, `a[].b` one of the objects of an array.
pub fn add_fields(value: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                // Keys of a model file are data.
                let name = if path == "metadata" { "*" } else { name };
                add_fields(value, &format!("{path}{}{name}", if path.is_empty() { "" } else { "." }), fields);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            values.iter().for_each(|value| add_fields(value, &format!("{path}[]"), fields));
        }
        _ => drop(fields.insert(path.to_owned())),
    }
}

/// The fields that the document lists under a heading: the first cells of its table.
pub fn documented(heading: &str) -> BTreeSet<String> {
    let document = std::fs::read_to_string(library_file("docs/cli.md")).unwrap();
    let (_, section) = document.split_once(&format!("\n### {heading}\n")).expect(heading);
    let table = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    rows.flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Runs a command in several ways, which together print every field.
fn check(command: &str, runs: &[(&[&str], &str)]) {
    let mut printed = BTreeSet::new();
    for (args, input) in runs {
        let args = [&[command], *args, &["--json"]].concat();
        let output = esolm_reading(&args, input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
        let text = out(&output);
        assert!(command == "generate" || text.lines().count() == 1, "{command}: one object, on one line");
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["schema"], SCHEMA, "{command}");
            add_fields(&value, "", &mut printed);
        }
    }
    assert_eq!(
        printed,
        documented(&format!("{command} --json")),
        "{command}: what is printed, and what docs/cli.md lists"
    );
}

#[test]
fn json_has_the_documented_fields() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (tiny, small, new) = (path("tiny.gguf"), path("small.gguf"), path("new"));
    check("convert", &[(&[&golden("checkpoint.ckpt"), "-o", &tiny, "--type", "f32"], "")]);
    check("quantize", &[(&[&tiny, &small, "--type", "q8_0"], "")]);
    let text = "the quick brown fox jumps over the lazy dog and does it again";
    let file = path("text.txt");
    std::fs::write(&file, text).unwrap();
    let one = ["-t", "1"];
    let with = |args: &[&'static str]| [args, &one[..]].concat();
    check("imatrix", &[(&[&built_in(), &file, "-o", &new, "--length", "8", "--pieces", "1"], "")]);
    check(
        "generate",
        &[
            (&with(&["-n", "4", "--top-log-probs", "2"]), ""),
            // Tokens that are no whole characters.
            (&with(&["--allow", "0=#170", "--length", "1", "--top-log-probs", "4000"]), ""),
        ],
    );
    check("score", &[(&with(&["-", "--draws", "2"]), text)]);
    check(
        "evaluate",
        &[(&with(&["--length", "8", "--samples", "2", "--steps", "2", "--draws", "1", "--text", "-"]), text)],
    );
    let quality = ["--text", &file, "--length", "8", "--steps", "2", "--windows", "1", "-t", "1"];
    check("quality", &[(&[&[tiny.as_str(), &small], &quality[..]].concat(), "")]);
    check("inspect", &[(&[], ""), (&[&small], "")]);
    check("tokenize", &[(&["Once upon"], "")]);
    check("detokenize", &[(&["1", "2"], "")]);
    check("verify", &[(&[&tiny, &golden("golden.safetensors")], "")]);
    check("bench", &[(&with(&["--length", "8", "--steps", "2", "--repeat", "1"]), "")]);
    check("devices", &[(&[], "")]);
    check("version", &[(&[], "")]);
}

#[test]
fn tokens_that_the_tokenizer_does_not_have_are_shown_by_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    // 96 tokens for 512 rows.
    let model = golden_with_words("wedlm-qwen3", dir.path());
    let args = ["generate", "-m", &model, "-p", "w3 w5", "-n", "16", "--seed", "3", "--allow", "3=#400"];
    let output = esolm(&[&args[..], &["--json", "--top-log-probs", "3"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let lines: Vec<Value> = out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let updates = lines.iter().filter_map(|line| line["updates"].as_array()).flatten();
    let update = updates.clone().find(|update| update["token"] == 400).expect("the token that was asked for");
    assert!(update["text"].is_null() && update["bytes"].is_null(), "{update}");
    let tops: Vec<&Value> =
        updates.filter_map(|update| update["top_log_probs"].as_array()).flatten().collect();
    assert!(tops.iter().any(|top| top["token"].as_u64() >= Some(96)), "{tops:?}");
}

#[test]
fn json_goes_to_a_file_beside_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = path("text.txt");
    std::fs::write(&text, "Once upon a time there was a king. ".repeat(4)).unwrap();
    let small = ["--length", "8", "-t", "1", "--steps", "2"];
    for (command, options, words) in [
        ("evaluate", &["--samples", "2", "--alpha0", "1"][..], "| alpha_0 |"),
        ("quality", &[&built_in(), &built_in(), "--windows", "1", "--text", &text], "| same top |"),
        ("bench", &["--repeat", "1"], "tokens/s"),
    ] {
        let file = path(command);
        let output = esolm(&[&[command], options, &small, &["--json-file", &file]].concat());
        assert!(out(&output).contains(words), "{command}: {}", err(&output));
        let json = std::fs::read(&file).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap()["schema"], SCHEMA);
        let output = esolm(&[&[command], options, &small, &["--json-file", &file, "--json"]].concat());
        assert_eq!(output.stdout, std::fs::read(&file).unwrap(), "{command}");
    }
}

#[test]
fn tokens_as_json_are_read_again() {
    let ids = out(&esolm(&["tokenize", "Once upon a time", "--json"]));
    let text: Value = serde_json::from_str(&out(&esolm_reading(&["detokenize", "--json"], &ids))).unwrap();
    assert_eq!(text["text"], "Once upon a time");
    let written = esolm_reading(&["run", "-q", "-n", "2", "-s", "1", "--prompt-ids", "-"], &ids);
    assert!(out(&written).starts_with("Once upon a time"), "{}", err(&written));
    for wrong in ["{", "{}", "{\"tokens\": 1.5}", "{\"tokens\": [-1]}"] {
        let refused = esolm_reading(&["detokenize"], wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {}", out(&refused));
    }
    let long = esolm_reading(&["detokenize"], "x".repeat(1 << 20));
    assert!(long.status.code() == Some(2) && err(&long).len() < 200, "{}", err(&long));
}
