//! `esolm tokenize`: the tokens of a text.

use std::process::ExitCode;

use esolm::Result;
use serde_json::json;

use crate::args::ModelArgs;
use crate::input::words_or_stdin;
use crate::output::{join_ids, print, print_json};
use crate::text_args::TextArgs;

/// Convert text to token ids.
///
/// Prints the ids on one line. No special tokens are added. `esolm detokenize` restores the text byte for byte.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    how: TextArgs,
    /// The text. Default, or if it is `-`: standard input.
    text: Vec<String>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.open("cpu")?;
    let tokens = model.tokenizer()?.encode_with(&words_or_stdin(&args.text)?, &args.how.options(false))?;
    if args.json {
        print_json(&json!(tokens))?;
    } else {
        print(&format!("{}\n", join_ids(&tokens)))?;
    }
    Ok(ExitCode::SUCCESS)
}
