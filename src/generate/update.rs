//! What a step did, as the caller sees it.

use super::sequence::Sequence;
use super::stop::StopReason;
use crate::sample::TokenLogProb;

/// A token that a step wrote.
#[repr(C)] // The C boundary hands these out as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The sequence, by index.
    pub sequence: u32,
    /// Position in the text.
    pub position: u32,
    /// The token.
    pub token: u32,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Index of the step, from 0.
    pub index: usize,
    /// Number of steps of the whole generation, with those that feed prompts only (at most, where they are
    /// [`Adaptive`](crate::Adaptive) or look ahead). It grows as sequences join, and as their prompts take further steps.
    pub total: usize,
    /// The tokens written, sequence by sequence, each in generation order. None by a step that fed prompts only
    /// ([`ContextParams::prompt_rows`](crate::ContextParams)).
    pub updates: &'a [Update],
    /// The log-probability (natural) of each token if [`GenerateParams::log_probs`](crate::GenerateParams) is set,
    /// otherwise empty: log-softmax of the network's logits without the mask token, before constraints, temperature and
    /// filters.
    pub log_probs: &'a [f64],
    /// The most likely tokens at the position of each update, the likeliest first:
    /// [`GenerateParams::top_log_probs`](crate::GenerateParams) of them for the first update, as many for the second and
    /// so on. The written token need not be among them.
    pub top_log_probs: &'a [TokenLogProb],
    /// How many tokens the sequences' lookahead had proposed for this step, and how many of them are among the updates
    /// ([`GenerateParams::lookahead`](crate::GenerateParams)).
    pub proposed: usize,
    /// See [`Step::proposed`].
    pub accepted: usize,
    pub(super) sequences: &'a [Sequence],
}

impl<'a> Step<'a> {
    /// The text of a sequence that became final in this step, in whole characters of UTF-8: what follows what was there
    /// already, without a gap, up to what may yet become a stop string. Empty unless
    /// [`GenerateParams::step_text`](crate::GenerateParams) is set, or if there is no such sequence.
    ///
    /// [`Context::text`](crate::Context::text) after the beginning, which is the prompt's, and these texts, one behind the
    /// other, are the text at the end.
    pub fn text(&self, sequence: usize) -> &'a str {
        self.text_with_nul(sequence).strip_suffix('\0').unwrap_or_default()
    }

    /// The same with a NUL behind it.
    pub(crate) fn text_with_nul(&self, sequence: usize) -> &'a str {
        self.sequence(sequence).map_or("\0", |sequence| sequence.finished.new_text())
    }

    /// Why the text of a sequence ended; `None` while it is being written.
    pub fn stop_reason(&self, sequence: usize) -> Option<StopReason> {
        self.sequence(sequence).and_then(Sequence::stop_reason)
    }

    /// Whether there are texts: [`GenerateParams::step_text`](crate::GenerateParams).
    #[cfg(feature = "capi")]
    pub(crate) fn has_text(&self) -> bool {
        self.sequences.iter().any(|sequence| sequence.in_use && sequence.finished.wants_text)
    }

    fn sequence(&self, number: usize) -> Option<&'a Sequence> {
        self.sequences.get(number).filter(|sequence| sequence.in_use)
    }

    /// Number of sequences, as [`Context::sequences`](crate::Context::sequences).
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }
}
