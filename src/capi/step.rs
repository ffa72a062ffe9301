//! `esolm_step_info`: what a step did.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr::null;

use super::params::SizedStruct;
use crate::error::Result;
use crate::generate::{Step, StopReason, Update};
use crate::memory::with_room;

/// The text is being written.
pub const ESOLM_STOP_NONE: i32 = 0;
/// The text has its length: esolm_generate_params.length or max_tokens.
pub const ESOLM_STOP_LENGTH: i32 = 1;
/// The model wrote its end-of-text token.
pub const ESOLM_STOP_END_OF_TEXT: i32 = 2;
/// The model wrote one of esolm_generate_params.stop_tokens.
pub const ESOLM_STOP_TOKEN: i32 = 3;
/// The model wrote one of esolm_generate_params.stop_strings.
pub const ESOLM_STOP_STRING: i32 = 4;
/// The last call was cancelled, by esolm_cancel or a callback; esolm_step may go on.
pub const ESOLM_STOP_CANCELLED: i32 = 5;
/// The last step failed; esolm_step may try again.
pub const ESOLM_STOP_ERROR: i32 = 6;

/// A token that a step wrote. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_update {
    /// The sequence: the index of its prompt, or the number that esolm_sequence_add wrote.
    pub sequence: u32,
    /// The position in the text.
    pub position: u32,
    /// The token.
    pub token: u32,
}

// The library's updates are passed to C as they are.
const _: () = {
    assert!(size_of::<esolm_update>() == size_of::<Update>());
    assert!(offset_of!(esolm_update, sequence) == offset_of!(Update, sequence));
    assert!(offset_of!(esolm_update, position) == offset_of!(Update, position));
    assert!(offset_of!(esolm_update, token) == offset_of!(Update, token));
};

/// The text of a sequence that became final in a step. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_step_text {
    /// Whole characters of UTF-8 with a NUL: what follows what was there already, without a gap, up to what may yet become a
    /// stop string. esolm_copy_text after esolm_begin, which is the prompt's text, and these texts, one behind the other,
    /// are the text at the end. Valid as long as esolm_step_info.updates.
    pub text: *const c_char,
    /// Its length in bytes, without the NUL.
    pub len: usize,
    /// The sequence: its index here, too. (The text of one that was removed is empty.)
    pub sequence: u32,
    /// Why its text ended: ESOLM_STOP_*.
    pub stop_reason: i32,
}

/// What a step did. Before esolm_step set struct_size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_step_info {
    /// sizeof(esolm_step_info)
    pub struct_size: usize,
    /// Number of the step, from 0.
    pub index: usize,
    /// Number of steps of the generation, with those that feed prompts only; with esolm_generate_params.confidence or
    /// lookahead the maximum.
    pub total: usize,
    /// The tokens written; none by a step that fed prompts only (esolm_context_params.prompt_rows). Valid until the
    /// callback returns or, from esolm_step, until the next call on the context.
    pub updates: *const esolm_update,
    /// Number of updates.
    pub n_updates: usize,
    /// The log-probability (natural) of each token under the model, before constraints, temperature and filters; valid as
    /// long as updates. NULL unless esolm_generate_params.log_probs is 1.
    pub log_probs: *const f64,
    /// The new text of each sequence; valid as long as updates. NULL unless esolm_generate_params.step_text is 1.
    pub texts: *const esolm_step_text,
    /// Number of texts: one more than the number of the last sequence, or 0.
    pub n_texts: usize,
    /// How many tokens the sequences' lookahead had proposed for this step (esolm_generate_params.lookahead).
    pub n_proposed: usize,
    /// How many of them are among the updates.
    pub n_accepted: usize,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_step_info {
    const NAME: &'static str = "esolm_step_info";
    const VERSION_1: usize = offset_of!(Self, n_proposed);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        index: 0,
        total: 0,
        updates: null(),
        n_updates: 0,
        log_probs: null(),
        texts: null(),
        n_texts: 0,
        n_proposed: 0,
        n_accepted: 0,
    };
}

impl esolm_step_info {
    /// What `step` did. `texts` has memory for the texts of all sequences.
    pub(super) fn new(step: &Step<'_>, texts: &mut StepTexts) -> Self {
        let Step { index, total, updates, log_probs, proposed, accepted, .. } = *step;
        let log_probs = if log_probs.is_empty() { null() } else { log_probs.as_ptr() };
        texts.set(step);
        let n_texts = texts.0.len();
        let texts = if n_texts == 0 { null() } else { texts.0.as_ptr() };
        let (updates, n_updates) = (updates.as_ptr().cast(), updates.len());
        Self {
            index,
            total,
            updates,
            n_updates,
            log_probs,
            texts,
            n_texts,
            n_proposed: proposed,
            n_accepted: accepted,
            ..Self::DEFAULT
        }
    }
}

/// The new texts of all sequences; empty if they are not wanted.
pub(super) struct StepTexts(Vec<esolm_step_text>);

// SAFETY: nothing is read through the pointers here; they are for the caller whose step set them.
unsafe impl Send for StepTexts {}

impl StepTexts {
    /// Room for the texts of so many sequences.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn new(sequences: usize) -> Result<Self> {
        Ok(Self(with_room(sequences)?))
    }

    fn set(&mut self, step: &Step<'_>) {
        self.0.clear();
        let count = if step.has_text() { step.sequences() } else { 0 };
        self.0.extend((0..count).map(|sequence| {
            let text = step.text_with_nul(sequence);
            let stop_reason = reason_code(step.stop_reason(sequence));
            let len = text.len() - 1;
            esolm_step_text { text: text.as_ptr().cast(), len, sequence: sequence as u32, stop_reason }
        }));
    }
}

/// Why a text ended, as a constant.
pub(super) fn reason_code(reason: Option<StopReason>) -> i32 {
    match reason {
        None => ESOLM_STOP_NONE,
        Some(StopReason::Length) => ESOLM_STOP_LENGTH,
        Some(StopReason::EndOfText) => ESOLM_STOP_END_OF_TEXT,
        Some(StopReason::StopToken) => ESOLM_STOP_TOKEN,
        Some(StopReason::StopString) => ESOLM_STOP_STRING,
        Some(StopReason::Cancelled) => ESOLM_STOP_CANCELLED,
        Some(StopReason::Error) => ESOLM_STOP_ERROR,
    }
}
