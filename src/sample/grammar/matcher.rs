//! What a grammar is, and what matches it.

use std::fmt::Debug;

use crate::error::Result;
use crate::memory::formatted;

/// What the written text of a sequence must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grammar {
    /// A regular expression in the syntax of the `regex` crate, without look-around, anchors and word boundaries, for the
    /// whole written text.
    Regex(String),
    /// A JSON schema (JSON): the written text is a JSON value of it.
    JsonSchema(String),
}

impl Grammar {
    /// The same, in memory of its own.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error).
    pub(super) fn copied(&self) -> Result<Self> {
        Ok(match self {
            Self::Regex(text) => Self::Regex(formatted(format_args!("{text}"))?),
            Self::JsonSchema(text) => Self::JsonSchema(formatted(format_args!("{text}"))?),
        })
    }

    /// The name of the kind, and the text.
    pub(super) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Regex(text) => ("regex", text),
            Self::JsonSchema(text) => ("JSON schema", text),
        }
    }
}

/// Compiles grammars for one vocabulary.
pub(super) trait GrammarCompiler: Debug + Send + Sync {
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error) for a grammar that is damaged or takes too much.
    fn compile(&self, grammar: &Grammar) -> Result<Box<dyn GrammarMatcher>>;
}

/// A grammar, and how far a text has matched it.
pub(super) trait GrammarMatcher: Debug + Send + Sync {
    /// Marks the tokens that may come next. Returns whether the match is complete as it is.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error) if that takes too much.
    fn allowed(&mut self, allowed: &mut [bool]) -> Result<bool>;

    /// Advances past a token.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error) if it may not come next, or takes too much.
    fn advance(&mut self, token: u32) -> Result<()>;

    /// A matcher that has matched as much, to look ahead with: once one has failed, it matches no more. (What llguidance's lexer may
    /// spend is shared by the two.)
    fn copy(&self) -> Box<dyn GrammarMatcher>;

    /// A matcher that has matched as much, for another text: nothing is shared.
    fn separate(&self) -> Box<dyn GrammarMatcher>;
}
