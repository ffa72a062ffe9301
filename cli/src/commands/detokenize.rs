//! `esolm detokenize`: the text of tokens.

use std::process::ExitCode;

use esolm::{Error, Result};
use serde_json::json;

use crate::args::ModelArgs;
use crate::input::words_or_stdin;
use crate::output::{print, print_json};

/// Convert token ids to text.
///
/// Reads what `esolm tokenize` prints, with or without --json. Prints the text exactly, without adding a newline. A mask
/// token is printed as U+2591 (a shaded block), bytes that are not UTF-8 as U+FFFD.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The token ids. Default, or if it is `-`: standard input.
    ids: Vec<String>,
    /// Print a JSON string.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.open("cpu")?;
    let tokens = parse_ids(&words_or_stdin(&args.ids)?, model.config().vocab_size)?;
    let text = model.tokenizer()?.decode(&tokens)?;
    if args.json {
        print_json(&json!(text))?;
    } else {
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Token ids separated by white space or commas; all of them may stand in the brackets of a JSON array.
fn parse_ids(text: &str, vocabulary: usize) -> Result<Vec<u32>> {
    let list = text.trim();
    let list = list.strip_prefix('[').and_then(|l| l.strip_suffix(']')).unwrap_or(list);
    let token = |id: &str| match id.parse::<u32>() {
        Ok(token) if (token as usize) < vocabulary => Ok(token),
        _ => Err(Error::InvalidArgument(format!("'{id}' is no token id; they are 0 to {}", vocabulary - 1))),
    };
    let ids = list.split(|c: char| c.is_whitespace() || c == ',').filter(|id| !id.is_empty());
    ids.map(token).collect()
}
