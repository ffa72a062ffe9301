//! `esolm tokenize`: the tokens of a text.

use std::process::ExitCode;

use esolm::Result;
use serde_json::json;

use crate::args::JsonArgs;
use crate::input::words_or_stdin;
use crate::model_args::ModelArgs;
use crate::output::{join_ids, print, print_json};

/// Convert text to token ids.
///
/// Prints the ids on one line. Special tokens written out in the text are recognised; none are added. `esolm detokenize`
/// restores the text byte for byte.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm tokenize \"Once upon a time\"
  esolm tokenize model.gguf <story.txt")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text. Default, or if it is `-`: standard input.
    text: Vec<String>,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, text) = args.model.and_words(&args.text);
    let model = model.open("cpu")?;
    let tokens = model.tokenizer()?.encode(&words_or_stdin(&text)?)?;
    if args.json.json {
        print_json(json!({ "tokens": tokens }))?;
    } else {
        print(&format!("{}\n", join_ids(&tokens)))?;
    }
    Ok(ExitCode::SUCCESS)
}
