//! Runs the `esolm` command.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

pub fn esolm(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
    command.args(args).env_remove("ESOLM_MODEL");
    let has = |option: &str| args.contains(&option);
    if ["generate", "run"].contains(&args[0]) && !has("--help") && !has("--threads") && !has("-t") {
        // ggml's threads wait by spinning: on a busy machine several of them take far longer than one.
        command.args(["--threads", "1"]);
    }
    command.output().unwrap()
}

/// As [`esolm`], with `text` as standard input.
pub fn esolm_reading(args: &[&str], text: impl AsRef<[u8]>) -> Output {
    reading(Command::new(env!("CARGO_BIN_EXE_esolm")).args(args).env_remove("ESOLM_MODEL"), text)
}

/// Runs a command with `text` as standard input.
pub fn reading(command: &mut Command, text: impl AsRef<[u8]>) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A refusal may come before everything is read.
    let text = text.as_ref().to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&text)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of the library's package, which this one stands in.
pub fn library_file(path: &str) -> String {
    format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))
}

pub fn golden(file: &str) -> String {
    library_file(&format!("tests/golden/tiny-B/{file}"))
}

/// The built-in model's file.
pub fn built_in() -> String {
    library_file("models/stories-q8_0.gguf")
}

/// Converts a golden model with the tokenizer of 96 words. Returns the file, which is in `dir`.
pub fn golden_with_words(model: &str, dir: &Path) -> String {
    with_words(&library_file(&format!("tests/golden/{model}")), 96, dir)
}

/// Converts a model with a tokenizer of so many words. Returns the file, which is in `dir`.
pub fn with_words(model: &str, count: u32, dir: &Path) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let (words, file) = (path("tokenizer.json"), path("model.gguf"));
    std::fs::write(&words, tokenizer_of(count)).unwrap();
    let converted = esolm(&["convert", model, "-o", &file, "--tokenizer", &words]);
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
    file
}

/// A tokenizer of 96 words.
pub fn tokenizer() -> String {
    tokenizer_of(96)
}

/// A tokenizer of so many words.
fn tokenizer_of(count: u32) -> String {
    let vocab: serde_json::Map<_, _> = (0..count).map(|i| (format!("w{i}"), i.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    })
    .to_string()
}
