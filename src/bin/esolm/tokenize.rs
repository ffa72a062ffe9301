//! `esolm tokenize`: the tokens of a text.

use std::process::ExitCode;

use esolm::Result;

use crate::model_file::{ModelArgs, words_or_stdin};

/// Turn text into token ids.
///
/// The ids are written on one line. Special tokens that are written out in the text are recognised, none are added;
/// `esolm detokenize` gives the same text back, to the byte.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text; standard input if not given, or `-`.
    text: Vec<String>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.open("cpu")?;
    let text = words_or_stdin(&args.text)?;
    let tokens = model.tokenizer()?.encode(&text)?;
    let line = if args.json {
        serde_json::json!(tokens).to_string()
    } else {
        tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
    };
    crate::print(&format!("{line}\n"))?;
    Ok(ExitCode::SUCCESS)
}
