//! Conversations: `template` makes one text of their messages, of which `jinja` runs the template's language.

#[cfg(feature = "chat")]
mod jinja;
mod message;
mod template;

pub use message::Message;
pub use template::ChatTemplate;
