//! Host memory: one arena per context, and the bytes of a model file.
#![allow(unsafe_code)]

mod arena;
mod file;

pub use arena::ALIGNMENT;
pub(crate) use arena::{Arena, Region};
pub(crate) use file::FileBytes;
