//! Conversations in files.

use esolm::{Error, Message, Result};
use serde_json::{Value, json};

use crate::input::read_text;
use crate::output::{json_line, write_file};

/// A message that a conversation owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub role: String,
    pub content: String,
}

impl Entry {
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// As the library takes it.
    pub fn as_message(&self) -> Message<'_> {
        Message { role: &self.role, content: &self.content }
    }
}

/// Writes a conversation to a file: what OpenAI's API calls `messages`.
pub fn write(file: &str, messages: &[Entry]) -> Result<()> {
    let messages: Vec<Value> =
        messages.iter().map(|entry| json!({"role": entry.role, "content": entry.content})).collect();
    write_file(file.as_ref(), &json_line(json!({ "messages": messages })))
}

/// Reads a conversation.
pub fn read(file: &str) -> Result<Vec<Entry>> {
    let bad = |what: &str| Error::BadFile { file: file.into(), what: what.into(), source: None };
    let content: Value =
        serde_json::from_str(&read_text(file)?).map_err(|error| bad(&format!("no JSON: {error}")))?;
    let messages = content.get("messages").unwrap_or(&content).as_array();
    let text = |message: &Value, name: &str| message.get(name).and_then(Value::as_str).map(str::to_owned);
    let entry =
        |message: &Value| Some(Entry { role: text(message, "role")?, content: text(message, "content")? });
    let messages = messages.ok_or_else(|| bad("no list of messages"))?;
    let all: Option<Vec<Entry>> = messages.iter().map(entry).collect();
    all.ok_or_else(|| bad("a message without a role or a content that are texts"))
}
