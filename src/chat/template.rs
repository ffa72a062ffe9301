//! The template that makes one text of a conversation's messages.

use std::borrow::Cow;

#[cfg(feature = "chat")]
use super::jinja;
use super::message::Message;
use super::names::{Marker, PLACE, encode_marked};
use crate::error::{Error, Result};
use crate::memory::{collected, copied, push, try_collected};
use crate::model::{Config, Model, Tokenizer};

/// Roles that every template knows: the words of its language, not of a message.
const ROLES: [&str; 3] = ["system", "user", "assistant"];
/// A template that makes one text of a conversation's messages, in Jinja, as the files of models that converse have one. It needs
/// the cargo feature `chat`. Applying one takes time and memory in proportion to messages and variables at most, and reads no files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: Cow<'static, str>,
    /// The names of the tokens that begin and end a text.
    bos_token: String,
    eos_token: String,
    /// More of what it knows, objects in JSON, of which a later one counts more.
    kwargs: Vec<String>,
}

/// Making one.
impl ChatTemplate {
    /// The metadata key of a model file that has one.
    pub const KEY: &str = Config::CHAT_TEMPLATE_KEY;
    /// The template of ChatML, the format of Qwen and others: [`ChatTemplate::chatml`].
    pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
        message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|im_start|>assistant\\n' }}{% endif %}";

    /// The template of a model's file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has none, or without the cargo feature `chat`; [`Error::BadFile`] that names the line where it
    /// is wrong; those of [`Model::tokenizer`].
    pub fn of_model(model: &Model) -> Result<Self> {
        let found = model.metadata_value(Self::KEY).and_then(|value| value.as_str());
        let missing = || {
            let key = Self::KEY;
            Error::Unsupported(format!(
                "the model has no chat template (key '{key}'): give one, such as chatml"
            ))
        };
        let template = Self::from_text(found.ok_or_else(missing)?).map_err(|error| match error {
            Error::InvalidArgument(what) => Error::bad_file(model.file(), what),
            other => other,
        });
        template?.with_tokens_of(model)
    }

    /// A template that is given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the line where it is wrong; [`Error::Unsupported`] without the cargo feature
    /// `chat`.
    pub fn from_text(text: &str) -> Result<Self> {
        check(text)?;
        Ok(Self { source: copied(text)?.into(), ..Self::chatml() })
    }

    /// [`ChatTemplate::CHATML`].
    pub fn chatml() -> Self {
        let [bos_token, eos_token] = [const { String::new() }; 2];
        Self { source: Self::CHATML.into(), bos_token, eos_token, kwargs: Vec::new() }
    }

    /// Has the template write the model's own tokens where it says `bos_token` and `eos_token`. (Otherwise both are empty.)
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`].
    pub fn with_tokens_of(self, model: &Model) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let name = |token: Option<u32>| match token {
            Some(token) => copied(&String::from_utf8_lossy(&tokenizer.token_bytes(token)?)),
            None => Ok(String::new()),
        };
        let config = model.config();
        Ok(Self { bos_token: name(config.bos_token_id)?, eos_token: name(config.eos_token_id)?, ..self })
    }

    /// Gives the template more to know, an object in JSON, such as `{"enable_thinking": false}` for Qwen3's: variables by their
    /// names, beside those that were given before. (The `chat_template_kwargs` of vLLM and llama.cpp.) Also `tools` and
    /// `documents`, which are `none` otherwise; the names that the library gives (`messages`, `bos_token`, `eos_token`,
    /// `add_generation_prompt`) it does not take. In [`ChatTemplate::encode`] names of special tokens are characters in them, as in messages.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is no such object, has a name twice, a text of more than a million bytes, a whole number of more
    /// than 64 bits, or lists and objects more than 16 deep. (More than 256 names in all are refused when the template is applied.)
    /// [`Error::OutOfMemory`]; [`Error::Unsupported`] without the cargo feature `chat`.
    pub fn with_kwargs(mut self, json: &str) -> Result<Self> {
        check_kwargs(json)?;
        push(&mut self.kwargs, copied(json)?)?;
        Ok(self)
    }
}

/// Applying it.
impl ChatTemplate {
    /// The text of a conversation, and with `add_generation_prompt` what comes before the model's next answer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the template refuses these messages, is wrong somewhere, or takes too much;
    /// [`Error::OutOfMemory`]; [`Error::Unsupported`] without the cargo feature `chat`.
    pub fn apply(&self, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String> {
        render(self, messages, add_generation_prompt, None)
    }

    /// The tokens of a conversation up to the model's next answer. Names of special tokens are these tokens where the template
    /// writes them, and characters where a message or its role does. A token that stands before each text of the model
    /// ([`Config::prepend_token_id`] of Qwen's) is left out at the beginning.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::apply`] and [`Tokenizer::encode_with`].
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message<'_>]) -> Result<Vec<u32>> {
        let marker = Marker::new(tokenizer)?;
        let messages = marked(&marker, messages)?;
        let text = render(self, &as_messages(&messages)?, true, Some(&marker))?;
        let mut tokens = encode_marked(tokenizer, &text, false)?;
        tokenizer.without_token_before(&mut tokens);
        Ok(tokens)
    }

    /// As [`ChatTemplate::encode`], but only what follows the first `behind` messages, of which a sequence has the tokens
    /// already, the last one being the answer that the model wrote there:
    /// [`Context::append_sequence`](crate::Context::append_sequence) takes these tokens. If they begin with the token that ended the
    /// answer, which the sequence has, leave that out.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode`]; [`Error::InvalidArgument`] if there are fewer messages; [`Error::Unsupported`] if the template
    /// does not write the answer once, as it is.
    pub fn encode_behind(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message<'_>],
        behind: usize,
    ) -> Result<Vec<u32>> {
        let Some(answer) = behind.checked_sub(1).filter(|&answer| answer < messages.len()) else {
            let count = messages.len();
            return Err(Error::invalid(format!("behind {behind} messages, of {count}")));
        };
        let marker = Marker::new(tokenizer)?;
        let mut messages = marked(&marker, messages)?;
        if let Some(message) = messages.get_mut(answer) {
            message.content = copied(PLACE)?;
        }
        let text = render(self, &as_messages(&messages)?, true, Some(&marker))?;
        encode_marked(tokenizer, behind_place(&text)?, true)
    }

    /// What the template writes behind an answer, without blanks around it, such as `<|im_end|>`: the model writes it when its
    /// answer is complete. It is a stop string, and where it is the name of a special token, that is a stop token. May be empty.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode_behind`].
    pub fn answer_end(&self) -> Result<String> {
        let text = self.apply(&[Message::user("?"), Message::assistant(PLACE)], false)?;
        copied(behind_place(&text)?.trim())
    }
}

