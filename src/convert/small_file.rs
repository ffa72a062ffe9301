//! Reading small files: `config.json` and `tokenizer.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Largest file that is read, in bytes.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// Reads a file into memory.
///
/// # Errors
/// [`Error::BadFile`] if it is larger than 64 MiB; [`Error::Io`].
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_SMALL_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_SMALL_FILE {
        let what = format!("larger than {} MiB, too large for a model's JSON file", MAX_SMALL_FILE >> 20);
        return Err(Error::bad_file(path.display().to_string(), what));
    }
    Ok(bytes)
}
