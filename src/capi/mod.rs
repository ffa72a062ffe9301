//! The C boundary: what `include/esolm.h` declares, one file per C noun.
//!
//! Types have their C names, and the comments on public items are the header's text: what a caller must know, in C's
//! terms. Each file is one part of the header; `make header` writes it (tests/header.rs has the order of the parts).
//!
//! Every exported function is a thin closure over a safe method of the crate. `status::wrap` turns errors and panics
//! into status codes, `args` checks pointers, `params` reads and writes structs that carry their size. These and
//! `callback` are the ground: they import nothing from the other files, and no files import each other in a circle.
#![allow(non_camel_case_types)]
#![allow(clippy::missing_safety_doc, reason = "the header's opening comment states what callers promise")]

mod args;
mod callback;
mod cancel;
mod chat;
mod constraints;
mod context;
mod device;
mod evaluate;
mod exclusive;
mod generate;
mod log;
mod logits;
mod memory;
mod metadata;
mod model;
mod params;
mod pool;
mod profile;
mod prompt;
mod reader;
mod request;
mod score;
mod sequence;
mod snapshot;
mod state;
mod status;
mod step;
mod sync;
mod tokenizer;
mod version;

pub use callback::esolm_progress_callback;
pub use cancel::*;
pub use chat::*;
pub use constraints::*;
pub use context::*;
pub use device::*;
pub use evaluate::*;
pub use generate::*;
pub use log::*;
pub use logits::{esolm_logits_callback, esolm_logits_row};
pub use memory::*;
pub use metadata::*;
pub use model::*;
pub use pool::*;
pub use profile::*;
pub use prompt::*;
pub use reader::*;
pub use request::*;
pub use score::*;
pub use sequence::*;
pub use state::*;
pub use status::*;
pub use step::{
    ESOLM_STOP_CANCELLED, ESOLM_STOP_END_OF_TEXT, ESOLM_STOP_ERROR, ESOLM_STOP_LENGTH, ESOLM_STOP_NONE,
    ESOLM_STOP_STRING, ESOLM_STOP_TOKEN, esolm_step_info, esolm_step_text, esolm_update,
};
pub use tokenizer::*;
pub use version::*;
