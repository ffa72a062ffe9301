//! The files behind the names of models on the command line: a path, or `hf:OWNER/NAME`, which is fetched.

use std::path::{Path, PathBuf};

use esolm::Result;

/// What a model's name begins with if it is in a repository of a hub. (A file of such a name is `./hf:...`.)
const PREFIX: &str = "hf:";

/// The file of a model: `given` itself, or that of the repository it names, fetched and converted unless it is there.
pub fn model_file(given: &Path) -> Result<PathBuf> {
    match repository(given) {
        Some(name) => fetch::model(name),
        None => Ok(given.to_owned()),
    }
}

/// What is to be converted: `given` itself, or the folder with the checkpoint of the repository it names.
pub fn checkpoint_file(given: &Path) -> Result<PathBuf> {
    match repository(given) {
        Some(name) => fetch::checkpoint(name),
        None => Ok(given.to_owned()),
    }
}

/// The file of a tokenizer: `given` itself, or `tokenizer.json` of the repository it names.
pub fn tokenizer_file(given: &Path) -> Result<PathBuf> {
    match repository(given) {
        Some(name) => fetch::tokenizer(name),
        None => Ok(given.to_owned()),
    }
}

/// Whether a model's name is that of a repository.
pub fn is_repository(given: &Path) -> bool {
    repository(given).is_some()
}

fn repository(given: &Path) -> Option<&str> {
    given.to_str()?.strip_prefix(PREFIX)
}

#[cfg(feature = "hub")]
use crate::hub as fetch;

#[cfg(not(feature = "hub"))]
mod fetch {
    use super::{PREFIX, PathBuf, Result};

    pub fn model(name: &str) -> Result<PathBuf> {
        Err(esolm::Error::Unsupported(format!(
            "{PREFIX}{name}: this build cannot fetch models; it lacks the cargo feature hub"
        )))
    }

    pub use {model as checkpoint, model as tokenizer};
}
