//! Applies templates in Jinja, as model files have them: data from outside, so nothing that one says may take long, take
//! much memory, or end the process.
//!
//! `syntax` has minijinja's parser make a tree, within limits. `run` goes through its statements and `expressions` works out
//! what they say, in values of our own (`value`) whose making and walking a `budget` pays for. `functions` and `methods` are what
//! templates may call, `text` makes text of values. Nothing here reads files or the clock.
//!
//! Source: what transformers' `apply_chat_template` gives templates: Jinja with `trim_blocks`, `lstrip_blocks`, loop controls,
//! `raise_exception` and a `tojson` that escapes no HTML.

mod budget;
mod expressions;
mod functions;
mod methods;
mod run;
mod syntax;
mod text;
mod value;

use budget::{Budget, Fault, Outcome};
use value::{Datum, Entries};

use super::message::Message;
use crate::error::{Error, Result};

/// The stack that a template runs on. Its tree may be some thousand nodes deep; callers' threads may have 128 KiB.
const STACK: usize = 16 << 20;

/// Most text of a template: this, and four times what the messages have.
const MAX_TEXT: usize = 1 << 20;

/// What a template may know beside the messages.
pub(super) struct Facts<'a> {
    pub(super) bos_token: &'a str,
    pub(super) eos_token: &'a str,
    pub(super) add_generation_prompt: bool,
}

/// Checks a template's syntax.
///
/// # Errors
/// [`Error::InvalidArgument`].
pub(super) fn check(source: &str) -> Result<()> {
    on_own_stack(|| syntax::with_parsed(source, |_| Ok(())))
}

/// The text of a template.
///
/// # Errors
/// [`Error::InvalidArgument`].
pub(super) fn render(source: &str, messages: &[Message<'_>], facts: &Facts<'_>) -> Result<String> {
    on_own_stack(|| text_of(source, messages, facts))
}

/// Runs `f` on a thread of its own, which has enough stack.
fn on_own_stack<T: Send>(f: impl FnOnce() -> Outcome<T> + Send) -> Result<T> {
    let ran = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, f);
        let thread = thread.map_err(|e| Error::OutOfMemory(format!("a thread for a chat template: {e}")))?;
        thread.join().map_err(|_| Error::internal("a chat template panicked"))
    });
    ran?.map_err(error)
}

fn text_of(source: &str, messages: &[Message<'_>], facts: &Facts<'_>) -> Outcome<String> {
    let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
    let budget = Budget::new(messages.len(), bytes);
    let most = bytes.saturating_mul(4).saturating_add(MAX_TEXT);
    let variables = variables(messages, facts, &budget)?;
    syntax::with_parsed(source, |tree| run::run(tree, variables, most, &budget))
}

fn variables(messages: &[Message<'_>], facts: &Facts<'_>, budget: &Budget) -> Outcome<Entries> {
    let mut all = Vec::new();
    for message in messages {
        let entries = [("role", message.role), ("content", message.content)];
        let entries: Outcome<Entries> =
            entries.into_iter().map(|(name, text)| Ok((name.into(), Datum::text(text, budget)?))).collect();
        all.push(Datum::map(entries?, budget)?);
    }
    let known = [
        ("messages", Datum::list(all, budget)?),
        ("bos_token", Datum::text(facts.bos_token, budget)?),
        ("eos_token", Datum::text(facts.eos_token, budget)?),
        ("add_generation_prompt", Datum::Bool(facts.add_generation_prompt)),
        ("tools", Datum::None),
        ("documents", Datum::None),
    ];
    Ok(known.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn error(fault: Fault) -> Error {
    let Fault { what, line, raised } = fault;
    Error::InvalidArgument(match (raised, line) {
        (true, _) => format!("the chat template refuses these messages: {what}"),
        (false, Some(line)) => format!("chat template, line {line}: {what}"),
        (false, None) => format!("chat template: {what}"),
    })
}

#[cfg(test)]
mod tests;
