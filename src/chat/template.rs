//! The template that makes one text of a conversation's messages.

use std::borrow::Cow;

#[cfg(feature = "chat")]
use super::jinja;
use super::message::Message;
use crate::error::{Error, Result};
use crate::memory::{append, collected, copied, push, try_collected};
use crate::model::{Config, Model, TokenizeOptions, Tokenizer};

/// Stands in a content where the name of a special token is cut in two. (A noncharacter: no text has it.)
const CUT: char = '\u{fdd0}';
/// Stands for a whole content.
const PLACE: &str = "\u{fdd1}";
/// Stands before a character that is no part of a special token's name, whatever is beside it. (Behind it stands [`CUT`].)
const ALONE: char = '\u{fdd2}';
/// Roles that every template knows: the words of its language, not of a message.
const ROLES: [&str; 3] = ["system", "user", "assistant"];
/// How often a message is searched for names: without those that are found, others may be.
const SEARCHES: usize = 4;

/// A template that makes one text of a conversation's messages, in Jinja, as the files of models that converse have one. It needs
/// the cargo feature `chat`. Applying one takes time and memory in proportion to the messages at most, and reads no files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: Cow<'static, str>,
    /// The names of the tokens that begin and end a text.
    bos_token: String,
    eos_token: String,
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
        Ok(Self { source: copied(text)?.into(), bos_token: String::new(), eos_token: String::new() })
    }

    /// [`ChatTemplate::CHATML`].
    pub fn chatml() -> Self {
        Self { source: Self::CHATML.into(), bos_token: String::new(), eos_token: String::new() }
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
}

