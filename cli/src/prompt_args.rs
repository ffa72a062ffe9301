//! Prompts of a generation: texts, token ids, a template.

use std::path::Path;

use esolm::{Context, Error, GenerateParams, Model, Prompt, Result, Template};

use crate::input::{encode, is_piped, longest_prompt, parse_ids, read_text_up_to, saying_so};
use crate::text_args::TextArgs;

/// The options as they are written on the command line.
#[derive(clap::Args)]
pub struct PromptArgs {
    /// Prompt: the text begins with it. `-` reads it from standard input, without the newline at its end; so it is without -p
    /// and -f if something is piped in. May be repeated: one text per prompt. Default: no prompt.
    #[arg(short, long = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    prompts: Vec<String>,
    /// File with a prompt (UTF-8), without the newline at its end; `-` is standard input. May be repeated, also beside -p: one
    /// text per prompt.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Prompt as token ids, such as "50256 464" or [50256, 464]; for a model without a tokenizer, too. May be repeated, also
    /// beside -p: one text per prompt. `-` reads them from standard input.
    #[arg(long, value_name = "IDS")]
    prompt_ids: Vec<String>,
    /// Text with gaps to fill in, in place of a prompt: "Once {{mask 12}} happily ever after." has a gap of 12 tokens. The
    /// text is as long as the template, or --length if that is more. `-` reads it from standard input. Write '{{{{' for two
    /// braces. A space before a gap belongs to it, since tokens begin with the space before their word.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true,
          conflicts_with_all = ["prompts", "files", "prompt_ids"])]
    template: Option<String>,
    #[command(flatten)]
    how: TextArgs,
}

impl PromptArgs {
    /// The files that prompts are read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(Path::new)
    }

    /// The prompts, of which there may be none, and the length of the template in tokens, 0 without one. `continues` says
    /// that they go on from other texts.
    pub fn read(&self, model: &Model, continues: bool) -> Result<(Vec<Prompt>, usize)> {
        let options = self.how.options(continues);
        let limit = longest_prompt(model);
        let text = |text: &String| if text == "-" { read_prompt("-", limit) } else { Ok(text.clone()) };
        let prompt = |text: String| Prompt::prefix(&encode(model, &text, options, "--prompt-ids")?);
        let of_ids = |given: &String| Prompt::prefix(&parse_ids(&text(given)?, model)?);
        let of_texts = self.prompts.iter().map(|given| prompt(text(given)?));
        let of_files = self.files.iter().map(|file| prompt(read_prompt(file, limit)?));
        let of_ids = self.prompt_ids.iter().map(of_ids);
        let mut given = of_texts.chain(of_files).chain(of_ids).collect::<Result<Vec<_>>>()?;
        let mut length = 0;
        if let Some(template) = &self.template {
            let (prompt, own) =
                Template::parse(&text(template)?)?.prompt_with(model.tokenizer()?, &options)?;
            given.push(prompt);
            length = own;
        } else if given.is_empty() && is_piped() {
            let piped = saying_so("the prompt", || read_prompt("-", limit))?;
            if !piped.is_empty() {
                given.push(prompt(piped)?);
            }
        }
        Ok((given, length))
    }
}

/// Refuses prompts without a first token if the model needs one, and says how to give it.
pub fn check_first_token(model: &Model, given: &[Prompt]) -> Result<()> {
    let config = model.config();
    let has_first = |prompt: &Prompt| prompt.known.iter().any(|&(position, _)| position == 0);
    if !config.needs_first_token || (!given.is_empty() && given.iter().all(has_first)) {
        return Ok(());
    }
    let begin = match config.bos_token_id {
        Some(bos) => format!("--prompt-ids {bos} (the token that begins a text)"),
        None => "--prompt-ids ID".to_owned(),
    };
    Err(Error::InvalidArgument(format!(
        "this model was trained without a token before the text: give the token at position 0, with -p TEXT \
         or {begin}"
    )))
}

/// Refuses what a text with this prompt would be refused for, before there is any.
pub fn check_params(context: &mut Context, prompt: &Prompt, params: &GenerateParams<'_>) -> Result<()> {
    let sequence = context.add_sequence(prompt, params)?;
    context.remove_sequence(sequence)
}

/// The shortest prompt that a model takes, for [`check_params`] where there is none yet.
#[cfg(any(feature = "chat", feature = "serve"))]
pub fn shortest_prompt(config: &esolm::Config) -> Result<Prompt> {
    // Any token but the mask, which would not be given.
    Prompt::prefix(&vec![u32::from(config.mask_token_id == 0); config.given_tokens()])
}

/// A file without the newline that ends its last line, which is not meant as part of the prompt; `-` is standard input.
fn read_prompt(file: &str, limit: u64) -> Result<String> {
    let mut text = read_text_up_to(file, limit)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
