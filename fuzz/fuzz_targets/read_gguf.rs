//! The header of a model file. Behind it are as many zeros as its tensors take.
#![no_main]

use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    file.resize(bytes.len() + 8192, 0);
    ok(esolm::fuzzing::model_header(&file));
});
