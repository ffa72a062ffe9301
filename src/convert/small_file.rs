//! Configurations and tokenizers, which are read whole.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Longest `config.json` or `tokenizer.json` that is read.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// Reads a configuration or tokenizer whole, unless it is absurdly large.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_SMALL_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_SMALL_FILE {
        let what =
            format!("more than {} MiB is too long for JSON that describes a model", MAX_SMALL_FILE >> 20);
        return Err(Error::bad_file(path.display().to_string(), what));
    }
    Ok(bytes)
}
