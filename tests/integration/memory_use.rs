//! The memory that a context says it needs. The memory that it takes is measured in `tests/memory.rs`.

use esolm::{Context, ContextParams, Error, KvType, MemoryUse, Variant};

use crate::reference::Network;
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
