//! Calls of the tokenizer library.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// An error of the tokenizer library.
pub(super) type Cause = Arc<dyn Error + Send + Sync>;

/// Calls the tokenizer library; a panic becomes an error.
pub(super) fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(Cause::from),
        Err(_) => Err(Cause::from(Box::<dyn Error + Send + Sync>::from("the tokenizer library panicked"))),
    }
}
