//! Constraints by a grammar: a regular expression or a JSON schema for the text that is written, from left to right.
//!
//! The matcher is llguidance's, behind the feature `grammar`; without it a grammar is [`Error::Unsupported`].

#[cfg(feature = "grammar")]
mod llguidance;
mod matcher;
#[cfg(feature = "grammar")]
mod schema_limits;

use super::logits::LogitsRow;
use crate::error::{Error, Result};
use crate::memory::filled;
use crate::model::Model;
pub use matcher::Grammar;
use matcher::{GrammarCompiler, GrammarMatcher};

/// Longest grammar in bytes: the time to compile some grows with the square of their length, to about a second for this one. What
/// takes longer is refused.
const LONGEST: usize = 1 << 16;

impl Grammar {
    /// Checks what does not take the matcher: that the unknown positions are one run, whose tokens are written one by one
    /// from left to right. Returns whether the run ends with the text.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another order; [`Error::InvalidArgument`].
    pub(crate) fn check(&self, known: &[u32], mask: u32, in_order: bool) -> Result<bool> {
        let (kind, text) = self.parts();
        if text.len() > LONGEST {
            return Err(Error::invalid(format!("{kind}: {} bytes; at most {LONGEST}", text.len())));
        }
        if !in_order {
            return Err(Error::Unsupported(format!(
                "{kind}: a grammar needs one token per step from left to right: alpha_0 of 0, or the order left to right \
                 with a schedule of 1"
            )));
        }
        let runs = known.chunk_by(|a, b| (*a == mask) == (*b == mask));
        if runs.filter(|run| run.first() == Some(&mask)).count() > 1 {
            return Err(Error::invalid(format!(
                "{kind}: a grammar is for one hole, or for what follows the prompt; this text has several holes \
                 (docs/sampling.md: fields one after another)"
            )));
        }
        Ok(known.last() == Some(&mask))
    }
}

/// Makes matchers for a model. What they share is made with the first one.
#[derive(Debug, Default)]
pub(crate) struct Grammars {
    compiler: Option<Box<dyn GrammarCompiler>>,
    /// The last one, and a matcher at its beginning: the next text often has the same.
    last: Option<(Grammar, Box<dyn GrammarMatcher>)>,
}

impl Grammars {
    /// A matcher for a sequence. `to_the_end`: whether it writes up to the end of the text, so that the model's end-of-text
    /// token may follow.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a grammar that is damaged or takes too much; [`Error::Unsupported`] without the
    /// feature `grammar`; [`Error::Tokenizer`].
    pub(crate) fn compile(
        &mut self,
        grammar: &Grammar,
        model: &Model,
        to_the_end: bool,
    ) -> Result<GrammarState> {
        let compiler = match &mut self.compiler {
            Some(compiler) => compiler,
            none => none.insert(compiler(model)?),
        };
        let last = match self.last.take_if(|(last, _)| last == grammar) {
            Some(same) => same,
            None => (grammar.copied()?, compiler.compile(grammar)?),
        };
        let (_, matcher) = self.last.insert(last);
        Ok(GrammarState {
            matcher: matcher.separate(),
            written: Vec::new(),
            ahead: None,
            allowed: filled(model.config().vocab_size, false)?,
            end: model.config().eos_token_id.filter(|_| to_the_end),
        })
    }
}

#[cfg(feature = "grammar")]
fn compiler(model: &Model) -> Result<Box<dyn GrammarCompiler>> {
    llguidance::compiler(model)
}

#[cfg(not(feature = "grammar"))]
fn compiler(_: &Model) -> Result<Box<dyn GrammarCompiler>> {
    Err(Error::Unsupported(
        "grammars: this build of esolm lacks the feature 'grammar' (docs/sampling.md)".into(),
    ))
}

/// How far the text of a sequence has matched its grammar.
#[derive(Debug)]
pub(crate) struct GrammarState {
    matcher: Box<dyn GrammarMatcher>,
    /// The tokens that were written, until the matcher advances past them.
    written: Vec<u32>,
    /// The matcher that looks ahead, if one does.
    ahead: Option<Box<dyn GrammarMatcher>>,
    /// The tokens that may come next, once [`GrammarState::prepare`] has found them.
    allowed: Vec<bool>,
    /// The token that may follow a complete match.
    end: Option<u32>,
}

impl GrammarState {
    /// Finds the tokens that may come next. May be called again.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none, or if finding them takes too much.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.written.drain(..).try_for_each(|token| self.matcher.advance(token))?;
        let complete = self.ahead.as_mut().unwrap_or(&mut self.matcher).allowed(&mut self.allowed)?;
        if let Some(allowed) = self.end.and_then(|end| self.allowed.get_mut(end as usize)) {
            *allowed = complete;
        }
        if self.allowed.contains(&true) {
            return Ok(());
        }
        let what = if complete { "is complete, but positions are left" } else { "allows no token" };
        Err(Error::invalid(format!("the grammar {what}")))
    }

    /// Rules out the other tokens. [`GrammarState::prepare`] has to come first.
    pub(super) fn apply(&self, row: &mut [f32]) {
        for (logit, &allowed) in row.iter_mut().zip(&self.allowed) {
            *logit = if allowed { *logit } else { f32::NEG_INFINITY };
        }
    }

    /// Whether `token` may come next. [`GrammarState::prepare`] has to come first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it may not.
    pub(crate) fn check(&self, token: u32, row: &LogitsRow<'_>) -> Result<()> {
        if self.allowed.get(token as usize) == Some(&true) {
            return Ok(());
        }
        let LogitsRow { sequence, position, .. } = row;
        Err(Error::invalid(format!(
            "token {token} does not match the grammar (sequence {sequence}, position {position})"
        )))
    }

    /// Goes on behind a token that may come next, which is written now.
    pub(crate) fn write(&mut self, token: u32) {
        self.written.extend(Some(token).filter(|_| self.end != Some(token)));
    }

    /// Goes on behind a token that may come next, until [`GrammarState::back`]. [`GrammarState::prepare`] has to come first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if that takes too much.
    pub(crate) fn look(&mut self, token: u32) -> Result<()> {
        if self.end != Some(token) {
            self.ahead.get_or_insert_with(|| self.matcher.copy()).advance(token)?;
        }
        Ok(())
    }

    /// Goes back to what is written.
    pub(crate) fn back(&mut self) {
        self.ahead = None;
    }
}
