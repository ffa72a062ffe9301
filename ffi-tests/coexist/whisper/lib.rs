//! The second library with whisper.cpp in it.

#[path = "../second.rs"]
mod second;

pub use second::second_sum;
// Nothing of it is called from here; the program calls the C functions.
extern crate whisper_rs_sys;
