//! `esolm detokenize`: the text of tokens.

use std::process::ExitCode;

use esolm::Result;
use serde_json::json;

use crate::args::ModelArgs;
use crate::input::{parse_ids, words_or_stdin};
use crate::output::{print, print_json};

/// Convert token ids to text.
///
/// Reads what `esolm tokenize` prints, with or without --json. Prints the text exactly, without adding a newline. A mask
/// token is printed as [MASK], bytes that are not UTF-8 as U+FFFD.
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
    let tokens = parse_ids(&words_or_stdin(&args.ids)?, &model)?;
    let text = model.tokenizer()?.decode(&tokens)?;
    if args.json {
        print_json(&json!(text))?;
    } else {
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
