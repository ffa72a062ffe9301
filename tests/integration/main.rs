//! The library's tests through its public API. What needs a process of its own is beside this folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// What the tests share.
mod golden;
#[path = "../reference/mod.rs"]
mod reference;
mod replay;
#[path = "../models/rewritten.rs"]
mod rewritten;
mod runs;

// The network, against the authors' code and against the reference network.
mod ar;
mod bd3lm;
mod cache;
mod eso_a;
mod eso_b;
mod kv_bytes;
mod kv_range;
mod mdlm;
mod reference_network;
mod rounding;
mod variants;
mod wedlm;

// Generation.
mod adaptive;
mod appending;
mod begin_errors;
mod cancel;
mod chat;
mod common_prompts;
mod constraint_errors;
mod constraints;
mod defaults;
mod devices;
mod extend;
mod filter;
mod generate;
mod grammars;
mod infilling;
mod joining;
mod lookahead;
mod lookahead_wedlm;
mod memory_use;
mod on_demand;
mod orders;
mod overhead;
mod profile;
mod reported_scores;
mod rules_in_windows;
mod saved_states;
mod step_errors;
mod stopping;
mod streaming;
mod threads;
mod tokenizing;
mod windows;

// Likelihood and quality.
mod bounds;
mod heldout;
mod quality;
mod samples;
mod score;
mod verify;

// Model files.
mod convert;
mod gguf;
mod loading;
mod long_prompts;
mod model_files;
mod quantize;

// README.md and docs/.
mod documents;
