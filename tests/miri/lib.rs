//! The threads of a context, with their tests, as they are in the library.
#![allow(dead_code)]

#[path = "../../src/error.rs"]
mod error;

#[path = "../../src/log.rs"]
mod log;

#[path = "../../src/simd"]
mod simd {
    mod floats;
    pub(crate) use floats::DefaultFloats;
}

#[path = "../../src/forward"]
mod forward {
    pub mod cpu {
        mod threads;
    }
}
