//! Comparing models: with each other (`quality`), and with recorded outputs of the reference (`verify`).

pub mod quality;
pub mod verify;
mod windows;

pub(crate) use windows::spread;
