//! # esolm
//!
//! Runs quantized Esoteric Language Models (Eso-LMs, [arXiv 2506.01928](https://arxiv.org/abs/2506.01928)) on
//! your own machine: masked diffusion and autoregression in one model, many tokens per step, with an exact KV
//! cache, on ggml's backends.
//!
//! ```no_run
//! use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt};
//! # fn main() -> esolm::Result<()> {
//! let model = Model::open("models/fairy-q8_0.gguf", &LoadOptions::default())?;
//! let mut context = Context::new(&model, &ContextParams::default())?;
//! let prompt = Prompt::prefix(&model.tokenizer()?.encode("Once upon a time")?);
//! context.begin(&[prompt], &GenerateParams::default())?;
//! while let Some(step) = context.step()? {
//!     eprintln!("step {} of {} wrote {} tokens", step.index + 1, step.total, step.updates.len());
//! }
//! println!("{}", context.text(0)?);
//! # Ok(())
//! # }
//! ```
//!
//! ## The way a token takes
//!
//! [`gguf`] reads a file, [`config`] says what model it holds, `model` puts its weights on a device. A `context`
//! has an `engine` with the memory (`kv_cache` says what lies where) and the threads; a `request` says what is
//! wanted; its `session` knows which tokens of each `sequence` come next (`plan`, from `order` and `schedule`),
//! each `step` sends them through the network (`forward`, or on the CPU `cpu`), a `constraint` may change the
//! logits, and the `sampler` makes tokens of them; `adaptive` steps keep only what the model is sure of. The
//! `tokenizer` makes text of tokens, a `template` tokens and holes of text. A `state` is what a context knows, as
//! bytes; an `output` is a file that gets its name when it is whole. The other way round, `score` and `bound` say
//! how likely a given text is.
//!
//! ## Threads
//!
//! A [`Model`] is immutable and may be used from any number of threads. A [`Context`] has one user at a time, as
//! `&mut` says; its [`CancelToken`] works from anywhere.
#![warn(clippy::indexing_slicing)]

mod adaptive;
mod bound;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
pub mod config;
mod constraint;
mod context;
#[cfg(feature = "convert")]
pub mod convert;
mod cpu;
mod engine;
mod error;
mod forward;
mod ggml;
pub mod gguf;
mod kv_cache;
mod log;
mod model;
mod order;
mod output;
mod plan;
mod profile;
#[cfg(feature = "convert")]
pub mod quality;
mod request;
mod rng;
mod sampler;
mod schedule;
mod score;
mod sequence;
mod session;
mod state;
mod step;
mod template;
mod tokenizer;
#[cfg(feature = "convert")]
pub mod verify;

pub use adaptive::{Adaptive, Confidence};
pub use bound::{Bound, Estimate, ScoreParams, TextScore};
pub use constraint::Constraints;
pub use context::{CancelToken, Context, ContextParams, Kernels, MemoryUse};
pub use error::{Error, Result};
pub use ggml::{Device, DeviceInfo, DeviceKind, devices};
pub use kv_cache::KvType;
pub use log::{LogLevel, LogReceiver, set_log_receiver};
pub use model::{LoadMode, LoadOptions, Model};
pub use order::Order;
pub use plan::Plan;
pub use profile::Profile;
pub use request::{GenerateParams, Prompt};
pub use sampler::{Sampler, Sampling};
pub use schedule::Schedule;
pub use step::{Choice, Step, Update};
pub use template::Template;
pub use tokenizer::{HOLE, Tokenizer};
