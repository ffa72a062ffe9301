//! The version of the library.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use crate::forward::system_info;

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

/// One line about the library and this machine, for reports of bugs: the version, the build's optional features (chat,
/// grammar, cuda, vulkan, metal), the devices, the default number of threads and the processors, the kernels that are used
/// here, the instruction sets that the build needs and that the processor has, and ggml's version and features. A static
/// string; its form may change. (llama.h's llama_print_system_info.) Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn esolm_system_info() -> *const c_char {
    static LINE: OnceLock<CString> = OnceLock::new();
    let line = || std::panic::catch_unwind(system_info).unwrap_or_default();
    LINE.get_or_init(|| CString::new(line()).unwrap_or_default()).as_ptr()
}
