//! Conversations: `template` makes one text of their messages. `jinja` runs the template's language, `names` keeps names of
//! special tokens in messages characters.

#[cfg(feature = "chat")]
mod jinja;
mod message;
mod names;
mod template;

pub use message::Message;
pub use template::ChatTemplate;
