//! `esolm chat`: conversations from standard input.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::command_line::{err, esolm, esolm_reading, library_file, out, tokenizer};

/// The built-in model, the most likely tokens, a message a line.
fn chat(lines: impl AsRef<[u8]>, more: &[&str]) -> std::process::Output {
    let args = ["chat", "--threads", "1", "--temp", "0", "--seed", "1"];
    let template = if more.contains(&"--template") { &[][..] } else { &["--template", "chatml"] };
    esolm_reading(&[&args, template, more].concat(), lines)
}

#[test]
fn each_line_gets_an_answer_and_the_turns_keep_their_keys_and_values() {
    let output = chat("Hello\nAnd then?\n/stats\n", &["-n", "12"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("4 messages, of which the model does not see 0"), "{text}");
    let (prompt, computed) = tokens_before(&text);
    // What follows the first answer, and its last token.
    assert!(computed < prompt / 2 + 8, "{text}");
    // The first answer is the one of the first message alone.
    let alone = chat("Hello\n", &["-n", "12"]);
    assert!(text.starts_with(out(&alone).trim_end()), "{text}");
}

#[test]
fn options_are_refused_before_the_conversation() {
    let refused = |options: &[&str], says: &str| {
        let args = ["chat", "--threads", "1", "-n", "4"];
        let template = if options.contains(&"--template") { &[][..] } else { &["--template", "chatml"] };
        let output = esolm_reading(&[&args, template, options].concat(), "Hello\n");
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", err(&output));
        assert!(out(&output).is_empty() && err(&output).contains(says), "{options:?}: {}", err(&output));
    };
    refused(&["--top-p", "5"], "top_p");
    refused(&["--temp=nan"], "temperature");
    refused(&["--window", "4", "--alpha0", "0"], "--window: it takes an --alpha0 of 1, not 0");
    refused(&["--ban", "#99999"], "no token 99999");
    refused(&["--allow", "3=#99999"], "no token 99999");
    // The messages come from there.
    for option in ["--template", "--load", "--json-schema"] {
        refused(&[option, "-"], "the conversation reads it");
    }
    // What depends on the length of a conversation is not refused before there is one.
    let strided = chat("Hello\n", &["-n", "4", "--order", "strided:8"]);
    assert!(strided.status.success() && err(&strided).is_empty(), "{}", err(&strided));
}

#[test]
fn first_answer_has_the_seed_that_is_given() {
    let answers = |seed: &str, lines: &str| {
        let args = ["chat", "--threads", "1", "--template", "chatml", "-n", "12", "--seed", seed];
        out(&esolm_reading(&[&args[..], &["--ignore-eos"]].concat(), lines))
    };
    let before = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    let generate = ["generate", "-q", "-n", "12", "--special", "--stop", "<|im_end|>", "--ignore-eos"];
    let written = out(&esolm(&[&generate[..], &["--seed", "7", "-p", before]].concat()));
    let first = answers("7", "Hello\n");
    assert_eq!(written.strip_prefix(before).map(str::trim), Some(first.trim()), "{written}");
    let both = answers("7", "Hello\n/stats\nMore\n/stats\n");
    assert!(both.starts_with(first.trim_end()) && both.contains("; seed 7\n"), "{both}");
    assert!(both.ends_with("; seed 8\n"), "{both}");
}

#[test]
fn stats_are_those_of_this_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk.json").display().to_string();
    let load = format!("/load {file}");
    for (instruction, messages) in [
        ("/reset", "1 message,"),
        ("/system Be kind.", "1 message,"),
        ("/system", "0 messages,"),
        (&load, "3 messages,"),
    ] {
        let lines = format!("Hello\n/save {file}\n{instruction}\n/stats\n");
        let output = chat(lines, &["-n", "4", "--system", "Be brief."]);
        let text = out(&output);
        let (said, last) =
            (format!("{messages} of which the model does not see 0; 0 of "), text.lines().last());
        assert!(last.is_some_and(|line| line.starts_with(&said)), "{instruction}: {text}{}", err(&output));
    }
}

