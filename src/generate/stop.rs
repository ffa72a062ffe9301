//! What is looked for in texts as they grow: what ends them before their length (the end-of-text token, stop tokens, stop
//! strings), and new text.

use super::request::GenerateParams;
use crate::error::{Error, Result};
use crate::memory::{collected, try_collected};
use crate::model::{Model, limits};

/// Most tokens that end a text of a model.
const MAX_EOS: usize = 1 + limits::OTHER_EOS;
/// Most stop strings of a generation, and the longest, in bytes.
const MAX_STRINGS: usize = 64;
const MAX_STRING: usize = 1024;

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// It has its length: [`GenerateParams::length`], [`GenerateParams::max_tokens`].
    Length,
    /// The model wrote its end-of-text token.
    EndOfText,
    /// The model wrote one of [`GenerateParams::stop_tokens`].
    StopToken,
    /// The model wrote one of [`GenerateParams::stop_strings`].
    StopString,
    /// The last call was cancelled: by [`CancelToken`](crate::CancelToken), or by a callback. The text may go on.
    Cancelled,
    /// The last step failed. The text may go on.
    Error,
}

impl StopReason {
    /// Its name in the command line's JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::EndOfText => "end_of_text",
            Self::StopToken => "stop_token",
            Self::StopString => "stop_string",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }
}

/// What ends the texts of a generation, and whether new text is wanted.
#[derive(Debug, Default)]
pub(super) struct StopRules {
    /// The tokens that end a text, unless they are ignored.
    eos: [Option<u32>; MAX_EOS],
    tokens: Vec<u32>,
    pub(super) strings: Vec<StopString>,
    pub(super) new_text: bool,
}

impl StopRules {
    /// Checks and copies what the parameters say. Allocates for stop tokens and stop strings only.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; [`Error::Unsupported`] for stop strings and new text with a tokenizer whose texts are
    /// not joined of its tokens' bytes; those of [`Model::tokenizer`].
    pub(super) fn new(params: &GenerateParams<'_>, model: &Model) -> Result<Self> {
        let config = model.config();
        if let Some(token) = params.stop_tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            return Err(Error::invalid(format!("stop tokens: there is no token {token}")));
        }
        let strings = params.stop_strings;
        if strings.len() > MAX_STRINGS || strings.iter().any(|s| s.is_empty() || s.len() > MAX_STRING) {
            return Err(Error::invalid(format!(
                "stop strings: at most {MAX_STRINGS}, each of 1 to {MAX_STRING} bytes"
            )));
        }
        if (!strings.is_empty() || params.step_text) && model.tokenizer()?.pieces()?.is_none() {
            return Err(Error::Unsupported(
                "stop strings and the text of steps: this tokenizer's decoder looks at the whole text".into(),
            ));
        }
        let mut eos = [None; MAX_EOS];
        if !params.ignore_eos {
            eos.iter_mut().zip(config.ends()).for_each(|(place, token)| *place = Some(token));
        }
        Ok(Self {
            eos,
            tokens: collected(params.stop_tokens.iter().copied())?,
            strings: try_collected(strings.iter().map(|string| StopString::new(string)))?,
            new_text: params.step_text,
        })
    }

    /// Whether the bytes of texts are looked at.
    pub(super) fn need_bytes(&self) -> bool {
        self.new_text || !self.strings.is_empty()
    }

    /// Why a token, which the model wrote, ends the text.
    pub(super) fn token(&self, token: u32) -> Option<StopReason> {
        if self.eos.contains(&Some(token)) {
            return Some(StopReason::EndOfText);
        }
        self.tokens.contains(&token).then_some(StopReason::StopToken)
    }
}

/// A stop string, found byte by byte: Knuth, Morris, Pratt.
#[derive(Debug)]
pub(super) struct StopString {
    bytes: Vec<u8>,
    /// For each number of matched bytes, how many of their last ones begin the string, too.
    borders: Vec<u32>,
}

impl StopString {
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn new(string: &str) -> Result<Self> {
        let mut made = Self {
            bytes: collected(string.bytes())?,
            borders: collected(std::iter::repeat_n(0, string.len() + 1))?,
        };
        let mut border = 0;
        for (index, byte) in string.bytes().enumerate().skip(1) {
            border = made.advance(border, byte);
            if let Some(place) = made.borders.get_mut(index + 1) {
                *place = border;
            }
        }
        Ok(made)
    }

    pub(super) fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// The number of matched bytes, behind a text of which `matched` match, and `byte`.
    pub(super) fn advance(&self, matched: u32, byte: u8) -> u32 {
        let mut matched = matched;
        loop {
            if self.bytes.get(matched as usize) == Some(&byte) {
                return matched + 1;
            }
            if matched == 0 {
                return 0;
            }
            matched = self.borders.get(matched as usize).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_string_is_found_where_a_search_finds_it() {
        let texts = ["aabaaabaaab", "ababab", "aaaa", "abcabd", "xyx", "", "baabaab"];
        for needle in ["a", "aab", "aaab", "abab", "aa", "abd", "xyxy", "baab"] {
            let string = StopString::new(needle).unwrap();
            for text in texts {
                let mut matched = 0;
                let end = text.bytes().position(|byte| {
                    matched = string.advance(matched, byte);
                    matched == string.len()
                });
                let expected = text.find(needle).map(|start| start + needle.len() - 1);
                assert_eq!(end, expected, "{needle} in {text}");
            }
        }
    }
}
