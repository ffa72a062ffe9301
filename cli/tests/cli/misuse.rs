//! What a person types by mistake, or takes for possible: an error that says so, and nothing lost.

use std::process::Output;

use crate::command_line::{built_in, err, esolm, esolm_reading, golden, out};

/// Checks that a command is refused with exit code 2 and a message.
fn refused(args: &[&str], message: &str) {
    let output = esolm(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
    assert!(err(&output).contains(message), "{args:?}: {}", err(&output));
}

fn chat(lines: &str) -> Output {
    esolm_reading(&["chat", "--template", "chatml", "-n", "4", "-s", "1"], lines)
}

#[test]
fn a_conversation_replaces_another_and_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let [other, own] = ["notes.txt", "own.json"].map(|name| dir.path().join(name).display().to_string());
    std::fs::write(&other, "not a conversation").unwrap();
    let output = chat(&format!("/save {other}\n"));
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("it stays as it is"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "not a conversation");
    for lines in ["/save", "Hello\n/save"] {
        let output = chat(&format!("{lines} {own}\n"));
        assert!(output.status.success(), "{}", err(&output));
    }
    assert!(std::fs::read_to_string(&own).unwrap().contains("Hello"));
    // An empty file is no loss.
    std::fs::write(&other, "").unwrap();
    assert!(chat(&format!("/save {other}\n")).status.success());
}

#[test]
fn corpus_that_names_the_mask_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (text, tiny, matrix) = (path("text.txt"), path("tiny.gguf"), path("matrix"));
    std::fs::write(&text, "The [MASK] is a mask, and [MASK][MASK] are two of them. ".repeat(12)).unwrap();
    let converted = esolm(&["convert", &golden("checkpoint.ckpt"), "-o", &tiny, "--type", "q8_0"]);
    assert!(converted.status.success(), "{}", err(&converted));
    for model in [&built_in(), &tiny] {
        let small = ["--length", "16", "--threads", "1"];
        let score = ["score", "-m", model, &text, "--draws", "1"];
        let quality = ["quality", model, model, "--text", &text, "--windows", "1", "--steps", "2"];
        let imatrix = ["imatrix", model, &text, "-o", &matrix, "--force", "--pieces", "1"];
        let evaluate =
            ["evaluate", "-m", model, "--text", &text, "--samples", "1", "--alpha0", "1", "--steps", "2"];
        for command in [&score[..], &quality, &imatrix, &evaluate] {
            let output = esolm(&[command, &small].concat());
            assert!(output.status.success(), "{command:?}: {}", err(&output));
        }
    }
}

#[test]
fn mask_in_a_template_is_a_gap() {
    let write = |text: &str, more: &[&str]| {
        let output = esolm(&[&["generate", "-q", "--seed", "1", "--template", text][..], more].concat());
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    };
    let special = write("The king[MASK] was[MASK] happy.", &["--special"]);
    assert_eq!(special, write("The king{{mask 1}} was{{mask 1}} happy.", &[]));
    assert!(write("The king [MASK].", &[]).contains("[MASK]"));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (option, value) in [("--window", "4"), ("--window", "auto"), ("--adaptive", "conf:0.5")] {
        for command in ["generate", "evaluate"] {
            refused(&[command, option, value, "--lookahead", "3"], &format!("no effect with {option}"));
        }
    }
    refused(&["serve", "--port", "0", "--window", "4", "--lookahead", "auto"], "no effect with --window");
    refused(&["pull", "owner/tiny:q8_0", "--type", "f32"], "--type: 'owner/tiny:q8_0' says it, too");
    refused(&["pull", "hf:owner/tiny@v1", "--revision", "v2"], "--revision: 'hf:owner/tiny@v1' says it, too");
}

#[test]
fn file_that_was_left_out_is_named() {
    let model = built_in();
    refused(&["score", &model], "no text given");
    refused(&["imatrix", &model, "-o", "x"], "no text given");
    refused(&["verify", &model], "no reference outputs given");
}
