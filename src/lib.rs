//! # esolm
//!
//! Runs quantized Esoteric Language Models (Eso-LMs, [arXiv 2506.01928](https://arxiv.org/abs/2506.01928)) on
//! your own machine: masked diffusion and autoregression in one model, many tokens per step, with an exact KV
//! cache, on ggml's backends.
//!
//! ## The way a token takes
//!
//! [`gguf`] reads a file, [`config`] says what model it holds.
#![warn(clippy::indexing_slicing)]

pub mod config;
mod error;
mod ggml;
pub mod gguf;

pub use error::{Error, Result};
