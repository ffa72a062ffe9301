//! A saved state, restored and continued. The first byte says into which context, and whether the checksum is mended.
#![no_main]

use esolm::{Context, ContextParams, GenerateParams, KvType, Model, Prompt, Variant};
use esolm_fuzz::{model, ok};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static MODELS: LazyLock<[Model; 2]> = LazyLock::new(|| [model(Variant::EsoB), model(Variant::Ar)]);

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let kv_type = if kind & 1 == 0 { KvType::F16 } else { KvType::F32 };
    let params = ContextParams { sequences: 2, threads: 1, kv_type, ..ContextParams::default() };
    let mut context = Context::new(&MODELS[usize::from(kind >> 1 & 1)], &params).expect("a context");
    let mut state = rest.to_vec();
    if kind & 4 == 0
        && let Some((body, crc)) = state.split_last_chunk_mut::<4>()
    {
        *crc = crc32fast::hash(body).to_le_bytes();
    }
    if ok(context.restore(&state)).is_none() {
        return;
    }
    let sequences = context.sequences();
    let text: Vec<_> = (0..sequences).map(|n| context.tokens(n).expect("tokens").to_vec()).collect();
    // What was restored is saved as the same text.
    let again = context.save().expect("a state");
    assert_eq!(again.len(), context.saved_size().expect("a size"));
    context.restore(&again).expect("a state of this context");
    let known: Vec<_> = (0..sequences).map(|n| context.tokens(n).expect("tokens").to_vec()).collect();
    assert_eq!(text, known);
    let prompts = vec![Prompt::default(); sequences];
    if sequences > 0
        && ok(context.extend(&prompts, &GenerateParams { seed: 1, ..GenerateParams::default() })).is_some()
    {
        while let Some(Some(_)) = ok(context.step()) {}
    }
});
