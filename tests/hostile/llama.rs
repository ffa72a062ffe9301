//! Files as llama.cpp has them: hyperparameters and vocabularies.

use std::path::Path;

use esolm::gguf::{Gguf, Layout, TensorType, Value};
use esolm::{Architecture, Config, Variant};

use super::corpus::Tally;
use super::gguf::{fields_of, truncations_of, use_model, write};
use super::rewritten::rewritten;
use super::small;

/// A small WeDLM with a vocabulary.
fn valid() -> Vec<u8> {
    file(
        &texts(&["o", "n", "c", "e", "on", "\u{120}", "<|im_end|>", "<|mask|>"]),
        &[1, 1, 1, 1, 1, 1, 3, 3],
        &["o n"],
    )
}

fn texts(all: &[&str]) -> Vec<Value> {
    all.iter().map(|&text| Value::Str(text.into())).collect()
}

fn file(tokens: &[Value], types: &[i32], merges: &[&str]) -> Vec<u8> {
    let config = Config {
        context_length: 32,
        // Without an output matrix of its own, so that no tensor can be left out.
        architecture: Architecture { tied_output: true, ..Architecture::QWEN3 },
        other_eos_token_ids: vec![5],
        ..small::config(Variant::WeDlm, 8)
    };
    let mut writer = small::llama_keys(&config, tokens, types, &texts(merges)).expect("memory for its keys");
    let tensors = config.tensors().expect("tensors");
    for tensor in &tensors {
        writer.declare_in(&tensor.name, TensorType::F32, Layout::Plain, &tensor.dims).expect("a tensor");
    }
    let mut out = Vec::new();
    writer
        .write(&mut out, |name, bytes| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name).expect("a tensor");
            let count: usize = tensor.dims.iter().product();
            (0..count).for_each(|place| bytes.extend((0.1 + place as f32 / 64.0).to_le_bytes()));
            Ok(())
        })
        .expect("room");
    out
}

/// Every number of the header, among them those of the vocabulary.
pub fn fields(folder: &Path) -> Tally {
    fields_of(folder, &valid())
}

/// Every length of the header.
pub fn truncations(folder: &Path) -> Tally {
    truncations_of(folder, &valid())
}

/// Vocabularies that take more memory or time than bytes, and what would change the results.
pub fn attacks(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let mut case = |name: &str, file: &[u8], accepted: bool| -> String {
        let path = write(folder, "vocabulary.gguf", file);
        let opened = tally.case(name, &path, 0, use_model).is_some();
        assert_eq!(opened, accepted, "{name}: {}", tally.said);
        tally.said.clone()
    };
    let many = |count: usize, text: &dyn Fn(usize) -> String| -> Vec<Value> {
        (0..count).map(|number| Value::Str(text(number))).collect()
    };
    let normal = |count: usize| vec![1; count];
    case("tokens without text", &file(&many(2_000_000, &|_| String::new()), &normal(2_000_000), &[]), false);
    case("control characters", &file(&many(8, &|_| "\u{1}".repeat(500_000)), &normal(8), &[]), false);
    case("long tokens", &file(&many(8, &|n| format!("{n}{}", "x".repeat(500_000))), &normal(8), &[]), false);
    case("quotes", &file(&many(8, &|n| format!("{n}{}", "\"".repeat(400))), &normal(8), &[]), true);
    case("tokens twice", &file(&many(8, &|_| "a".into()), &normal(8), &[]), false);
    case("all of them special", &file(&many(8, &|n| format!("<{n}>")), &[3; 8], &[]), true);
    case(
        "merges of nothing",
        &file(&many(8, &|n| format!("t{n}")), &normal(8), &["t0 t99", "", "a b c"]),
        false,
    );
    let merges: Vec<String> = (0..290_000).map(|n| format!("t{} t{}", n % 8, n % 7)).collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    case("many merges", &file(&many(8, &|n| format!("t{n}")), &normal(8), &merges), false);
    // More tokens than the model has rows.
    case("more tokens than rows", &file(&many(9, &|n| format!("t{n}")), &normal(9), &[]), false);
    for (key, value, words) in [
        ("wedlm.rope.scaling.type", Value::Str("yarn".into()), "RoPE scaling 'yarn'"),
        ("wedlm.rope.scaling.factor", Value::F32(4.0), "RoPE scaling by 4"),
        ("wedlm.attention.sliding_window", Value::U32(16), "a sliding window of 16"),
        ("wedlm.expert_count", Value::U32(8), "a mixture of 8 experts"),
        ("split.count", Value::U16(3), "one of 3 parts of a model"),
        ("general.architecture", Value::Str("llama".into()), "a model of architecture 'llama'"),
    ] {
        let valid = valid();
        let gguf = Gguf::parse(&valid, "valid").expect("a valid file");
        let changed = [(key.to_owned(), value)];
        let out = rewritten(&valid, gguf.metadata().iter().chain(&changed), gguf.tensors());
        let said = case(key, &out, false);
        assert!(said.contains(words), "{key}: {said}");
    }
    tally
}
