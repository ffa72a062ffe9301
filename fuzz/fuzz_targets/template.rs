//! A text with holes.
#![no_main]

use std::sync::LazyLock;

use esolm::{Model, Template, Variant};
use esolm_fuzz::{model, ok};
use libfuzzer_sys::fuzz_target;

static MODEL: LazyLock<Model> = LazyLock::new(|| model(Variant::EsoB));

fuzz_target!(|text: &str| {
    let Some(template) = ok(Template::parse(text)) else { return };
    let tokenizer = MODEL.tokenizer().expect("a tokenizer");
    let Some((prompt, length)) = ok(template.prompt(tokenizer)) else { return };
    assert!(prompt.known.is_sorted_by_key(|&(position, _)| position), "not by position");
    assert!(prompt.known.windows(2).all(|pair| pair[0].0 != pair[1].0), "a position twice");
    assert!(prompt.known.iter().all(|&(position, _)| (position as usize) < length), "beyond the length");
    if !text.contains("{{") {
        assert_eq!(prompt.known.len(), length, "a hole without a hole");
    }
});
