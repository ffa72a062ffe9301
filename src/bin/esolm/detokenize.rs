//! `esolm detokenize`: the text of some tokens.

use std::process::ExitCode;

use esolm::{Error, Result};

use crate::model_file::{ModelArgs, words_or_stdin};

/// Turn token ids into text.
///
/// Takes what `esolm tokenize` writes, with or without --json. The text is written as it is, without a line end of
/// its own; a mask token is written as U+2591 (a shaded square), bytes that are no UTF-8 as U+FFFD.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The ids; standard input if not given, or `-`.
    ids: Vec<String>,
    /// Print a JSON string.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.open("cpu")?;
    let ids = words_or_stdin(&args.ids)?;
    let vocabulary = model.config().vocab_size;
    let token = |id: &str| match id.parse::<u32>() {
        Ok(token) if (token as usize) < vocabulary => Ok(token),
        _ => Err(Error::InvalidArgument(format!("'{id}' is no token id; they are 0 to {}", vocabulary - 1))),
    };
    let separates = |c: char| c.is_whitespace() || c == ',';
    // A JSON array's brackets, if there are any, are around the whole.
    let list = ids.trim();
    let list = list.strip_prefix('[').and_then(|l| l.strip_suffix(']')).unwrap_or(list);
    let tokens = list.split(separates).filter(|id| !id.is_empty()).map(token).collect::<Result<Vec<_>>>()?;
    let text = model.tokenizer()?.decode(&tokens)?;
    crate::print(&if args.json { format!("{}\n", serde_json::json!(text)) } else { text })?;
    Ok(ExitCode::SUCCESS)
}
