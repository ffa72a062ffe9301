//! The header of a safetensors file, whose length the target writes. The first two bytes say how long the rest is.
#![no_main]

use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&rest, header)) = bytes.split_first_chunk::<2>() else { return };
    let file = [&(header.len() as u64).to_le_bytes(), header].concat();
    ok(esolm::fuzzing::safetensors(&file, file.len() as u64 + u64::from(u16::from_le_bytes(rest))));
});
