//! `tokenizer.json`, a zero byte, and a text: to tokens and back. An input that does not begin with `{` is a byte and a text:
//! for one of the tokenizers that are kept, so that most runs need not read one.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use esolm::gguf::TensorType;
use esolm::{Config, LoadOptions, Model, TokenizeOptions, Tokenizer, Variant};
use esolm_fuzz::{VOCAB_SIZE, bytes, check, config, ok};
use libfuzzer_sys::fuzz_target;

/// The tokenizer of the default model, and those of the seeds that are accepted.
static KEPT: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let default = Model::open(folder.join("../models/stories-q8_0.gguf"), &on_cpu()).expect("a model");
    let seeds = ["bpe", "bpe-decoder", "word-level", "word-piece"];
    let read = |name| std::fs::read_to_string(folder.join("seeds/tokenizer").join(name)).expect("a seed");
    let seeds = seeds.map(|name| with_tokenizer(read(name).split('\0').next().unwrap_or_default()));
    [Some(default)].into_iter().chain(seeds).map(|model| model.expect("a tokenizer")).collect()
});

fn on_cpu() -> LoadOptions<'static> {
    LoadOptions { device: "cpu".into(), ..LoadOptions::default() }
}

/// A model with this tokenizer, of this many tokens with the mask.
fn model(json: &str, vocab_size: usize) -> Option<Model> {
    let config = Config {
        vocab_size,
        mask_token_id: vocab_size as u32 - 1,
        eos_token_id: None,
        ..config(Variant::EsoB)
    };
    ok(Model::from_bytes(&bytes(&config, json, TensorType::F32), &on_cpu()))
}

/// A model with this tokenizer, if it is one, and of its size.
fn with_tokenizer(json: &str) -> Option<Model> {
    let model = model(json, VOCAB_SIZE)?;
    let Err(error) = model.tokenizer() else { return Some(model) };
    check(&error);
    let said = error.to_string();
    let (_, rest) = said.split_once("the tokenizer has ")?;
    let size = rest.split(' ').next()?.parse::<usize>().ok().filter(|size| (1..4096).contains(size))?;
    let larger = self::model(json, size + 1).expect("a model");
    ok(larger.tokenizer())?;
    Some(larger)
}

/// To tokens and back.
fn encode(tokenizer: &Tokenizer, text: &str) {
    if let Some(tokens) = ok(tokenizer.encode(text)) {
        assert_eq!(ok(tokenizer.encode(text)).as_ref(), Some(&tokens), "the same text, other tokens");
        if let Some(decoded) = ok(tokenizer.decode(&tokens)) {
            ok(tokenizer.encode(&decoded));
        }
        ok(tokenizer.decode_prefix(&tokens));
    }
    for (parse_special, continues) in [(true, false), (false, true), (true, true)] {
        ok(tokenizer.encode_with(text, &TokenizeOptions { parse_special, continues }));
    }
}

fuzz_target!(|input: &[u8]| {
    if let Some((&first, text)) = input.split_first().filter(|&(&first, _)| first != b'{') {
        let Some(model) = KEPT.get(usize::from(first) % KEPT.len()) else { return };
        return encode(model.tokenizer().expect("a tokenizer"), &String::from_utf8_lossy(text));
    }
    let (json, text) = match input.iter().position(|&byte| byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &b"once upon a time"[..]),
    };
    let (Ok(json), text) = (str::from_utf8(json), String::from_utf8_lossy(text)) else { return };
    let Some(model) = with_tokenizer(json) else { return };
    let Some(tokenizer) = ok(model.tokenizer()) else { return };
    encode(tokenizer, &text);
    for token in (0..128).step_by(7) {
        ok(tokenizer.token_bytes(token));
        ok(tokenizer.decode(&[token, 0, token]));
    }
});
