//! The memory that a context says it needs. The memory that it takes is measured in `tests/memory.rs`.

use esolm::{Architecture, Config, Context, ContextParams, Error, KvType, MemoryUse, Variant};

use crate::reference::{Network, config};
use crate::runs::params;

#[test]
fn memory_use_follows_from_the_parameters() {
    let model = Network::small(Variant::EsoB, 1).model();
    let usage = |params: ContextParams| Context::memory_use(&model, &params).unwrap();
    for (kv_type, bytes) in [(KvType::F32, 4), (KvType::F16, 2)] {
        for sequences in [1, 3] {
            // Slots for the text and, in whole groups of 32, for as many masks or half of a pass.
            for (length, batch_rows, slots) in
                [(1, 0, 64), (32, 0, 64), (33, 0, 128), (48, 95, 128), (48, 64, 96), (48, 1, 96)]
            {
                let memory = usage(ContextParams { kv_type, length, batch_rows, ..params(sequences) });
                // Keys and values of 2 blocks, 64 wide.
                assert_eq!(memory.kv_cache, 2 * 2 * 64 * bytes * slots * sequences);
                let MemoryUse { weights, arena, kv_cache, compute } = memory;
                assert_eq!(weights, model.tensor_bytes());
                assert!(arena >= kv_cache + compute, "{memory:?}");
                assert!(arena < kv_cache + compute + (1 << 20), "{memory:?}");
            }
        }
    }
    let smallest = usage(ContextParams { batch_rows: 1, ..params(1) });
    assert!(smallest.compute < usage(params(1)).compute, "fewer rows need less");
    let too_long = ContextParams { length: 49, ..params(1) };
    assert!(matches!(Context::memory_use(&model, &too_long), Err(Error::InvalidArgument(_))));
    assert!(matches!(Context::new(&model, &too_long), Err(Error::InvalidArgument(_))));
    let absurd = ContextParams { sequences: usize::MAX, ..params(1) };
    assert!(matches!(Context::memory_use(&model, &absurd), Err(Error::InvalidArgument(_))));
    let absurd = ContextParams { batch_rows: usize::MAX, ..params(2) };
    assert_eq!(usage(absurd), usage(ContextParams { batch_rows: 2 * 128, ..params(2) }));
}

#[test]
fn length_is_4096_unless_more_is_asked_for() {
    for (of_model, wanted, length) in
        [(10_000, 0, 4096), (10_000, 6000, 6000), (10_000, 10_000, 10_000), (4096, 0, 4096), (300, 0, 300)]
    {
        let config = Config { context_length: of_model, ..config(1, 4) };
        let model = Network::random(config, 1).model();
        let context = Context::new(&model, &ContextParams { length: wanted, ..params(1) }).unwrap();
        assert_eq!(context.length(), length, "{wanted} of {of_model}");
    }
}

/// So a token of Qwen3's 8 B shape takes 147,456 bytes in f16: 36 blocks, of which each has keys and values of 8 heads, 128 wide.
#[test]
fn heads_that_share_keys_and_values_take_the_memory_once() {
    let cache = |kv_head_count| {
        let architecture = Architecture { kv_head_count, ..Architecture::QWEN3 };
        let model = Network::random(Config { architecture, variant: Variant::Ar, ..config(3, 4) }, 1).model();
        Context::memory_use(&model, &ContextParams { kv_type: KvType::F16, ..params(1) }).unwrap().kv_cache
    };
    // Three blocks, keys and values, two bytes, heads that are 16 wide, whole groups of 32 slots.
    let per_token = |heads: usize| 3 * 2 * 2 * 16 * heads;
    for (given, heads) in [(None, 4), (Some(2), 2), (Some(1), 1)] {
        let slots = cache(given) / per_token(heads);
        assert!(slots.is_multiple_of(32) && slots * per_token(heads) == cache(given), "{given:?}: {slots}");
        assert_eq!(slots, cache(None) / per_token(4), "{given:?}");
    }
}
