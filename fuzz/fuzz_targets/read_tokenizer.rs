//! A `tokenizer.json`.
#![no_main]

use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &str| {
    ok(esolm::fuzzing::tokenizer(json));
});
