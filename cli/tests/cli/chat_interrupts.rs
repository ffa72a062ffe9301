//! Ctrl-C in a conversation.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::command_line::{err, esolm, library_file, tokenizer};

#[test]
fn interrupt_ends_the_answer_and_not_the_conversation() {
    let mut child = Command::new("env")
        .args([
            "--default-signal=INT",
            env!("CARGO_BIN_EXE_esolm"),
            "chat",
            "--template",
            "chatml",
            "--threads",
            "1",
        ])
        .args(["--ignore-eos", "--seed", "1", "--temp", "0"])
        .env_remove("ESOLM_MODEL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    input.write_all(b"Hello\n").unwrap();
    assert!(!output.fill_buf().unwrap().is_empty());
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    input.write_all(b"/stats\n/quit\n").unwrap();
    let rest: Vec<String> = output.lines().map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.starts_with("2 messages")), "{first}{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A message that takes many steps to be read: a terminal shows how far it is, and an interrupt ends it.
#[test]
fn reading_of_a_long_message_is_shown_and_interrupted() {
    const WORDS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let [words, model, template, input, pid, results] =
        ["tokenizer.json", "model.gguf", "template.jinja", "in", "pid", "out"].map(path);
    std::fs::write(&words, tokenizer()).unwrap();
    std::fs::write(&template, "{% for m in messages %}w1 {{ m.content }} w2 {% endfor %}").unwrap();
    std::fs::write(&input, format!("{}\n/stats\n", "w3 ".repeat(WORDS).trim_end())).unwrap();
    let folder = library_file("tests/golden/wedlm-qwen3");
    let converted = esolm(&["convert", &folder, "-o", &model, "--tokenizer", &words, "--eos", "w95"]);
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
    // It was trained for less, which its text is not about here.
    let (mut bytes, key) = (std::fs::read(&model).unwrap(), b"wedlm.context_length");
    let at = bytes.windows(key.len()).position(|bytes| bytes == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&(1u32 << 15).to_le_bytes());
    std::fs::write(&model, bytes).unwrap();
    let command = format!(
        "echo $$ >'{pid}'; exec env --default-signal=INT '{}' chat -m '{model}' --template '{template}' --length {} -n 4 \
         -t 1 <'{input}' >'{results}'",
        env!("CARGO_BIN_EXE_esolm"),
        1 << 15,
    );
    // Standard error alone is a terminal.
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of util-linux");
    let (mut output, mut shown) = (child.stdout.take().unwrap(), Vec::new());
    let mut read = |shown: &mut Vec<u8>| {
        let mut bytes = [0; 4096];
        let count = output.read(&mut bytes).unwrap();
        shown.extend(&bytes[..count]);
        count > 0
    };
    let bar = format!("/{} tokens read", WORDS + 2);
    while !String::from_utf8_lossy(&shown).contains(&bar) {
        assert!(read(&mut shown), "{}", String::from_utf8_lossy(&shown));
    }
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(Command::new("kill").args(["-INT", pid.trim()]).status().unwrap().success());
    while read(&mut shown) {}
    let said = std::fs::read_to_string(results).unwrap();
    assert!(child.wait().unwrap().success(), "{}{said}", String::from_utf8_lossy(&shown));
    assert!(said.contains("2 messages,") && said.contains("last answer: 0 tokens in 0 steps"), "{said}");
}
