//! The finished beginning of a sequence: the positions that are known from the start without a gap.
//!
//! A text can end there only, as what comes behind a gap may never be reached; and only behind the caller's tokens.

use std::collections::TryReserveError;

use super::stop::{StopReason, StopRules};
use crate::error::Result;
use crate::memory::{no_room, reserve};
use crate::model::{Joint, TokenPieces, Tokenizer, push_characters};

/// Most bytes of new text that a sequence has memory for from the beginning on.
const NEW_TEXT: usize = 1 << 20;

/// The finished beginning of a sequence.
#[derive(Debug, Default)]
pub(super) struct FinishedPrefix {
    /// Number of its positions.
    pub(super) tokens: usize,
    /// What ended the text.
    pub(super) stop: Option<Stop>,
    /// The bytes of its text: where the next token joins them, and their number. Counted if there are stop strings, or if
    /// new text is wanted.
    joint: Joint,
    bytes: usize,
    /// Whether new text is wanted. The last bytes, which may become a stop string or a character; and what became text in
    /// the last step, with a NUL behind it for C.
    pub(super) wants_text: bool,
    held: Vec<u8>,
    new_text: String,
    /// Whether the caller knows the text: it is left out, however long it is.
    pub(super) is_known: bool,
    /// The bytes that could not be allocated for new text. What is missing comes with the next step.
    lacking: Option<usize>,
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

fn pieces_of(tokenizer: Option<&Tokenizer>) -> Result<Option<&TokenPieces>> {
    Ok(tokenizer.map(Tokenizer::pieces).transpose()?.flatten())
}

impl FinishedPrefix {
    /// Makes room for a sequence of `length` tokens with these rules; the positions stay. The tokenizer of `rules` is there
    /// if they look at bytes.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn make_room(
        &mut self,
        length: usize,
        rules: &StopRules,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<()> {
        let Self { held, new_text, matched, .. } = self;
        reserve(matched, rules.strings.len().saturating_sub(matched.len()))?;
        if let Some(pieces) = pieces_of(tokenizer)?.filter(|_| rules.new_text) {
            let most = length.saturating_mul(pieces.longest()).min(NEW_TEXT);
            reserve(held, most.saturating_sub(held.len()))?;
            // U+FFFD takes three bytes for one.
            let room = (3 * most + 1).saturating_sub(new_text.len());
            new_text.try_reserve_exact(room).map_err(|_| no_room(room))?;
        }
        Ok(())
    }

    /// Back to no positions, with the rules that room was made for.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory), if no room was made.
    pub(super) fn begin(&mut self, rules: &StopRules, tokenizer: Option<&Tokenizer>) -> Result<()> {
        let pieces = pieces_of(tokenizer)?;
        let Self { mut held, mut new_text, mut matched, .. } = std::mem::take(self);
        held.clear();
        new_text.clear();
        matched.clear();
        matched.resize(rules.strings.len(), 0);
        let joint = pieces.map(|pieces| pieces.begin()).unwrap_or_default();
        *self = Self { joint, wants_text: rules.new_text, held, new_text, matched, ..Self::default() };
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
            if token == mask || !self.reserve_token(tokenizer) {
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

    /// What became text in the last step, with a NUL behind it.
    pub(super) fn new_text(&self) -> &str {
        if self.new_text.is_empty() { "\0" } else { &self.new_text }
    }

    /// Makes place for what becomes text in the coming step: the text of the last one is forgotten, or `kept` for the coming one
    /// to go on behind it.
    pub(super) fn begin_new_text(&mut self, kept: bool) {
        if !kept {
            self.new_text.clear();
        }
    }

    /// Whether there was room for all new text since the last call.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn check_room(&mut self) -> Result<()> {
        self.lacking.take().map_or(Ok(()), |bytes| Err(no_room(bytes)))
    }

    /// Makes new text of the bytes that can no longer change. `length` is the sequence's.
    pub(super) fn give_text(&mut self, length: usize) {
        if !self.wants_text {
            return;
        }
        // Text that is kept from the last step.
        if self.new_text.ends_with('\0') {
            self.new_text.pop();
        }
        let TextEnd { bytes, complete, .. } = self.text_end(length);
        let given = self.bytes - self.held.len();
        let ready = bytes.map_or(self.held.len(), |end| end.saturating_sub(given));
        self.push_text(ready, complete);
        if !self.new_text.is_empty() || self.reserve_text(1) {
            self.new_text.push('\0');
        }
    }

    /// Makes text of the first `ready` bytes that are held, but for an incomplete character at their end.
    fn push_text(&mut self, ready: usize, complete: bool) {
        // U+FFFD takes three bytes for one, and there is the NUL.
        if !self.reserve_text(3 * ready + 1) {
            return;
        }
        let ready = self.held.get(..ready).unwrap_or_default();
        let taken = push_characters(ready, complete, &mut self.new_text);
        self.held.drain(..taken);
    }

    /// Makes room for the bytes of one more token, and tells whether there is. There always is, but for very long texts.
    fn reserve_token(&mut self, tokenizer: Option<&Tokenizer>) -> bool {
        let Ok(Some(pieces)) = pieces_of(tokenizer).map(|pieces| pieces.filter(|_| self.wants_text)) else {
            return true;
        };
        if self.is_known && self.held.len() >= NEW_TEXT / 2 {
            self.push_text(self.held.len(), false);
            self.new_text.clear();
        }
        let room = self.held.try_reserve(pieces.longest());
        self.is_room(room, pieces.longest())
    }

    /// Makes room for `bytes` more of new text, and tells whether there is.
    fn reserve_text(&mut self, bytes: usize) -> bool {
        let room = self.new_text.try_reserve(bytes);
        self.is_room(room, bytes)
    }

    /// Whether `room` for `bytes` was made. If not, that is told by [`FinishedPrefix::check_room`].
    fn is_room(&mut self, room: std::result::Result<(), TryReserveError>, bytes: usize) -> bool {
        if room.is_err() {
            self.lacking = Some(bytes);
        }
        room.is_ok()
    }

    /// Adds a token's bytes to the text, and looks for stop strings in those behind the prompt.
    fn add_bytes(&mut self, token: u32, behind: bool, rules: &StopRules, tokenizer: &Tokenizer) {
        let Self { joint, bytes, matched, stop, held, wants_text, .. } = self;
        // They were there when the sequence began.
        let Ok(Some(pieces)) = tokenizer.pieces() else { return };
        pieces.append(joint, token, |piece| {
            if *wants_text {
                held.extend_from_slice(piece);
            }
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
