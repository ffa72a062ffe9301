//! Reading small files: `config.json` and `tokenizer.json`.

use std::path::Path;

use crate::error::Result;
use crate::memory::{open_regular, read_at_most};

/// Largest file that is read, in bytes.
const MAX_SMALL_FILE: u64 = 64 << 20;
/// Largest configuration; as JSON values it takes many times its size.
const MAX_CONFIG: u64 = 1 << 20;

/// Reads a `config.json`.
///
/// # Errors
/// As [`read_small`], for 1 MiB.
pub(super) fn read_config(path: &Path) -> Result<Vec<u8>> {
    open_regular(path)?;
    read_at_most(path, MAX_CONFIG)
}

/// Reads a file into memory.
///
/// # Errors
/// [`Error::BadFile`](crate::Error::BadFile) if it is larger than 64 MiB or no regular file;
/// [`Error::Io`](crate::Error::Io).
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>> {
    // Beside a model there could be a pipe, too, which nobody writes to.
    open_regular(path)?;
    read_at_most(path, MAX_SMALL_FILE)
}
