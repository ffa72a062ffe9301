//! Many texts by several processes: `generate --count` and `score`, `--shard` and `-o`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::command_line::{err, esolm, esolm_reading, out};
use crate::json::{add_fields, documented};

/// What a command prints, or writes to the file of its last argument. It has to succeed.
fn lines(args: &[&str]) -> String {
    let output = esolm(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
    match args {
        [.., "-o", file] => std::fs::read_to_string(file).unwrap(),
        _ => out(&output),
    }
}

const TEXTS: [&str; 11] =
    ["generate", "--seed", "5", "-n", "12", "-p", "Once upon a time", "-p", "The king", "--count", "14"];

/// The lines of all shards in the order of the texts.
fn merged(shards: &[String]) -> String {
    let mut all: Vec<&str> = shards.iter().flat_map(|shard| shard.lines()).collect();
    all.sort_by_key(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64());
    all.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn texts_depend_on_seed_and_number_only() {
    let all = lines(&TEXTS);
    assert_eq!(all.lines().count(), 14);
    for of in [1, 3, 20] {
        let shard = |number: u32| {
            let (shard, batch) = (format!("{number}/{of}"), (number % 5 + 1).to_string());
            lines(&[&TEXTS[..], &["--shard", &shard, "--batch", &batch]].concat())
        };
        assert_eq!(merged(&(1..=of).map(shard).collect::<Vec<_>>()), all, "{of} shards");
    }
    // Each is the text that its seed gets alone, and prompts take turns.
    for (number, line) in all.lines().take(4).enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (prompt, seed) = (["Once upon a time", "The king"][number % 2], line["seed"].to_string());
        let alone = lines(&["generate", "-q", "-n", "12", "-p", prompt, "--seed", &seed]);
        assert_eq!(alone.trim_end(), line["text"].as_str().unwrap().trim_end());
    }
    let seeds = |text: &str| -> BTreeSet<u64> {
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["seed"].as_u64())
            .collect()
    };
    let other = lines(&["generate", "--count", "14", "-n", "1", "--seed", "6"]);
    assert!(seeds(&all).is_disjoint(&seeds(&other)), "the next seed has other texts");
}

#[test]
fn runs_go_on_where_the_file_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.jsonl").display().to_string();
    let args = [&TEXTS[..], &["--shard", "2/2", "-o", &file]].concat();
    let whole = lines(&args);
    for end in
        [0, 1, whole.find('\n').unwrap(), whole.find('\n').unwrap() + 1, whole.len() / 2, whole.len() - 1]
    {
        std::fs::write(&file, &whole[..end]).unwrap();
        assert_eq!(lines(&args), whole, "cut off at {end}");
    }
    // More texts are behind those of fewer; what is complete is not touched.
    let more = [&TEXTS[..10], &["20", "--shard", "2/2", "-o", &file]].concat();
    assert!(lines(&more).starts_with(&whole));
    let refused = |args: &[&str], message: &str| {
        let before = std::fs::read(&file).unwrap();
        let output = esolm(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(err(&output).contains(message), "{}", err(&output));
        assert_eq!(std::fs::read(&file).unwrap(), before);
    };
    refused(&args, "more lines than are asked for");
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let other_options = [&args[..], &["--temp", "0.5"]].concat();
    let output = esolm(&other_options);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("other options"), "{}", err(&output));
    std::fs::write(&file, &whole).unwrap();
    refused(&[&TEXTS[..], &["--shard", "1/2", "-o", &file]].concat(), "line 1 is not that of index 0");
    std::fs::write(&file, "no JSON\n").unwrap();
    refused(&args, "line 1 is not");
}

