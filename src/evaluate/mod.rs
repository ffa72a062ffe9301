//! Comparing models: with each other (`quality`), and with recorded outputs of the reference (`verify`); and measuring what
//! a model writes (`samples`).

pub mod quality;
pub mod samples;
pub mod verify;
mod windows;

pub(crate) use windows::{spread, window_length};
