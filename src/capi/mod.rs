//! The C boundary: what `include/esolm.h` declares, one file per C noun.
//!
//! Types carry their C names, and the comments on public items are the header's text: they say what a caller
//! must know, in C's terms. Every function is a thin closure over a safe method of the crate; [`status`] turns
//! errors and panics into status codes, [`args`] checks pointers, [`params`] reads and writes sized structs.
//!
//! The header is made by `make header` (tests/header.rs) and committed.
#![allow(non_camel_case_types)]
#![allow(clippy::missing_safety_doc, reason = "the header's opening comment states what callers promise")]

mod args;
mod callback;
mod constraints;
mod context;
mod device;
mod generate;
mod log;
mod memory;
mod model;
mod params;
mod profile;
mod request;
mod score;
mod state;
mod status;
mod tokenizer;
mod version;

pub use callback::esolm_progress_callback;
pub use constraints::*;
pub use context::*;
pub use device::*;
pub use generate::*;
pub use log::*;
pub use memory::*;
pub use model::*;
pub use profile::*;
pub use request::*;
pub use score::*;
pub use state::*;
pub use status::*;
pub use tokenizer::*;
pub use version::*;