/// A message with marks in what names special tokens.
struct Marked {
    role: String,
    content: String,
}

fn marked(marker: &Marker<'_>, messages: &[Message<'_>]) -> Result<Vec<Marked>> {
    try_collected(messages.iter().map(|message| {
        let is_known = ROLES.contains(&message.role);
        let role = if is_known { copied(message.role)? } else { marker.marked(message.role)? };
        Ok(Marked { role, content: marker.marked(message.content)? })
    }))
}

fn as_messages(all: &[Marked]) -> Result<Vec<Message<'_>>> {
    collected(all.iter().map(|Marked { role, content }| Message { role, content }))
}

fn behind_place(text: &str) -> Result<&str> {
    let once = |(before, behind): (&str, &'_ str)| !before.contains(PLACE) && !behind.contains(PLACE);
    text.split_once(PLACE)
        .filter(|&parts| once(parts))
        .map(|(_, behind)| behind)
        .ok_or_else(|| Error::Unsupported("the chat template does not write an answer once, as it is".into()))
}

#[cfg(feature = "chat")]
fn check(text: &str) -> Result<()> {
    jinja::check(text)
}

#[cfg(feature = "chat")]
fn check_kwargs(json: &str) -> Result<()> {
    jinja::check_kwargs(json)
}

/// The text of a template; with a marker, its other variables have marks as the messages have.
#[cfg(feature = "chat")]
fn render(
    template: &ChatTemplate,
    messages: &[Message<'_>],
    add_generation_prompt: bool,
    marker: Option<&Marker<'_>>,
) -> Result<String> {
    let ChatTemplate { source, bos_token, eos_token, kwargs } = template;
    let mark = marker.map(|marker| move |text: &str| marker.marked(text));
    let mark = mark.as_ref().map(|mark| mark as &jinja::Mark<'_>);
    let facts = jinja::Facts { bos_token, eos_token, add_generation_prompt, kwargs, mark };
    jinja::render(source, messages, &facts)
}

#[cfg(not(feature = "chat"))]
fn check(_: &str) -> Result<()> {
    Err(missing_feature())
}

#[cfg(not(feature = "chat"))]
fn check_kwargs(_: &str) -> Result<()> {
    Err(missing_feature())
}

#[cfg(not(feature = "chat"))]
fn render(_: &ChatTemplate, _: &[Message<'_>], _: bool, _: Option<&Marker<'_>>) -> Result<String> {
    Err(missing_feature())
}

#[cfg(not(feature = "chat"))]
fn missing_feature() -> Error {
    Error::Unsupported("chat templates: this build of esolm lacks the feature 'chat' (docs/chat.md)".into())
}
