//! The one error type of the crate.

#[cfg(any(test, feature = "convert", feature = "grammar"))]
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

/// What went wrong. Every fallible function of the crate returns this; each variant has one
/// status code in the C header. Messages are complete: they include the text of their `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is outside what the function accepts; the message says which and why.
    #[error("{0}")]
    InvalidArgument(String),
    /// The operating system refused to open, read, map or write a file.
    #[error("{file}: {source}")]
    Io {
        /// The file's name as it was given.
        file: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file's content is not what its format promises. Names the tensor, key or offset.
    #[error("{file}: {what}")]
    BadFile {
        /// The file's name, or `(memory)`.
        file: String,
        /// What is wrong, and where in the file.
        what: String,
        /// The error of the library that read the file, if there is one.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// A valid request that this version or this build cannot serve.
    #[error("{0}")]
    Unsupported(String),
    /// The device does not exist on this machine or in this build, or it failed.
    #[error("{0}")]
    Device(String),
    /// An allocation failed; nothing was changed.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The cancel token was set or a callback asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The context is in use by another call.
    #[error("the context is in use by another call")]
    Busy,
    /// The caller's buffer is too small; nothing was written.
    #[error("the buffer holds {given} but {needed} are needed")]
    BufferTooSmall {
        /// How many items (bytes or tokens) the caller's buffer holds.
        given: usize,
        /// How many it has to hold.
        needed: usize,
    },
    /// The model has no tokenizer, or its tokenizer cannot encode this text or decode these tokens. (A damaged tokenizer
    /// is [`Error::BadFile`].)
    #[error("{what}")]
    Tokenizer {
        /// What the tokenizer cannot do.
        what: String,
        /// The tokenizer library's error, if there is one.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The network produced NaN or infinity: the weights or a restored state are damaged, or keys and values are too large for
    /// the K/V cache's type.
    #[error("{0}")]
    NotFinite(String),
    /// A defect of this library; please report it.
    #[error("internal error: {0}")]
    Internal(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest message, in bytes: what it quotes may come from a file, and be of any length.
const LONGEST: usize = 1000;

/// A message, without its middle if it is too long.
pub(crate) fn bounded(what: impl Into<String>) -> String {
    let what = what.into();
    if what.len() <= LONGEST {
        return what;
    }
    let boundary = |at: usize| (0..=at).rev().find(|&at| what.is_char_boundary(at)).unwrap_or(0);
    let (start, end) = (boundary(LONGEST / 4 * 3), boundary(what.len() - LONGEST / 4));
    format!("{} .. {}", what.get(..start).unwrap_or_default(), what.get(end..).unwrap_or_default())
}

impl Error {
    /// An [`Error::InvalidArgument`].
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidArgument(bounded(what))
    }

    /// An [`Error::InvalidArgument`] that says where; other errors stay as they are.
    pub(crate) fn at(self, place: std::fmt::Arguments<'_>) -> Self {
        match self {
            Self::InvalidArgument(what) => Self::InvalidArgument(format!("{place}: {what}")),
            other => other,
        }
    }

    /// An [`Error::BadFile`] that this crate found.
    pub(crate) fn bad_file(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::BadFile { file: file.into(), what: bounded(what), source: None }
    }

    /// An [`Error::BadFile`] that another library found: `part` names what it was reading, and its error becomes the
    /// `source`.
    #[cfg(any(test, feature = "convert", feature = "grammar"))]
    pub(crate) fn unreadable(
        file: impl Into<String>,
        part: &str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source: Arc<dyn StdError + Send + Sync> = source.into().into();
        Self::BadFile { file: file.into(), what: bounded(format!("{part}: {source}")), source: Some(source) }
    }

    /// An [`Error::Unsupported`].
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported(bounded(what))
    }

    /// An [`Error::Io`] for `file`.
    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.display().to_string(), source }
    }

    /// An [`Error::Tokenizer`].
    pub(crate) fn tokenizer(what: impl Into<String>) -> Self {
        Self::Tokenizer { what: bounded(what), source: None }
    }

    /// The [`Error::Unsupported`] of a context in a child process that does not have its threads.
    pub(crate) fn made_before_fork() -> Self {
        Self::Unsupported(
            "the context was made before fork(), and the child process has none of its threads; make one in the child"
                .into(),
        )
    }

    /// The [`Error::NotFinite`] of logits.
    pub(crate) fn logits_not_finite() -> Self {
        Self::NotFinite(
            "the network produced NaN or infinity: the weights or a restored state are damaged, or keys and values exceed a K/V \
             cache in f16 or q8_0 (f32 has room for them)"
                .into(),
        )
    }

    /// An [`Error::Internal`].
    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::Internal(what.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_keep_both_ends() {
        let Error::InvalidArgument(short) = Error::invalid("x".repeat(LONGEST)) else { unreachable!() };
        assert_eq!(short.len(), LONGEST);
        for quoted in ["x", "\u{e9}", "\u{1f600}"] {
            let what = format!("key '{}' is unknown", quoted.repeat(5000));
            let said = Error::bad_file("a.gguf", what).to_string();
            assert!(said.len() <= LONGEST + 20, "{}", said.len());
            assert!(said.starts_with("a.gguf: key '") && said.ends_with("' is unknown"), "{said}");
        }
    }
}
