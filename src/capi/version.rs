//! The version of the library.

use std::ffi::c_char;

/// Major version of the header.
pub const ESOLM_VERSION_MAJOR: u32 = 0;
/// Minor version of the header.
pub const ESOLM_VERSION_MINOR: u32 = 1;
/// Patch version of the header.
pub const ESOLM_VERSION_PATCH: u32 = 0;
/// Version of the binary interface, which is in the shared library's name. A new one means: recompile the program.
pub const ESOLM_ABI_VERSION: u32 = 0;

const _: () = {
    assert!(number(env!("CARGO_PKG_VERSION_MAJOR")) == ESOLM_VERSION_MAJOR);
    assert!(number(env!("CARGO_PKG_VERSION_MINOR")) == ESOLM_VERSION_MINOR);
    assert!(number(env!("CARGO_PKG_VERSION_PATCH")) == ESOLM_VERSION_PATCH);
};

/// A decimal number.
const fn number(text: &str) -> u32 {
    let (mut rest, mut value) = (text.as_bytes(), 0);
    while let [digit, tail @ ..] = rest {
        value = value * 10 + (*digit - b'0') as u32;
        rest = tail;
    }
    value
}

/// The version of the linked library, such as "0.1.0". A static string.
#[unsafe(no_mangle)]
pub extern "C" fn esolm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// ESOLM_ABI_VERSION of the linked library, to compare with the header's when it is loaded at run time.
#[unsafe(no_mangle)]
pub extern "C" fn esolm_abi_version() -> u32 {
    ESOLM_ABI_VERSION
}
