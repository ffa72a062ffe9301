//! The file of --state.

use std::fs::File;
use std::path::Path;

use esolm::{Context, Error, GenerateParams, Prompt, Result};

use crate::output::io_error;

/// Fails before any work if the state that is there cannot be read, or the new one cannot be written.
pub fn check(file: &Path) -> Result<()> {
    if file.exists() {
        // Reading a pipe or a device might never end.
        if !file.is_file() {
            let (file, what) = (file.display().to_string(), "is no regular file".into());
            return Err(Error::BadFile { file, what, source: None });
        }
        File::open(file).map_err(|source| io_error(file, source))?;
    }
    esolm::check_writable(file)
}

/// Restores a saved state and appends the prompts to its texts.
pub fn resume(
    context: &mut Context,
    file: &Path,
    prompts: &mut [Prompt],
    params: &GenerateParams<'_>,
) -> Result<()> {
    context.restore_from(file).map_err(|error| explain(error, file, prompts.len()))?;
    if context.sequences() != prompts.len() {
        return Err(other_batch(file, context.sequences()));
    }
    let mask = context.model().config().mask_token_id;
    for (number, prompt) in prompts.iter_mut().enumerate().take(context.sequences()) {
        // Behind what is written without a gap: the text may not have come to its end.
        let tokens = context.tokens(number)?;
        let written = tokens.iter().position(|&token| token == mask).unwrap_or(tokens.len()) as u32;
        prompt.known.iter_mut().for_each(|(position, _)| *position += written);
    }
    context.extend(prompts, params)
}

/// The error of a context of `batch` texts that has no room for a saved state, with the options that give it room.
fn explain(error: Error, file: &Path, batch: usize) -> Error {
    let Error::InvalidArgument(what) = error else { return error };
    match Context::saved_sequences(file) {
        Ok(count) if count > batch => other_batch(file, count),
        _ => Error::InvalidArgument(format!("{what} (of the state in {}; see --length)", file.display())),
    }
}

/// The error of a state that has so many texts, and not as many as there are to be.
fn other_batch(file: &Path, count: usize) -> Error {
    let s = if count == 1 { "" } else { "s" };
    let file = file.display();
    Error::InvalidArgument(format!(
        "{file}: a state of {count} text{s}; it takes --batch {count} and at most {count} prompt{s}"
    ))
}
