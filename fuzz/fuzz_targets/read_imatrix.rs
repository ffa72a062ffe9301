//! An importance matrix, for a model of width 8.
#![no_main]

use std::sync::LazyLock;

use esolm::{Config, Variant};
use esolm_fuzz::{config, ok};
use libfuzzer_sys::fuzz_target;

static CONFIG: LazyLock<Config> = LazyLock::new(|| config(Variant::EsoB));

fuzz_target!(|bytes: &[u8]| {
    ok(esolm::fuzzing::importance(bytes, &CONFIG));
});
