//! Advice for a prompt that is given without -p.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use esolm::{Error, Result};

use crate::model_args::{ModelArgs, is_model};

fn tip(text: &str) -> String {
    format!("a prompt goes with -p, in quotes: esolm generate -p \"{text}\"")
}

/// Adds the advice to the error of a word that no option takes.
pub fn with_tip(mut error: clap::Error) -> clap::Error {
    let command = std::env::args_os().nth(1);
    let is_generate = ["generate", "run"].iter().any(|name| command.as_ref().is_some_and(|c| c == name));
    if is_generate
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(text)) = error.get(ContextKind::InvalidArg)
        && !text.starts_with('-')
    {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip(text).into()]));
    }
    error
}

/// Refuses a prompt that is given where the model is.
pub fn check_model(model: &ModelArgs) -> Result<()> {
    match &model.file.first {
        Some(word) if !is_model(word) && !word.exists() => {
            let word = word.to_string_lossy();
            Err(Error::InvalidArgument(format!("'{word}' is no model file; {}", tip(&word))))
        }
        _ => Ok(()),
    }
}
