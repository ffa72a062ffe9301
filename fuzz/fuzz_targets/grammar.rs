//! A grammar: its kind, how it is written with, and a regular expression or a JSON schema. A text that it ends is JSON, or UTF-8.
#![no_main]

use std::cell::RefCell;

use esolm::{
    Constraints, Context, ContextParams, Error, GenerateParams, Grammar, Prompt, SamplingParams, StopReason,
};
use esolm_fuzz::{letters, ok};
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// Kept, as the trie of the vocabulary is.
    static CONTEXT: RefCell<Context> = {
        let params = ContextParams { threads: 1, ..ContextParams::default() };
        RefCell::new(Context::new(&letters(), &params).expect("a context"))
    };
}

fuzz_target!(|input: &[u8]| {
    let &[kind, seed, ref text @ ..] = input else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let is_json = kind & 1 == 1;
    let grammar = if is_json { Grammar::JsonSchema(text.into()) } else { Grammar::Regex(text.into()) };
    let rules = [Constraints { grammar: Some(grammar), ..Constraints::default() }];
    // Any token, or the likeliest: one that ends soon, or goes on.
    let sampling = SamplingParams { temperature: f32::from(kind >> 1 & 1), ..SamplingParams::FULL };
    let params = GenerateParams {
        alpha_0: 0.0,
        constraints: &rules,
        lookahead: u32::from(kind >> 2 & 3),
        sampling,
        seed: seed.into(),
        ..GenerateParams::default()
    };
    CONTEXT.with_borrow_mut(|context| {
        if ok(context.begin(&[Prompt::default()], &params)).is_none() {
            return;
        }
        loop {
            match context.step() {
                Ok(Some(_)) => (),
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
                    return;
                }
            }
        }
        if ok(context.stop_reason(0)).flatten() == Some(StopReason::EndOfText) {
            let text = ok(context.text(0)).expect("a text that ended");
            // Numbers may be beyond an f64.
            let is_value = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            assert!(!is_json || is_value, "no JSON: {text}");
        }
    });
});