/// Of the last line, which /stats has written: the tokens before the last answer, and those that were computed for it.
fn tokens_before(text: &str) -> (usize, usize) {
    let stats = text.lines().last().unwrap();
    let number = |before: &str, after: &str| {
        let (_, rest) = stats.split_once(before).unwrap_or_else(|| panic!("{text}"));
        rest.split_once(after).unwrap().0.trim().parse().unwrap()
    };
    (number("s);", "tokens before it"), number("of which", "were computed for it"))
}

#[test]
fn windows_answer_as_generate_writes_and_turns_keep_their_keys_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template.jinja").display().to_string();
    std::fs::write(&template, "{% for m in messages %}w1 {{ m.content }} w2 {% endfor %}").unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (words, wedlm) = (path("tokenizer.json"), path("model.gguf"));
    std::fs::write(&words, tokenizer()).unwrap();
    // A token that ends answers has to have a text.
    let folder = library_file("tests/golden/wedlm-qwen3");
    let converted = esolm(&["convert", &folder, "-o", &wedlm, "--tokenizer", &words, "--eos", "w95"]);
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
    let options = ["-m", &wedlm, "--template", &template, "-n", "9", "--window", "4", "--ignore-eos"];
    let output = chat("w3 w4\nw5\n/stats\n", &options);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("4 messages, of which the model does not see 0"), "{text}");
    let (prompt, computed) = tokens_before(&text);
    assert!(prompt >= 4 + 9 && computed < prompt - 4, "{text}");

    let options = ["--window", "4", "-n", "12"];
    let answer = out(&chat("Hello\n", &options));
    let before = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    let given = ["generate", "-q", "--special", "--temp", "0", "-p", before, "--stop", "<|im_end|>"];
    let written = out(&esolm(&[&given[..], &options].concat()));
    assert!(!answer.trim().is_empty());
    assert_eq!(written.strip_prefix(before).map(str::trim), Some(answer.trim()), "{written}");
}

/// Models that keep nothing between turns: each conversation is read anew.
#[test]
fn models_that_are_not_extended_answer_again() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tiny-A", "mdlm-tiny"] {
        let model = dir.path().join(name).display().to_string();
        let checkpoint = library_file(&format!("tests/golden/{name}/checkpoint.ckpt"));
        let converted = esolm(&["convert", &checkpoint, "-o", &model]);
        assert!(converted.status.success(), "{}", err(&converted));
        let output =
            chat("Hi\nYo\n/stats\n", &["-m", &model, "--template", "chatml", "-n", "4", "--ignore-eos"]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let said = out(&output);
        assert!(said.contains("\n4 messages,"), "{said}");
        // Steps that wrote the answer alone.
        assert!(said.contains("last answer: 4 tokens in 4 steps") || name == "mdlm-tiny", "{said}");
    }
}

#[test]
fn message_may_have_several_lines() {
    let both = chat("One \\\nline\n/save /dev/stdout\n", &["-n", "4"]);
    assert!(out(&both).contains(r#"{"role":"user","content":"One \nline"}"#), "{}", out(&both));
    // What editors add is no part of one.
    let marked = chat("\u{feff}One \\\r\nline\r\n/save /dev/stdout\r\n", &["-n", "4"]);
    assert_eq!(out(&marked), out(&both), "{}", err(&marked));
    // The last one need not end.
    let last = chat("One\\\n", &["-n", "4"]);
    assert_eq!(last.status.code(), Some(0));
    assert!(!out(&last).trim().is_empty());
}

#[test]
fn conversation_is_saved_loaded_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk.json").display().to_string();
    let first = chat(format!("Hello\n/save {file}\nMore\n"), &["-n", "8", "--system", "You tell stories."]);
    let saved: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let roles: Vec<&str> =
        saved["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(saved["messages"][0]["content"], "You tell stories.");
    // It goes on as it would have.
    let more = chat("More\n", &["-n", "8", "--load", &file]);
    assert_eq!(out(&first).lines().last(), out(&more).lines().last(), "{}", err(&more));
    let loaded = chat(format!("/load {file}\nMore\n"), &["-n", "8"]);
    assert_eq!(out(&loaded), out(&more));
    // Another text of the system's takes the place of the one that was saved, and the turns are kept.
    let other = chat("/save /dev/stdout\n", &["--load", &file, "--system", "Be brief."]);
    let kept: serde_json::Value = serde_json::from_str(&out(&other)).unwrap();
    assert_eq!(kept["messages"][0]["content"], "Be brief.");
    let behind = |value: &serde_json::Value| value["messages"].as_array().unwrap()[1..].to_vec();
    assert_eq!(behind(&kept), behind(&saved));
    // After /reset the system's text is still there, and the answer the first one.
    let again = chat("Hello\n/reset\nHello\n/system\nHello\n", &["-n", "8", "--system", "You tell stories."]);
    let text = out(&again);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], lines[1]);
    let plain = chat("Hello\n", &["-n", "8"]);
    assert_eq!(lines.last(), out(&plain).lines().last().as_ref());
}

