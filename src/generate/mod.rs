//! The loop of generation: plan, forward, sample.
//!
//! A [`Session`] is one generation. It knows of each `Sequence` which tokens are known and which come next, and by which
//! `rules`; `begin` makes them of prompts, and they may `join` and leave later; `prompt_rows` divides a long prompt among steps. Each `step` makes a batch of them, runs the model, and `draw`s a token from each row of logits. With `lookahead`, of a `depth` that may be found out by the `overhead` of a pass, it writes several tokens that have the distribution of one, with `proposals` for the next step. `evaluate` asks the model without
//! writing. `finished`
//! is the beginning of a sequence without gaps, in which `stop` finds the end of the text. `request` is what the caller asks for, `template` makes a prompt of a text with holes, `state` saves and restores a session, whose bytes are `state_format`.

mod begin;
mod blocks;
mod check;
mod clock;
mod common_prompts;
mod depth;
mod device_draw;
mod draw;
mod evaluate;
mod finished;
mod grammars;
mod join;
mod lookahead;
mod overhead;
mod place_rates;
mod prompt_rows;
mod proposals;
mod request;
mod rules;
mod sequence;
mod session;
mod start;
mod state;
mod state_format;
mod step;
mod stop;
mod template;
mod timing;
mod update;
mod window;
mod window_size;

pub(crate) use draw::TokenChoice;
pub(crate) use finished::TextEnd;
pub use request::{GenerateParams, Prompt};
pub(crate) use session::Session;
pub(crate) use state::saved_sequences;
pub use stop::StopReason;
pub use template::Template;
pub use update::{Step, Update};
