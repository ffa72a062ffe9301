//! Applies templates in Jinja, as model files have them: data from outside, so nothing that one says may take long, take
//! much memory, or end the process.
//!
//! `syntax` has minijinja's parser make a tree, within limits. `run` goes through its statements and `expressions` works out
//! what they say, in values of our own (`value`) that lie in one store (on a `shelf`), and whose making and walking a
//! `budget` pays for. `kwargs` reads more variables, `functions` and `methods` are what templates may call, `text` makes text of values, `rewrite` texts of
//! texts. Nothing here reads files or the clock. But for the parser's, an allocation that fails is a fault.
//!
//! Source: what transformers' `apply_chat_template` gives templates: Jinja with `trim_blocks`, `lstrip_blocks`, loop controls,
//! `raise_exception` and a `tojson` that escapes no HTML.

mod budget;
mod expressions;
mod functions;
mod kwargs;
mod methods;
mod rewrite;
mod run;
mod shelf;
mod syntax;
mod text;
mod value;

use budget::{Budget, Fault, Outcome};
pub(super) use kwargs::Mark;
use value::{Datum, Entries, Store, set};

use super::message::Message;
use crate::error::{Error, Result};
use crate::memory::{append, collected, start_scoped, try_collected};
use crate::simd::DefaultFloats;

/// The stack that a template runs on. Its tree may be some thousand nodes deep; callers' threads may have 128 KiB.
const STACK: usize = 16 << 20;

/// Most text of a template: this, and four times what the messages have.
const MAX_TEXT: usize = 1 << 20;

/// What a template may know beside the messages.
pub(super) struct Facts<'a> {
    pub(super) bos_token: &'a str,
    pub(super) eos_token: &'a str,
    pub(super) add_generation_prompt: bool,
    /// More variables: objects in JSON.
    pub(super) kwargs: &'a [String],
    /// What their texts are to be.
    pub(super) mark: Option<&'a Mark<'a>>,
}

/// Checks a template's syntax.
///
/// # Errors
/// [`Error::InvalidArgument`]; [`Error::OutOfMemory`].
pub(super) fn check(source: &str) -> Result<()> {
    on_own_stack(|| syntax::with_parsed(source, |_| Ok(())))
}

/// Checks an object of variables.
///
/// # Errors
/// [`Error::InvalidArgument`]; [`Error::OutOfMemory`].
pub(super) fn check_kwargs(json: &str) -> Result<()> {
    on_own_stack(|| {
        let store = Store::new(Budget::new(0, json.len()));
        kwargs::read(json, None, &store).map(|_| ())
    })
}

/// The text of a template.
///
/// # Errors
/// [`Error::InvalidArgument`]; [`Error::OutOfMemory`].
pub(super) fn render(source: &str, messages: &[Message<'_>], facts: &Facts<'_>) -> Result<String> {
    on_own_stack(|| text_of(source, messages, facts))
}

/// Runs `f` on a thread of its own, which has enough stack.
fn on_own_stack<T: Send>(f: impl FnOnce() -> Outcome<T> + Send) -> Result<T> {
    let ran = std::thread::scope(|scope| {
        let f = || {
            // The thread may have those of the caller.
            let _floats = DefaultFloats::set();
            f()
        };
        let thread = start_scoped(scope, Some(STACK), f)
            .map_err(|e| Error::OutOfMemory(format!("a thread for a chat template: {e}")))?;
        thread.join().map_err(|_| Error::internal("a chat template panicked"))
    });
    ran?.map_err(error)
}

fn text_of(source: &str, messages: &[Message<'_>], facts: &Facts<'_>) -> Outcome<String> {
    let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
    let given: usize = facts.kwargs.iter().map(String::len).sum();
    let bytes = bytes.saturating_add(given);
    let budget = Budget::new(messages.len(), bytes);
    let most = bytes.saturating_mul(4).saturating_add(MAX_TEXT);
    syntax::with_parsed(source, |tree| {
        let store = Store::new(budget);
        run::run(tree, variables(messages, facts, &store)?, most, &store)
    })
}

fn variables<'a>(messages: &[Message<'a>], facts: &Facts<'a>, store: &'a Store<'a>) -> Outcome<Entries<'a>> {
    let text = |text| Datum::text(text, &store.budget);
    let all = messages.iter().map(|message| {
        let entries = [("role", text(message.role)?), ("content", text(message.content)?)];
        Datum::map(collected(entries.into_iter())?, store)
    });
    let known = [
        ("messages", Datum::list(try_collected(all)?, store)?),
        ("bos_token", text(facts.bos_token)?),
        ("eos_token", text(facts.eos_token)?),
        ("add_generation_prompt", Datum::Bool(facts.add_generation_prompt)),
        ("tools", Datum::None),
        ("documents", Datum::None),
    ];
    let mut known = collected(known.into_iter())?;
    for json in facts.kwargs {
        for (name, value) in kwargs::read(json, facts.mark, store)? {
            set(&mut known, name, value, &store.budget)?;
        }
    }
    Ok(known)
}

fn error(fault: Fault) -> Error {
    let mut text = String::new();
    let said = match fault {
        Fault::Memory(error) => return error,
        Fault::Raised(what) => {
            append(&mut text, format_args!("the chat template refuses these messages: {what}"))
        }
        Fault::Wrong { what, line: Some(line) } => {
            append(&mut text, format_args!("chat template, line {line}: {what}"))
        }
        Fault::Wrong { what, line: None } => append(&mut text, format_args!("chat template: {what}")),
    };
    said.map_or_else(|error| error, |()| Error::InvalidArgument(text))
}

#[cfg(test)]
mod tests;
