//! A text that is printed as it grows, and what ends it from outside.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use crate::command_line::{err, esolm, out};

fn command(args: &[&str]) -> Command {
    // Run in the background, tests ignore INT, and so would the command.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_esolm")]);
    command.args(["generate", "--threads", "1", "--ignore-eos"]).args(args).env_remove("ESOLM_MODEL");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn lines_of_steps_have_the_text_that_became_final() {
    let args =
        ["-p", "Once upon a time", "--seed", "3", "--steps", "16", "--alpha0", "0.5", "-n", "60", "--json"];
    let output = command(&args).output().unwrap();
    let lines: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (report, steps) = lines.split_last().unwrap();
    let mut joined = "Once upon a time".to_owned();
    joined.extend(steps.iter().map(|step| step["texts"][0].as_str().unwrap()));
    assert_eq!(report["texts"][0], joined);
    // The same as is printed without --json.
    let plain = command(&[&args[..10], &["-q"]].concat()).output().unwrap();
    assert_eq!(out(&plain), format!("{}\n", joined.trim_end()));
}

#[test]
fn token_that_is_no_character_has_bytes() {
    let ids = out(&esolm(&["tokenize", "é"]));
    // A byte of a character, or the whole one, as the vocabulary has it.
    let id = ids.split_whitespace().next().unwrap();
    let args = ["-n", "1", "--allow", &format!("0=#{id}"), "--json"];
    let output = command(&args).output().unwrap();
    let step: serde_json::Value = serde_json::from_str(out(&output).lines().next().unwrap()).unwrap();
    let update = &step["updates"][0];
    if ids.split_whitespace().count() > 1 {
        assert_eq!(
            (&update["text"], &update["bytes"]),
            (&serde_json::Value::Null, &serde_json::json!([0xC3]))
        );
        assert_eq!(step["texts"][0], "\u{fffd}", "the text ends with a part of a character");
    } else {
        assert_eq!((&update["text"], &update["bytes"]), (&"é".into(), &serde_json::Value::Null));
    }
}

#[test]
fn closed_pipe_ends_the_work_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a.state").display().to_string();
    for json in [&[][..], &["--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let args = [&["-p", "Once upon a time", "--seed", "3", "--state", &state], json].concat();
        let output = command(&args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        if json.is_empty() {
            let steps = err(&output).split_whitespace().nth(3).unwrap().parse::<usize>().unwrap();
            assert!(steps < 3, "{}", err(&output));
        } else {
            assert_eq!(err(&output), "");
        }
        // What is there is saved, and goes on.
        let next = command(&["-p", " and", "-n", "4", "--state", &state, "-q"]).output().unwrap();
        assert!(out(&next).starts_with("Once upon a time"), "{}", err(&next));
        std::fs::remove_file(&state).unwrap();
    }
}

/// Long before anything would be written.
#[test]
fn closed_pipe_ends_texts_that_are_not_streamed() {
    for (more, says) in [(&["--batch", "2"][..], " tokens in 1 steps"), (&["--count", "50"], "0 of 50 texts")]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let args = [&["-p", "Once upon a time", "--seed", "3"], more].concat();
        let output = command(&args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(err(&output).contains(says), "{}", err(&output));
    }
}

#[test]
fn interrupt_ends_a_text_and_leaves_what_is_there() {
    let args = ["-p", "Once upon a time", "--seed", "3"];
    let mut child = command(&args).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut begin = [0; 16];
    stdout.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"Once upon a time", "before anything is written");
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(rest.ends_with('\n') && rest.len() < 600, "{rest}");
    assert!(err(&output).contains(" tokens in "), "{}", err(&output));
}

#[test]
fn interrupt_saves_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a.state").display().to_string();
    let mut child = command(&["--batch", "64", "--json", "--seed", "3", "--state", &state]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    interrupt(&child);
    let last: serde_json::Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    let reasons = last["stop_reasons"].as_array().unwrap();
    assert!(reasons.len() == 64 && reasons.iter().all(|reason| reason == "cancelled"), "{last}");
    let written = last["tokens_written"].as_u64().unwrap() / 64;
    assert!((1..250).contains(&written), "{written} of 256 tokens");
    let next = command(&["--batch", "64", "--json", "--seed", "4", "--state", &state]).output().unwrap();
    let next: serde_json::Value = serde_json::from_str(out(&next).lines().last().unwrap()).unwrap();
    let (before, after) = (last["texts"][0].as_str().unwrap(), next["texts"][0].as_str().unwrap());
    assert!(after.starts_with(before) && after.len() > before.len());
    assert_eq!(next["tokens_written"].as_u64().unwrap() / 64 + written, 256);
}

#[test]
fn interrupt_of_many_says_how_many_there_are() {
    let mut child = command(&["--count", "100000", "--seed", "3"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    interrupt(&child);
    let written = 1 + lines.count();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    let said = format!("{written} of 100000 texts, 0 of them there before");
    assert!(err(&output).starts_with(&said), "{}", err(&output));
}