/// The last lines are made once more: other options or prompts are an error, not the old results.
#[test]
fn complete_files_are_compared_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file").display().to_string();
    let text = dir.path().join("text").display().to_string();
    std::fs::write(&text, "Once upon a time there was a king.").unwrap();
    let write = ["generate", "--seed", "5", "-n", "9", "--threads", "1"];
    let score = ["score", &text, "--threads", "1", "--shard", "1/1"];
    for (args, same, other) in [
        (
            &write[..],
            &["--count", "3", "-p", "Once"][..],
            &["--count", "3", "-p", "Once", "--temp", "0.3"][..],
        ),
        (&write, &["--count", "3", "-p", "Once"], &["--count", "3", "-p", "The king"]),
        // Text 2 is that of the first prompt with two of them, too.
        (&write, &["--count", "3", "-p", "Once"], &["--count", "5", "-p", "Once", "-p", "The king"]),
        (&score, &["--draws", "0"], &["--draws", "1"]),
    ] {
        let _ = std::fs::remove_file(&file);
        let with = |more: &[&'static str]| [args, more, &["-o", &file]].concat();
        let whole = lines(&with(same));
        assert_eq!(lines(&with(same)), whole);
        let output = esolm(&with(other));
        assert_eq!(output.status.code(), Some(3), "{other:?}: {}", err(&output));
        assert!(err(&output).contains("other options"), "{}", err(&output));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), whole);
    }
    let random = ["--shard", "1/1", "--seed", "-1"];
    let output = esolm(&[&["score", &text][..], &random].concat());
    assert!(output.status.code() == Some(2) && err(&output).contains("other than -1"), "{}", err(&output));
}

/// A window that slides has masks beyond the end of its text, whatever the other prompts have room for.
#[test]
fn sliding_windows_do_not_depend_on_other_prompts() {
    let args = ["-n", "10", "--ignore-eos", "--window", "8:2", "--threads", "1"];
    let long = "Once upon a time there was a little girl who lived in a house";
    for seed in ["1", "2", "3"] {
        let many = ["generate", "--count", "2", "-p", "The king", "-p", long, "--seed", seed];
        let all = lines(&[&many[..], &args].concat());
        let first: Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
        let own = first["seed"].to_string();
        let alone = lines(&[&["generate", "-q", "-p", "The king", "--seed", &own][..], &args].concat());
        assert_eq!(alone.trim_end(), first["text"].as_str().unwrap().trim_end(), "{seed}");
    }
}

#[test]
fn files_of_something_else_are_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file").display().to_string();
    let args = [&TEXTS[..], &["-q", "--threads", "1", "-o", &path]].concat();
    let whole = lines(&args);
    let start = &whole[..30];
    // Nothing that ends like a line which was cut off, and is none.
    for content in ["a note without an end of line", "{\"a\": 1}", "{", &start.replace("index", "Index")] {
        let content = content.to_owned() + if content == "{" { " " } else { "" };
        std::fs::write(&path, &content).unwrap();
        let output = esolm(&args);
        assert_eq!(output.status.code(), Some(3), "{content}");
        assert!(err(&output).contains("is another file"), "{content}: {}", err(&output));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    // What a machine that stopped may have left behind the last byte.
    for end in [0, 30, whole.find('\n').unwrap() + 1, whole.len()] {
        std::fs::write(&path, whole[..end].to_owned() + &"\0".repeat(5000)).unwrap();
        assert_eq!(lines(&args), whole, "zeros from {end} on");
    }
}

/// A line of 30 million values takes no memory for them, and a file without lines is not read to its end.
#[test]
#[cfg(target_os = "linux")]
fn files_of_any_size_take_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let limited = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 1000000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_esolm")]);
        let output = shell.args(TEXTS).args(["-q", "--threads", "1", "-o"]).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", err(&output));
        err(&output)
    };
    for value in ["0,", "[],", "{},", "[", "{\"a\":"] {
        let line =
            format!("{{\"index\":0,\"seed\":0,\"x\":[{}0]}}\n", value.repeat(60_000_000 / value.len()));
        std::fs::write(&path, line).unwrap();
        assert!(limited().contains("line 1 is not that of index 0"));
    }
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(limited().contains("line 1 is longer than 64 MiB"));
}

#[test]
fn killed_runs_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.jsonl").display().to_string();
    let args =
        ["generate", "--seed", "5", "--count", "60", "--batch", "4", "-q", "--threads", "1", "-o", &file];
    let mut kills = 0;
    loop {
        let mut child = Command::new(env!("CARGO_BIN_EXE_esolm")).args(args).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150));
        if child.try_wait().unwrap().is_some() || kills == 50 {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0, "the work was done before the first kill");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines(&args[..args.len() - 2]));
}