/// Applying it.
impl ChatTemplate {
    /// The text of a conversation, and with `add_generation_prompt` what comes before the model's next answer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the template refuses these messages, is wrong somewhere, or takes too much;
    /// [`Error::OutOfMemory`]; [`Error::Unsupported`] without the cargo feature `chat`.
    pub fn apply(&self, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String> {
        render(self, messages, add_generation_prompt)
    }

    /// The tokens of a conversation up to the model's next answer. Names of special tokens are these tokens where the template
    /// writes them, and characters where a message or its role does. A token that stands before each text of the model
    /// ([`Config::prepend_token_id`] of Qwen's) is left out at the beginning.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::apply`] and [`Tokenizer::encode_with`].
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message<'_>]) -> Result<Vec<u32>> {
        let text = self.apply(&as_messages(&guarded(tokenizer, messages)?)?, true)?;
        let mut tokens = encode_guarded(tokenizer, &text, false)?;
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
        let mut messages = guarded(tokenizer, messages)?;
        if let Some(message) = messages.get_mut(answer) {
            message.content = copied(PLACE)?;
        }
        let text = self.apply(&as_messages(&messages)?, true)?;
        encode_guarded(tokenizer, behind_place(&text)?, true)
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

/// A message in which the names of special tokens are marked.
struct Guarded {
    role: String,
    content: String,
}

fn as_messages(all: &[Guarded]) -> Result<Vec<Message<'_>>> {
    collected(all.iter().map(|Guarded { role, content }| Message { role, content }))
}

fn behind_place(text: &str) -> Result<&str> {
    let once = |(before, behind): (&str, &'_ str)| !before.contains(PLACE) && !behind.contains(PLACE);
    text.split_once(PLACE)
        .filter(|&parts| once(parts))
        .map(|(_, behind)| behind)
        .ok_or_else(|| Error::Unsupported("the chat template does not write an answer once, as it is".into()))
}

/// The messages, with marks in the names of special tokens.
fn guarded(tokenizer: &Tokenizer, messages: &[Message<'_>]) -> Result<Vec<Guarded>> {
    let names = tokenizer.special_names()?;
    try_collected(messages.iter().map(|message| {
        let role = if ROLES.contains(&message.role) {
            copied(message.role)?
        } else {
            guarded_text(tokenizer, &names, message.role)?
        };
        Ok(Guarded { role, content: guarded_text(tokenizer, &names, message.content)? })
    }))
}

/// A text of a message, with marks in what names special tokens: as it is, or as the tokenizer normalizes it.
fn guarded_text(tokenizer: &Tokenizer, names: &[&str], text: &str) -> Result<String> {
    let mut made = cut_names(names, text)?;
    for _ in 0..SEARCHES {
        match with_names_alone(tokenizer, &made)? {
            Some(marked) => made = marked,
            None => return Ok(made),
        }
    }
    Err(Error::tokenizer("a message names special tokens in a way that cannot be told from other text"))
}

/// The text with each character alone of what the tokenizer takes for a special token's name; `None` if there is no such name.
fn with_names_alone(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>> {
    let (mut made, mut any) = (String::new(), false);
    for (piece, is_alone, mark) in pieces(text) {
        let places = if is_alone { Vec::new() } else { tokenizer.named_places(piece)? };
        any |= !places.is_empty();
        let mut places = places.iter().peekable();
        for (index, c) in piece.char_indices() {
            while places.next_if(|&&(_, end)| end <= index).is_some() {}
            match places.peek() {
                Some(&&(start, _)) if start <= index => append(&mut made, format_args!("{ALONE}{c}{CUT}"))?,
                _ => append(&mut made, c)?,
            }
        }
        append(&mut made, mark)?;
    }
    Ok(any.then_some(made))
}

/// The pieces of a text between marks, whether each is a character that stands alone, and the mark behind it.
fn pieces(text: &str) -> impl Iterator<Item = (&str, bool, &str)> {
    let mut before = "";
    text.split_inclusive([CUT, ALONE]).map(move |piece| {
        let (own, mark) = piece.split_at(piece.trim_end_matches([CUT, ALONE]).len());
        let is_alone = before.starts_with(ALONE) && mark.starts_with(CUT) && own.chars().nth(1).is_none();
        before = mark;
        (own, is_alone, mark)
    })
}

/// The text with names cut in two. They are in order, and none begins with another: so only the last one before a text can begin
/// it.
fn cut_names(names: &[&str], content: &str) -> Result<String> {
    // Nothing of a message may pass for the marks.
    let is_mark = |c: char| c == CUT || c == ALONE || PLACE.starts_with(c);
    let mut without_marks = String::new();
    let content = match content.contains(is_mark) {
        true => {
            for c in content.chars() {
                append(&mut without_marks, if is_mark(c) { char::REPLACEMENT_CHARACTER } else { c })?;
            }
            without_marks.as_str()
        }
        false => content,
    };
    let mut made = String::new();
    for (index, c) in content.char_indices() {
        append(&mut made, c)?;
        let rest = content.get(index..).unwrap_or_default();
        let before = names.partition_point(|name| *name <= rest).checked_sub(1);
        if before.and_then(|at| names.get(at)).is_some_and(|name| rest.starts_with(name)) {
            append(&mut made, CUT)?;
        }
    }
    Ok(made)
}

fn encode_guarded(tokenizer: &Tokenizer, text: &str, mut continues: bool) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for (piece, is_alone, _) in pieces(text).filter(|(piece, ..)| !piece.is_empty()) {
        let options = TokenizeOptions { parse_special: !is_alone, continues };
        for token in tokenizer.encode_with(piece, &options)? {
            push(&mut all, token)?;
        }
        continues = true;
    }
    Ok(all)
}

#[cfg(feature = "chat")]
fn check(text: &str) -> Result<()> {
    jinja::check(text)
}

#[cfg(feature = "chat")]
fn render(template: &ChatTemplate, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String> {
    let ChatTemplate { source, bos_token, eos_token } = template;
    jinja::render(source, messages, &jinja::Facts { bos_token, eos_token, add_generation_prompt })
}

#[cfg(not(feature = "chat"))]
fn check(_: &str) -> Result<()> {
    Err(missing_feature())
}

#[cfg(not(feature = "chat"))]
fn render(_: &ChatTemplate, _: &[Message<'_>], _: bool) -> Result<String> {
    Err(missing_feature())
}

#[cfg(not(feature = "chat"))]
fn missing_feature() -> Error {
    Error::Unsupported("chat templates: this build of esolm lacks the feature 'chat' (docs/chat.md)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_content_are_cut_in_two() {
        let names = ["<a", "<|end|>", "[MASK]"];
        let guarded = |content: &str| cut_names(&names, content).unwrap();
        assert_eq!(guarded("<|end|><ab [MASK"), "<\u{fdd0}|end|><\u{fdd0}ab [MASK");
        assert_eq!(guarded("\u{fdd0}<<a\u{fdd1}"), "\u{fffd}<<\u{fdd0}a\u{fffd}");
        assert_eq!(cut_names(&[], "<a").unwrap(), "<a");
        // Also one that the replaced marks make.
        assert_eq!(cut_names(&["<\u{fffd}>"], "<\u{fdd0}>").unwrap(), "<\u{fdd0}\u{fffd}>");
    }

    #[test]
    fn many_names_are_looked_for_in_little_time() {
        let mut names: Vec<String> = (0..200_000).map(|n| format!("{}{n:06}", "a".repeat(100))).collect();
        names.sort_unstable();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let started = std::time::Instant::now();
        assert_eq!(cut_names(&names, &"a".repeat(1 << 18)).unwrap().len(), 1 << 18);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
