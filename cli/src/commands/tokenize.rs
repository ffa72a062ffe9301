//! `esolm tokenize`: the tokens of a text.

use std::process::ExitCode;

use esolm::Result;

use crate::args::JsonArgs;
use crate::input::words_or_stdin;
use crate::model_args::ModelArgs;
use crate::output::{Ids, JsonField, print};
use crate::text_args::TextArgs;

/// Convert text to token ids.
///
/// Prints the ids on one line. No special tokens are added. `esolm detokenize` restores the text byte for byte: unlike a prompt, it is
/// taken as it is, with a byte-order mark and the last newline.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm tokenize \"Once upon a time\"
  esolm tokenize model.gguf <story.txt")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    how: TextArgs,
    /// The text. Default, or if it is `-`: standard input.
    text: Vec<String>,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, text) = args.model.and_words(&args.text)?;
    let model = model.open("cpu")?;
    let tokens = model.tokenizer()?.encode_with(&words_or_stdin(&text)?, &args.how.options(false))?;
    if args.json.json {
        print(JsonField("tokens", &tokens))?;
    } else {
        print(format_args!("{}\n", Ids(&tokens)))?;
    }
    Ok(ExitCode::SUCCESS)
}
