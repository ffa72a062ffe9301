//! The finished beginning of a sequence: the positions that are known from the start without a gap.
//!
//! A text can end there only, as what comes behind a gap may never be reached; and only behind the caller's tokens.

use super::stop::{StopReason, StopRules};
use crate::error::Result;
use crate::memory::filled;
use crate::model::{Joint, Tokenizer};

/// The finished beginning of a sequence.
#[derive(Debug, Default)]
pub(super) struct FinishedPrefix {
    /// Number of its positions.
    pub(super) tokens: usize,
    /// What ended the text.
    pub(super) stop: Option<Stop>,
    /// The bytes of its text: where the next token joins them, and their number. Not counted without stop strings.
    joint: Joint,
    bytes: usize,
    /// For each stop string, how many bytes of it the text ends with.
    matched: Vec<u32>,
}

/// What ended a text before its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) reason: StopReason,
    /// With a stop string: the number of bytes of the text before it.
    pub(super) bytes: Option<usize>,
}

/// Which part of a sequence is its text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TextEnd {
    /// Its first tokens ..
    pub(crate) tokens: usize,
    /// .. and of their bytes the first, if not all.
    pub(crate) bytes: Option<usize>,
    /// Whether nothing will be appended.
    pub(crate) complete: bool,
}

/// What a sequence's positions hold.
#[derive(Clone, Copy)]
pub(super) struct Positions<'a> {
    pub(super) tokens: &'a [u32],
    /// The number of positions up to the last token of the caller.
    pub(super) prompt_end: usize,
    pub(super) mask: u32,
}

impl FinishedPrefix {
    /// Back to no positions, for `rules`. `tokenizer` is needed for stop strings.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub(super) fn begin(&mut self, rules: &StopRules, tokenizer: Option<&Tokenizer>) -> Result<()> {
        *self = Self {
            joint: tokenizer.and_then(Tokenizer::pieces).map(|pieces| pieces.begin()).unwrap_or_default(),
            matched: filled(rules.strings.len(), 0)?,
            ..Self::default()
        };
        Ok(())
    }

    /// Goes on over the positions that have become known, to the first gap or to the end of the text.
    pub(super) fn advance(
        &mut self,
        positions: Positions<'_>,
        rules: &StopRules,
        tokenizer: Option<&Tokenizer>,
    ) {
        let Positions { tokens, prompt_end, mask } = positions;
        while let (None, Some(&token)) = (self.stop, tokens.get(self.tokens)) {
            if token == mask {
                return;
            }
            let (position, behind) = (self.tokens, self.tokens >= prompt_end);
            self.tokens += 1;
            if let Some(reason) = rules.token(token).filter(|_| behind && position > 0) {
                self.stop = Some(Stop { reason, bytes: None });
            } else if let Some(tokenizer) = tokenizer.filter(|tokenizer| tokenizer.shows(token)) {
                self.add_bytes(token, behind, rules, tokenizer);
            }
        }
    }

    /// Adds a token's bytes to the text, and looks for stop strings in those behind the prompt.
    fn add_bytes(&mut self, token: u32, behind: bool, rules: &StopRules, tokenizer: &Tokenizer) {
        let Self { joint, bytes, matched, stop, .. } = self;
        let Some(pieces) = tokenizer.pieces() else { return };
        pieces.append(joint, token, |piece| {
            for &byte in piece {
                *bytes += 1;
                if !behind || stop.is_some() {
                    continue;
                }
                let mut found = 0;
                for (string, matched) in rules.strings.iter().zip(&mut *matched) {
                    *matched = string.advance(*matched, byte);
                    if *matched == string.len() {
                        found = found.max(*matched as usize);
                    }
                }
                if found > 0 {
                    *stop = Some(Stop { reason: StopReason::StopString, bytes: Some(*bytes - found) });
                }
            }
        });
    }

    /// The text of a sequence of `length` tokens. What may be the beginning of a stop string is not in it yet.
    pub(super) fn text_end(&self, length: usize) -> TextEnd {
        let by_token = |stop: Stop| matches!(stop.reason, StopReason::EndOfText | StopReason::StopToken);
        let complete = self.stop.is_some() || self.tokens == length;
        let held = self.matched.iter().copied().max().filter(|&held| held > 0 && !complete);
        let bytes = match self.stop {
            Some(stop) => stop.bytes,
            None => held.map(|held| self.bytes - held as usize),
        };
        TextEnd { tokens: self.tokens - usize::from(self.stop.is_some_and(by_token)), bytes, complete }
    }
}
