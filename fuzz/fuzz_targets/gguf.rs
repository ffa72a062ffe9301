//! A model file: opened, looked at, and a short text generated with it.
#![no_main]

use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt, Variant};
use esolm_fuzz::{MOST_ARENA, ok};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
    let Some(model) = ok(Model::from_bytes(bytes, &options)) else { return };
    for (key, value) in model.metadata() {
        assert!(model.metadata_value(key).is_some());
        let _ = value.to_string();
    }
    let params = ContextParams {
        length: model.config().context_length.min(8),
        threads: 1,
        ..ContextParams::default()
    };
    if ok(Context::memory_use(&model, &params)).is_some_and(|memory| memory.arena <= MOST_ARENA)
        && let Some(mut context) = ok(Context::new(&model, &params))
    {
        let config = model.config();
        let alpha_0 = if config.diffusion_only { 1.0 } else { 0.5 };
        let generate = match config.variant {
            // Its window decides.
            Variant::WeDlm => GenerateParams::default(),
            _ => GenerateParams { steps: 3, alpha_0, ..GenerateParams::default() },
        };
        let prompt = Prompt::prefix(&[0][..config.given_tokens()]).unwrap();
        if ok(context.begin(&[prompt], &generate)).is_some() {
            while let Some(Some(_)) = ok(context.step()) {}
        }
    }
    if let Some(tokenizer) = ok(model.tokenizer())
        && let Some(tokens) = ok(tokenizer.encode("once upon a time<eos>"))
    {
        ok(tokenizer.decode(&tokens));
    }
});
