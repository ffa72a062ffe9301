//! Files made to take memory, time or the process: every one of them is opened, looked at, generated with or converted in a
//! process of its own, under limits, and has to end with a result or with a message that names the file.
//!
//! This program starts itself again for each family of files, with limited address space (`ulimit -v`). There it counts
//! every byte that Rust code allocates. Limits of a file: `corpus.rs`.
//!
//! `files/` has small files that once broke it (all made by hand for this): `context-2pow20.gguf` asks for a context of 2^20
//! tokens; `escape-sequences.gguf` has escape sequences in its names; `tokenizer-*.gguf` have tokenizers with a
//! backtracking pattern, a damaged character map and ten replacements that each grow a text tenfold;
//! `non-text-keys.ckpt.gz` is a checkpoint with one dictionary of number keys that is referred to a million times, and
//! `shared-shape.ckpt.gz` one whose tensors share a shape of a million dimensions.
#![allow(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test, though without the harness")]

#[cfg(unix)]
mod chat_templates;
#[cfg(unix)]
mod checkpoints;
#[cfg(unix)]
mod corpus;
#[cfg(unix)]
mod counting;
#[cfg(unix)]
mod gguf;
#[cfg(unix)]
mod llama;
#[cfg(unix)]
mod others;
#[cfg(unix)]
mod panels;
#[cfg(unix)]
mod qwen;
#[cfg(unix)]
#[path = "../models/rewritten.rs"]
mod rewritten;
#[cfg(unix)]
mod shards;
#[cfg(unix)]
#[path = "../models/small.rs"]
mod small;
#[cfg(unix)]
mod tokenizers;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    corpus::run()
}

#[cfg(not(unix))]
fn main() {
    println!("test hostile ... ignored: needs `ulimit`");
}
