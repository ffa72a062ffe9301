//! Conversations in files.

use esolm::{Error, Message, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::allocation::copied;
use crate::input::read_text;
use crate::output::{json_line, write_file};

/// A message that a conversation owns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    pub role: String,
    pub content: String,
}

impl Entry {
    /// A message.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(role: &str, content: &str) -> Result<Self> {
        Ok(Self { role: copied(role)?, content: copied(content)? })
    }

    /// As the library takes it.
    pub fn as_message(&self) -> Message<'_> {
        Message { role: &self.role, content: &self.content }
    }
}

/// Writes a conversation to a file: what OpenAI's API calls `messages`. One that is there is replaced, and nothing else is.
///
/// # Errors
/// [`Error::InvalidArgument`] for another file; those of writing.
pub fn write(file: &str, messages: &[Entry]) -> Result<()> {
    let there = std::fs::metadata(file).is_ok_and(|there| there.is_file() && there.len() > 0);
    if there && read(file).is_err() {
        let what = format!("{file}: it is there and has no conversation; it stays as it is");
        return Err(Error::InvalidArgument(what));
    }
    let messages: Vec<Value> =
        messages.iter().map(|entry| json!({"role": entry.role, "content": entry.content})).collect();
    write_file(file.as_ref(), json_line(json!({ "messages": messages })))
}

/// Reads a conversation.
pub fn read(file: &str) -> Result<Vec<Entry>> {
    parse(&read_text(file)?).map_err(|what| Error::BadFile { file: file.into(), what, source: None })
}

/// The messages of a conversation: a list of them, or an object that has one. What else there is, is ignored, and not kept.
pub fn parse(text: &str) -> std::result::Result<Vec<Entry>, String> {
    #[derive(Deserialize)]
    struct Saved {
        messages: Vec<Entry>,
    }
    let messages = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text),
        false => serde_json::from_str(text).map(|Saved { messages }| messages),
    };
    messages.map_err(|error| format!("no list of messages with a role and a content that are texts: {error}"))
}
