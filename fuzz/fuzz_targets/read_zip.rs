//! The directory of a zip, and the local headers that it names.
#![no_main]

use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    ok(esolm::fuzzing::zip(bytes));
});
