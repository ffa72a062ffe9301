//! # esolm
//!
//! Runs quantized Esoteric Language Models (Eso-LMs, [arXiv 2506.01928](https://arxiv.org/abs/2506.01928)) on
//! your own machine: masked diffusion and autoregression in one model, many tokens per step, with an exact KV
//! cache, on ggml's backends.
//!
//! ```no_run
//! use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt};
//! # fn main() -> esolm::Result<()> {
//! let model = Model::open("models/stories-q8_0.gguf", &LoadOptions::default())?;
//! let mut context = Context::new(&model, &ContextParams::default())?;
//! let prompt = Prompt::prefix(&model.tokenizer()?.encode("Once upon a time")?)?;
//! context.begin(&[prompt], &GenerateParams::default())?;
//! while let Some(step) = context.step()? {
//!     eprintln!("step {} of {} wrote {} tokens", step.index + 1, step.total, step.updates.len());
//! }
//! println!("{}", context.text(0)?);
//! # Ok(())
//! # }
//! ```
//!
//! ## How a token is generated
//!
//! A folder of `src/` imports only from those below it. [`convert`], [`quantize`] and [`evaluate`] make and measure
//! model files; [`Context`] is the entry point to the modules below.
//!
//! * `gguf` parses a file, `model` checks its header and puts the weights on a device (`ggml`, `memory`).
//! * `generate` begins a session: `plan` orders the unknown positions and counts the tokens of each step.
//! * Each step fills a batch with the rows of its known tokens and masks.
//! * `forward` runs the batch through the network, on its own CPU kernels or as a ggml graph: logits.
//! * `sample` applies constraints and draws a token from each row of logits.
//! * `generate` writes the tokens into their sequences; `model`'s tokenizer makes text of them.
//! * The other way round, `score` computes how likely a given text is.
//!
//! ## Threads
//!
//! A [`Model`] is immutable and may be used from any number of threads. A [`Context`] has one user at a time, as
//! `&mut` says; its [`CancelToken`] works from anywhere.
#![warn(clippy::indexing_slicing)]

mod atomic_file;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
mod chat;
mod context;
#[cfg(feature = "convert")]
pub mod convert;
mod error;
#[cfg(feature = "convert")]
pub mod evaluate;
mod forward;
#[cfg(all(fuzzing, feature = "convert"))]
#[doc(hidden)]
pub mod fuzzing;
mod generate;
mod ggml;
pub mod gguf;
mod json;
mod log;
mod memory;
mod model;
mod plan;
#[cfg(feature = "convert")]
pub mod quantize;
mod rng;
mod sample;
mod score;
mod simd;

pub use atomic_file::{check_writable, copy_file, remove_temporary_files, temporary_file, write_file};
pub use chat::{ChatTemplate, Message};
pub use context::Context;
pub use error::{Error, Result};
#[doc(hidden)]
pub use forward::limits;
pub use forward::{
    CancelToken, ContextParams, Kernels, KvType, MemoryUse, Profile, ThreadPool, ThreadPoolParams,
    system_info,
};
pub use generate::{GenerateParams, Prompt, Step, StopReason, Template, Update};
pub use ggml::{Device, DeviceInfo, DeviceKind, devices};
pub use log::{LogLevel, LogReceiver, set_log_level, set_log_receiver};
pub use memory::{ModelReader, plain_text};
pub use model::{
    Architecture, Config, Defaults, Feature, LoadMode, LoadOptions, MASK, Mlp, Model, Norm, TensorSpec,
    TokenizeOptions, Tokenizer, Variant,
};
pub use plan::{Adaptive, Confidence, Order, Plan, Schedule};
pub use sample::{Constraints, Dry, Grammar, LogitsRow, Sampler, SamplingParams, TokenLogProb};
pub use score::{Bound, Estimate, ScoreParams, TextScore};
pub use simd::missing_instructions;
