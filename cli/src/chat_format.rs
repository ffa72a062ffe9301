//! How a conversation becomes a text: the template, and what ends an answer.

use esolm::{ChatTemplate, Error, Model, Result, TokenizeOptions};

use crate::input::read_text;

/// The option of a chat template.
#[derive(clap::Args, Clone)]
pub struct ChatTemplateArgs {
    /// Chat template: chatml (the format of Qwen and others), or a file with a template in Jinja. Default: that of the model's
    /// file.
    #[arg(long, visible_alias = "chat-template", value_name = "chatml|FILE")]
    pub template: Option<String>,
    /// More that the chat template is to know, an object in JSON, such as '{"enable_thinking": false}' for Qwen3's.
    #[arg(long, visible_alias = "chat-template-kwargs", value_name = "JSON")]
    pub template_kwargs: Option<String>,
}

/// A template, and what ends an answer beside the model's end-of-text token.
pub struct ChatFormat {
    pub template: ChatTemplate,
    pub stop_tokens: Vec<u32>,
    pub stop_strings: Vec<String>,
}

impl ChatTemplateArgs {
    /// The format for a model.
    pub fn format(&self, model: &Model) -> Result<ChatFormat> {
        let template = match self.template.as_deref() {
            None => ChatTemplate::of_model(model).map_err(with_tip)?,
            Some("chatml") => ChatTemplate::chatml(),
            Some(file) => ChatTemplate::from_text(&read_text(file)?)?.with_tokens_of(model)?,
        };
        let template = match &self.template_kwargs {
            Some(json) => template.with_kwargs(json)?,
            None => template,
        };
        let end = template.answer_end()?;
        let tokens = |parse_special| {
            model.tokenizer()?.encode_with(&end, &TokenizeOptions { parse_special, continues: true })
        };
        // A word that a special token has as its name, and not one that is a token among others.
        let special = tokens(true)?;
        let stop_tokens = if special.len() == 1 && special != tokens(false)? { special } else { vec![] };
        let stop_strings = if end.is_empty() { vec![] } else { vec![end] };
        Ok(ChatFormat { template, stop_tokens, stop_strings })
    }
}

fn with_tip(error: Error) -> Error {
    match error {
        Error::Unsupported(what) => {
            Error::Unsupported(format!("{what} (--template chatml, or --template FILE)"))
        }
        other => other,
    }
}
