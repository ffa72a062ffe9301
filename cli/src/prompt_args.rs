//! Prompts of a generation: texts, token ids, a template.

use esolm::{Error, Model, Prompt, Result, Template};

use crate::input::{encode, parse_ids, read_stdin};

/// The options as they are written on the command line.
#[derive(clap::Args)]
pub struct PromptArgs {
    /// Prompt: the text begins with it. `-` reads it from standard input, without the newline at its end. May be repeated:
    /// one text per prompt. Default: no prompt.
    #[arg(short, long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// Prompt as token ids, such as "50256 464" or [50256, 464]; for a model without a tokenizer, too. May be repeated, also
    /// beside -p: one text per prompt. `-` reads them from standard input.
    #[arg(long, value_name = "IDS")]
    prompt_ids: Vec<String>,
    /// Text with gaps to fill in, in place of a prompt: "Once {{mask 12}} happily ever after." has a gap of 12 tokens. The
    /// text is as long as the template, or --length if that is more. `-` reads it from standard input. Write '{{{{' for two
    /// braces.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompts", "prompt_ids"])]
    template: Option<String>,
}

impl PromptArgs {
    /// The prompts, of which there may be none, and the length of the template in tokens, 0 without one.
    pub fn read(&self, model: &Model) -> Result<(Vec<Prompt>, usize)> {
        let text = |text: &String| if text == "-" { read_prompt() } else { Ok(text.clone()) };
        let prompt = |given: &String| Ok(Prompt::prefix(&encode(model, &text(given)?, "--prompt-ids")?));
        let of_ids = |given: &String| Ok(Prompt::prefix(&parse_ids(&text(given)?, model)?));
        let of_texts = self.prompts.iter().map(prompt);
        let mut given = of_texts.chain(self.prompt_ids.iter().map(of_ids)).collect::<Result<Vec<_>>>()?;
        let mut length = 0;
        if let Some(template) = &self.template {
            let (prompt, own) = Template::parse(&text(template)?)?.prompt(model.tokenizer()?)?;
            given.push(prompt);
            length = own;
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
        "this autoregressive model was trained without a token before the text: give the token at position 0, with -p TEXT \
         or {begin}"
    )))
}

/// Standard input without the newline that ends its last line, which is not meant as part of the prompt.
fn read_prompt() -> Result<String> {
    let mut text = read_stdin()?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