/// What ended an answer is not shown, so the next turn does not see it either.
#[test]
fn stop_string_is_no_part_of_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk.json").display().to_string();
    let args = ["-n", "60", "--stop", "the"];
    let both = chat(format!("Hello\n/save {file}\nMore\n"), &args);
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(!saved.contains("the") && out(&both).lines().count() > 1, "{saved}{}", out(&both));
    let again = chat("More\n", &[&args[..], &["--load", &file]].concat());
    assert!(out(&both).trim_end().ends_with(out(&again).trim_end()), "{}{}", out(&both), out(&again));
}

#[test]
fn oldest_turns_go_when_the_context_is_full() {
    let message = "The dog and the cat went to the park, and there they saw a red ball and a blue kite\n";
    let output = chat(format!("{}/stats\n", message.repeat(8)), &["-n", "24", "--system", "Be kind."]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(err(&output).contains("the context is full"), "{}", err(&output));
    assert!(!out(&output).contains("does not see 0;"), "{}", out(&output));
    assert!(out(&output).contains("17 messages"));
    // The system's text is none of them: this template refuses to go on without it.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.jinja").display().to_string();
    let template = "{% if messages | length > 2 and messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}\
        {% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}";
    std::fs::write(&file, template).unwrap();
    let lines = format!("{}/stats\n", message.repeat(8));
    let with_system = |more: &[&str]| chat(&lines, &[&["-n", "24", "--template", &file], more].concat());
    let kept = with_system(&["--system", "Be kind."]);
    assert!(err(&kept).contains("the context is full"), "{}", err(&kept));
    assert!(!err(&kept).contains("no system") && out(&kept).contains("17 messages"), "{}", err(&kept));
    let without = with_system(&[]);
    assert!(err(&without).contains("no system"), "{}", err(&without));
    // One that never fits is refused, and the conversation goes on.
    let long = chat(format!("{}\nHello\n/stats\n", "word ".repeat(400)), &["-n", "4"]);
    assert!(err(&long).contains("the message is too long"), "{}", err(&long));
    assert!(out(&long).contains("2 messages"), "{}", out(&long));
    assert_eq!(long.status.code(), Some(2));
}

#[test]
fn what_is_wrong_is_told_and_the_conversation_goes_on() {
    let output =
        chat("/sing\n/save\n/load -\n/load /nowhere/x.json\n/help\n\n//x\n/quit\nnot read\n", &["-n", "4"]);
    // That of the last one that failed.
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(chat("/help\n/sing\n", &[]).status.code(), Some(2));
    for says in [
        "there is no instruction '/sing'",
        "/save: the name of a file is missing",
        "/load: standard input",
        "/nowhere/x.json",
    ] {
        assert!(err(&output).contains(says), "{}", err(&output));
    }
    assert!(out(&output).starts_with("/reset"), "{}", out(&output));
    // Of messages that are none, too long, or in another encoding, the next line is a message again.
    let lines = [&b"caf\xe9\n"[..], &[b'x'; (1 << 20) + 1], b"\n/stats\nOnce\n"].concat();
    let output = chat(lines, &["-n", "4"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("not UTF-8") && err(&output).contains("more than 1048576 bytes"),
        "{}",
        err(&output)
    );
    assert!(out(&output).lines().count() > 1, "{}", out(&output));
    // One of several lines is left out to its end.
    let long = [&[b'x'; (1 << 20) + 9][..], b"\\\r\n/stats\n"].concat();
    for (lines, code) in [(&b"a\\\ncaf\xe9\\\n/stats\n"[..], 3), (&long, 2)] {
        let output = chat(lines, &["-n", "4"]);
        assert_eq!(output.status.code(), Some(code));
        assert!(out(&output).is_empty(), "{}", out(&output));
        assert_eq!(err(&output).matches("a message ").count(), 1, "{}", err(&output));
    }
    let without = esolm(&["chat"]);
    assert_eq!(without.status.code(), Some(2));
    assert!(err(&without).contains("no chat template") && err(&without).contains("--template chatml"));
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.jinja");
    std::fs::write(&bad, "{% if %}").unwrap();
    let broken = esolm_reading(&["chat", "--template", bad.to_str().unwrap()], "");
    assert_eq!(broken.status.code(), Some(2));
    assert!(err(&broken).contains("line 1"), "{}", err(&broken));
}

#[test]
fn hostile_conversations_are_refused_or_shortened_in_little_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk.json").display().to_string();
    let load = |content: &str| {
        std::fs::write(&file, content).unwrap();
        // With 1 GiB of address space, beside the command's own.
        let limited = "ulimit -v 1500000; exec \"$0\" \"$@\"";
        let esolm = env!("CARGO_BIN_EXE_esolm");
        let mut child = Command::new("sh")
            .args(["-c", limited, esolm, "chat", "--template", "chatml", "--threads", "1", "-n", "4"])
            .args(["--load", &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = std::time::Instant::now();
        // A refused file ends it before it reads.
        let _ = child.stdin.take().unwrap().write_all(b"Hello\n");
        let output = child.wait_with_output().unwrap();
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
        (output.status.code(), err(&output))
    };
    let objects = format!("[{}0]", r#"{"":0},"#.repeat(2_000_000));
    for (content, says) in [
        ("", "EOF"),
        ("7", "no list of messages"),
        ("[7]", "no list of messages"),
        (r#"{"messages": {}}"#, "no list of messages"),
        (r#"[{"role": "user"}]"#, "missing field `content`"),
        (r#"[{"role": "user", "content": null}]"#, "no list of messages"),
        (r#"[{"role": "user", "content": "\ud800"}]"#, "hex escape"),
        (&"[".repeat(1_000_000), "no list of messages"),
        (&format!(r#"{{"other": {}, "messages": 1}}"#, "[".repeat(1_000_000)), "no list of messages"),
        (&objects, "missing field"),
        (&format!(r#"{{"other": {objects}, "messages": 1}}"#), "no list of messages"),
        (&" ".repeat(65 << 20), "64 MiB"),
    ] {
        let (code, said) = load(content);
        assert!(code == Some(3) && said.contains("talk.json") && said.contains(says), "{said}");
        assert!(said.len() < 1500, "{said}");
    }
    // A great many turns, and one that is too long, of which the model sees what fits.
    let turn = r#"{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"},"#;
    let long = format!(r#"{{"role": "user", "content": "{}"}},"#, "word ".repeat(4_000_000));
    for before in [turn.repeat(300_000), long] {
        let (code, said) = load(&format!(r#"[{before}{{"role": "system", "content": ""}}]"#));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("the context is full"), "{said}");
    }
    let (code, said) =
        load(&format!("[{}]", r#"{"role": "system", "content": ""},"#.repeat(500_000).trim_end_matches(',')));
    assert!(code == Some(2) && said.contains("too long"), "{said}");
}

#[test]
fn template_in_a_file_ends_answers_by_its_own_mark() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.jinja");
    let template =
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %} the {% endif %}{% endfor %}";
    std::fs::write(&file, template).unwrap();
    let output = chat("Once upon a time\n", &["--template", file.to_str().unwrap(), "-n", "60"]);
    // The answer ends before the mark.
    assert!(!out(&output).contains("the"), "{}", out(&output));
}
