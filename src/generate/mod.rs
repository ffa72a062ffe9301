//! The loop of generation: plan, forward, sample.
//!
//! A [`Session`] is one generation. It knows of each `Sequence` which tokens are known and which come next; each
//! `step` makes a batch of them, runs the model, and `draw`s a token from each row of logits. `request` is what the
//! caller asks for, `evaluate` asks the model without writing, `template` makes a prompt of a text with holes, `state` saves and restores a session.

mod clock;
mod draw;
mod evaluate;
mod grammars;
mod request;
mod sequence;
mod session;
mod state;
mod step;
mod template;
mod update;

pub(crate) use draw::TokenChoice;
pub use request::{GenerateParams, Prompt};
pub(crate) use session::Session;
pub use template::Template;
pub use update::{Step, Update};
