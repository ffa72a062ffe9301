//! What a conversation is made of.

/// One message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Whose it is: `system`, `user`, `assistant`, or another name that the template knows.
    pub role: &'a str,
    /// What it says.
    pub content: &'a str,
}

impl<'a> Message<'a> {
    /// A message of the user's.
    pub fn user(content: &'a str) -> Self {
        Self { role: "user", content }
    }

    /// An answer of the model's.
    pub fn assistant(content: &'a str) -> Self {
        Self { role: "assistant", content }
    }

    /// What holds for the whole conversation.
    pub fn system(content: &'a str) -> Self {
        Self { role: "system", content }
    }
}
