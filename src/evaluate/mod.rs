//! Models against each other, and against the authors' outputs.

pub mod quality;
pub mod verify;
mod windows;

pub(crate) use windows::spread;
