//! `tokenizer.json`, a zero byte, and a text: to tokens and back.
#![no_main]

use esolm::gguf::TensorType;
use esolm::{Config, LoadOptions, Model, TokenizeOptions, Variant};
use esolm_fuzz::{VOCAB_SIZE, bytes, check, config, ok};
use libfuzzer_sys::fuzz_target;

/// A model with this tokenizer, of this many tokens with the mask.
fn model(json: &str, vocab_size: usize) -> Option<Model> {
    let config = Config {
        vocab_size,
        mask_token_id: vocab_size as u32 - 1,
        eos_token_id: None,
        ..config(Variant::EsoB)
    };
    let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
    ok(Model::from_bytes(&bytes(&config, json, TensorType::F32), &options))
}

fuzz_target!(|input: &[u8]| {
    let (json, text) = match input.iter().position(|&byte| byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &b"once upon a time"[..]),
    };
    let larger;
    let (Ok(json), text) = (str::from_utf8(json), String::from_utf8_lossy(text)) else { return };
    let Some(model) = model(json, VOCAB_SIZE) else { return };
    let tokenizer = match model.tokenizer() {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            check(&error);
            // One of another size: into a model of that size.
            let said = error.to_string();
            let size = said
                .split_once("the tokenizer has ")
                .and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
            let Some(size) = size.filter(|size| (1..4096).contains(size)) else { return };
            larger = self::model(json, size + 1).expect("a model");
            let Some(tokenizer) = ok(larger.tokenizer()) else { return };
            tokenizer
        }
    };
    if let Some(tokens) = ok(tokenizer.encode(&text)) {
        assert_eq!(ok(tokenizer.encode(&text)).as_ref(), Some(&tokens), "the same text, other tokens");
        if let Some(decoded) = ok(tokenizer.decode(&tokens)) {
            ok(tokenizer.encode(&decoded));
        }
        ok(tokenizer.decode_prefix(&tokens));
    }
    for (parse_special, continues) in [(true, false), (false, true), (true, true)] {
        ok(tokenizer.encode_with(&text, &TokenizeOptions { parse_special, continues }));
    }
    for token in (0..128).step_by(7) {
        ok(tokenizer.token_bytes(token));
        ok(tokenizer.decode(&[token, 0, token]));
    }
});
