//! The pickle of a checkpoint: tensors, configuration, tokenizer. The first byte says which weights are wanted.
#![no_main]

use std::sync::LazyLock;

use esolm::fuzzing::Storages;
use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

static STORAGES: LazyLock<Storages> = LazyLock::new(|| Storages::new(&[768, 64, 32, 256]));

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, pickle)) = bytes.split_first() else { return };
    ok(STORAGES.checkpoint(pickle, kind & 2 != 0));
});
