//! The threads of a context, with their tests, as they are in the library.
#![allow(dead_code)]

#[path = "../../src/error.rs"]
mod error;

#[path = "../../src/forward"]
mod forward {
    pub mod cpu {
        mod threads;
    }
}
