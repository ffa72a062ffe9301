//! What the targets share: small models, a reader of the fuzzer's bytes, files in memory.

mod files;
mod input;
mod models;
#[path = "../../tests/models/small.rs"]
mod small;

pub use files::{Folder, SHARDS, SHARDS_CONFIG, zip, zip_of};
pub use input::Input;
pub use models::{TOKENIZER, VOCAB_SIZE, bytes, bytes_in, bytes_of_llama, config, letters, model};

/// Most bytes of the arena of a context that a target makes: larger ones are only estimated.
pub const MOST_ARENA: usize = 8 << 20;

/// Whether `error` is one that outside data may cause. A bug of the library is not.
pub fn check(error: &esolm::Error) {
    assert!(!matches!(error, esolm::Error::Internal(_)), "{error}");
    assert!(error.to_string().len() > 8, "{error}");
}

/// The value, if there is one; otherwise the error is checked.
pub fn ok<T>(result: esolm::Result<T>) -> Option<T> {
    result.inspect_err(check).ok()
}
