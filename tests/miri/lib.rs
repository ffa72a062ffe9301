//! The threads of a context, with their tests, as they are in the library.
#![allow(dead_code)]

#[path = "../../src/error.rs"]
mod error;

mod forward {
    pub mod cpu {
        #[path = "../../../../src/forward/cpu/threads/mod.rs"]
        mod threads;
    }
}
