//! Options of how long a text gets, and of what ends it before.

use esolm::{Model, Prompt};

/// The options as they are written on the command line.
#[derive(clap::Args)]
pub struct StopArgs {
    /// Most tokens to write behind the prompt, of a template behind its last text; -1 = until the text ends or has its length.
    #[arg(short = 'n', long = "max-tokens", aliases = ["predict", "n-predict"], default_value = "-1", value_parser = max_tokens, value_name = "N")]
    max_tokens: MaxTokens,
    /// Length of the text in tokens, prompt included; with -n, the smaller one counts. Maximum: the model's context length (see
    /// `esolm inspect`). Default, or 0: that, but without -n 4096 at most.
    #[arg(
        long,
        short_alias = 'c',
        alias = "ctx-size",
        default_value_t = 0,
        value_name = "LEN",
        hide_default_value = true
    )]
    pub length: usize,
    /// Stop string: the text ends before it when the model writes it. May be repeated.
    #[arg(
        long = "stop",
        short_alias = 'r',
        alias = "reverse-prompt",
        value_name = "STRING",
        allow_hyphen_values = true
    )]
    strings: Vec<String>,
    /// Stop token: the text ends when the model writes the token with this id. May be repeated.
    #[arg(long = "stop-token", value_name = "ID")]
    pub stop_tokens: Vec<u32>,
    /// Go on behind the end-of-text token, which is otherwise the end of a text.
    #[arg(long)]
    pub ignore_eos: bool,
}

/// A number of tokens; 0 is no limit.
#[derive(Clone, Copy)]
struct MaxTokens(usize);

fn max_tokens(text: &str) -> Result<MaxTokens, String> {
    match text.parse() {
        Ok(0) | Err(_) if text != "-1" => Err("not a number from 1 on, or -1".into()),
        Ok(count) => Ok(MaxTokens(count)),
        Err(_) => Ok(MaxTokens(0)),
    }
}

impl StopArgs {
    /// Most tokens to write behind a prompt; 0 is no limit.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens.0
    }

    /// The stop strings.
    pub fn strings(&self) -> Vec<&str> {
        self.strings.iter().map(String::as_str).collect()
    }

    /// The length of a context that has room for the texts, which have at most `length` tokens; 0 is the model's length.
    /// `beyond` is how far a step may look beyond the end of a text.
    pub fn room(
        &self,
        model: &Model,
        prompts: &[Prompt],
        length: usize,
        is_resumed: bool,
        beyond: usize,
    ) -> usize {
        let most = self.max_tokens();
        if most == 0 || is_resumed {
            return length;
        }
        let total = if length == 0 { model.config().context_length } else { length };
        let end = |prompt: &Prompt| prompt.known.iter().map(|&(position, _)| position as usize + 1).max();
        let longest = prompts.iter().filter_map(end).max().unwrap_or(0);
        total.min(longest.saturating_add(most).saturating_add(beyond))
    }
}
