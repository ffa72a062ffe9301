//! Reading small files: configurations and tokenizers.

use std::path::Path;

use crate::error::Result;
use crate::memory::read_regular;

/// Largest file that is read, in bytes.
const MAX_SMALL_FILE: u64 = 64 << 20;
/// Largest configuration, index or vocabulary; as JSON values it takes many times its size.
const MAX_CONFIG: u64 = 4 << 20;

/// Reads a file of JSON that is taken apart here.
///
/// # Errors
/// As [`read_small`], for 4 MiB.
pub(super) fn read_config(path: &Path) -> Result<Vec<u8>> {
    read_regular(path, MAX_CONFIG)
}

/// Reads a file into memory.
///
/// # Errors
/// [`Error::BadFile`](crate::Error::BadFile) if it is larger than 64 MiB or no regular file;
/// [`Error::Io`](crate::Error::Io).
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>> {
    // Beside a model there could be a pipe, too, which nobody writes to.
    read_regular(path, MAX_SMALL_FILE)
}
