//! The other Rust library, with whisper.cpp in it.

#[path = "../second.rs"]
mod second;

pub use second::second_sum;
// Linked for its C functions, which the program calls.
extern crate whisper_rs_sys;