#[test]
fn one_process_at_a_time_writes_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.jsonl");
    let file = std::fs::File::create(&path).unwrap();
    file.lock().unwrap();
    let args = [&TEXTS[..], &["-o", path.to_str().unwrap()]].concat();
    let output = esolm(&args);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("another process"), "{}", err(&output));
    drop(file);
    assert_eq!(lines(&args), lines(&TEXTS));
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let wrong: [&[&str]; 9] = [
        &["generate", "--shard", "1/2", "--seed", "1"],
        &["generate", "-o", "texts.jsonl", "--seed", "1"],
        &["generate", "--count", "2", "--shard", "1/2"],
        &["generate", "--count", "2", "--shard", "1/2", "--seed", "-1"],
        &["generate", "--count", "2", "--shard", "3/2", "--seed", "1"],
        &["generate", "--count", "2", "--json"],
        &["generate", "--count", "2", "--state", "x"],
        &["generate", "--count", "2", "--batch", "0"],
        &["score", "-", "-o", "scores.jsonl"],
    ];
    for args in wrong {
        let output = esolm(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(!Path::new("texts.jsonl").exists());
    }
    let pipe = esolm(&["generate", "--count", "2", "--seed", "1", "-o", "/dev/null"]);
    assert_eq!(pipe.status.code(), Some(3), "{}", err(&pipe));
    assert_eq!(lines(&["generate", "--count", "0", "--seed", "1"]), "");
}

#[test]
fn a_text_without_a_token_fails_alone() {
    // Behind " the" nothing is allowed that is not banned.
    let prompt = ["generate", "--count", "8", "--seed", "1", "-p", "I saw", "--temp", "2", "--top-p", "1"];
    let args = [&prompt[..], &["--regex", " (a|the0)", "--ban", "0"]].concat();
    let output = esolm(&[&args[..], &["--batch", "3"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let reasons: Vec<String> = out(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["stop_reason"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(reasons.len(), 8);
    assert!(reasons.iter().any(|reason| reason == "error"), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason != "error"), "{reasons:?}");
    assert_eq!(out(&output), lines(&args));
}

#[test]
fn windows_of_a_text_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (text, scores) = (path("text.txt"), path("scores.jsonl"));
    std::fs::write(&text, "Once upon a time there was a king who had three sons. ".repeat(12)).unwrap();
    let args = ["score", &text, "--length", "16", "--draws", "2", "--threads", "1"];
    let all = lines(&[&args[..], &["--shard", "1/1"]].concat());
    let windows = all.lines().count();
    assert!(windows > 8);
    let shards: Vec<String> =
        (1..=3).map(|number| lines(&[&args[..], &["--shard", &format!("{number}/3")]].concat())).collect();
    assert_eq!(merged(&shards), all);
    let part = [&args[..], &["--shard", "2/3", "-o", &scores]].concat();
    for end in [0, 10, shards[1].len() / 2, shards[1].len()] {
        std::fs::write(&scores, &shards[1][..end]).unwrap();
        assert_eq!(lines(&part), shards[1], "cut off at {end}");
    }
    // Left to right the windows add up to the whole.
    let nll = |line: &str| serde_json::from_str::<Value>(line).unwrap()["in_order"]["nll"].as_f64().unwrap();
    let whole = lines(&[&args[..], &["--json"]].concat());
    assert!((all.lines().map(nll).sum::<f64>() - nll(&whole)).abs() < 1e-6);
    // The text is not written over.
    assert_eq!(esolm(&[&args[..], &["--shard", "1/1", "-o", &text]].concat()).status.code(), Some(2));
}

#[test]
fn lines_have_the_documented_fields() {
    let mut printed = BTreeSet::new();
    for line in lines(&TEXTS).lines() {
        add_fields(&serde_json::from_str(line).unwrap(), "", &mut printed);
    }
    assert_eq!(printed, documented("generate --count"));
    let output = esolm_reading(
        &["score", "-", "--shard", "1/1", "--threads", "1"],
        "Once upon a time there was a king",
    );
    let mut printed = BTreeSet::new();
    add_fields(&serde_json::from_str(&out(&output)).unwrap(), "", &mut printed);
    let mut expected = documented("score --json");
    expected.insert("index".into());
    assert_eq!(printed, expected);
}
