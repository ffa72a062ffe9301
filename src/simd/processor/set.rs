//! An instruction set by name.

use std::ffi::CStr;

/// An instruction set, and what is said if it is missing.
pub(super) struct InstructionSet {
    pub(super) name: &'static str,
    pub(super) message: &'static CStr,
    pub(super) message_of_ggml: &'static CStr,
}

/// What needs an instruction set. ggml is compiled by a build of its own, which may be for others: from a registry, without this
/// repository's `.cargo/config.toml`, it takes AVX2, FMA and more.
#[derive(Clone, Copy)]
pub(super) enum Compiled {
    Rust,
    Ggml,
}

#[allow(dead_code, reason = "where nothing is looked for, nothing is said")]
pub(super) const fn text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}
