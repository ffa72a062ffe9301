//! The only wrapper around ggml, and with the C boundary the only unsafe code.
//!
//! ggml ends the process when it is misused, so everything here checks shapes, types, sizes and indices first
//! and answers with an error. Nothing of ggml's own types shows in this module's public items.
#![allow(unsafe_code)]

mod quantize;

pub(crate) use quantize::quantize;
