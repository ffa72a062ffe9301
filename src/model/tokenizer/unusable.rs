//! A file's tokenizer that cannot be used.

use super::library::Cause;
use crate::error::{Error, bounded};

/// Why a file's tokenizer cannot be used.
#[derive(Debug)]
pub(in crate::model) struct Unusable {
    what: String,
    source: Option<Cause>,
    /// Whether there was no memory for it.
    no_memory: bool,
}

impl From<String> for Unusable {
    fn from(what: String) -> Self {
        Self { what, source: None, no_memory: false }
    }
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        match error {
            Error::OutOfMemory(what) => Self { what, source: None, no_memory: true },
            other => Self::from(other.to_string()),
        }
    }
}

impl Unusable {
    /// A tokenizer that cannot be read.
    pub fn damaged(source: Cause) -> Self {
        if let Some(Error::OutOfMemory(what)) = source.downcast_ref() {
            return Self { what: what.clone(), source: None, no_memory: true };
        }
        let what = bounded(format!("the tokenizer is damaged: {source}"));
        Self { what, source: Some(source), no_memory: false }
    }

    /// Whether it may be usable later.
    pub fn for_now(&self) -> bool {
        self.no_memory
    }

    /// The [`Error::BadFile`] for `file`, or [`Error::OutOfMemory`].
    pub fn error(&self, file: &str) -> Error {
        if self.no_memory {
            return Error::OutOfMemory(self.what.clone());
        }
        Error::BadFile { file: file.to_owned(), what: self.what.clone(), source: self.source.clone() }
    }
}
