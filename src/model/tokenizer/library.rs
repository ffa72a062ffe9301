//! Calls of the tokenizer library.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, bounded};

/// An error of the tokenizer library.
pub(super) type Cause = Arc<dyn StdError + Send + Sync>;

/// Calls the tokenizer library; a panic becomes an error.
pub(super) fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(Cause::from),
        Err(_) => Err(Cause::from(Box::<dyn StdError + Send + Sync>::from("the tokenizer library panicked"))),
    }
}

/// The error of a call that failed.
pub(super) fn failed(what: &str, source: Cause) -> Error {
    Error::Tokenizer { what: bounded(format!("the tokenizer {what}: {source}")), source: Some(source) }
}
