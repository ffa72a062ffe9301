//! A saved state with its checksum mended, restored and saved again. The first byte says into which context.
#![no_main]

use std::cell::RefCell;

use esolm::{Context, ContextParams, KvType, Variant};
use esolm_fuzz::{model, ok};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static CONTEXTS: [RefCell<Context>; 4] = [0, 1, 2, 3].map(|kind| {
        let kv_type = if kind & 1 == 0 { KvType::F16 } else { KvType::F32 };
        let model = model(if kind & 2 == 0 { Variant::EsoB } else { Variant::Ar });
        let params = ContextParams { sequences: 2, threads: 1, kv_type, ..ContextParams::default() };
        RefCell::new(Context::new(&model, &params).expect("a context"))
    });
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let mut state = rest.to_vec();
    if let Some((body, crc)) = state.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(body).to_le_bytes();
    }
    CONTEXTS.with(|contexts| {
        let mut context = contexts[usize::from(kind & 3)].borrow_mut();
        if ok(context.restore(&state)).is_some() {
            assert_eq!(context.save().expect("a state").len(), context.saved_size().expect("a size"));
        }
    });
});
