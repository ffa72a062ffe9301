//! `esolm detokenize`: the text of tokens.

use std::process::ExitCode;

use esolm::Result;

use crate::args::JsonArgs;
use crate::input::{parse_ids, words_or_stdin};
use crate::model_args::ModelArgs;
use crate::output::{JsonField, print};

/// Convert token ids to text.
///
/// Reads what `esolm tokenize` prints, with or without --json. Prints the text exactly, without adding a newline. A mask
/// token is printed as [MASK], bytes that are not UTF-8 as U+FFFD.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm detokenize 551 522 259 437
  esolm tokenize --json \"Once upon a time\" | esolm detokenize")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The token ids. Default, or if it is `-`: standard input.
    ids: Vec<String>,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, ids) = args.model.and_words(&args.ids)?;
    let model = model.open("cpu")?;
    let tokens = parse_ids(&words_or_stdin(&ids)?, &model)?;
    let text = model.tokenizer()?.decode(&tokens)?;
    if args.json.json {
        print(JsonField("text", &text))?;
    } else {
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
