//! The callback on the logits.

use std::ffi::c_void;

use super::callback::UserData;
use crate::error::{Error, Result};
use crate::sample::LogitsRow;

/// A row of logits, from which the token of one position is about to be drawn. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_logits_row {
    /// The sequence: the index of its prompt.
    pub sequence: u32,
    /// The position in the text.
    pub position: u32,
    /// The slot: the place in generation order.
    pub slot: u32,
    /// Reserved, always 0.
    pub reserved: u32,
    /// Number of logits: the size of the vocabulary.
    pub n_logits: usize,
    /// The network's own output, before constraints.
    pub model_logits: *const f32,
}

/// Called with the n_logits logits that a token is drawn from, to read or change: after constraints, before
/// temperature and filters. Minus infinity excludes a token; the mask token always is. A non-zero return ends the
/// step with ESOLM_ERR_CANCELLED as if it had not begun. Runs on the thread of esolm_step or esolm_generate; must not
/// throw or longjmp, and may call on the context only what reads ("Threads" above), esolm_cancel and esolm_cancel_reset.
pub type esolm_logits_callback = Option<
    unsafe extern "C" fn(row: *const esolm_logits_row, logits: *mut f32, user_data: *mut c_void) -> i32,
>;

/// A caller's callback on the logits, with its pointer.
#[derive(Clone, Copy)]
pub(super) struct LogitsCallback {
    function: unsafe extern "C" fn(*const esolm_logits_row, *mut f32, *mut c_void) -> i32,
    user_data: UserData,
}

impl LogitsCallback {
    /// Nothing if the caller has no callback.
    pub(super) fn new(callback: esolm_logits_callback, user_data: *mut c_void) -> Option<Self> {
        callback.map(|function| Self { function, user_data: UserData::new(user_data) })
    }

    /// Calls it.
    ///
    /// # Safety
    /// The function must be one that the header describes, and may be called with its pointer.
    pub(super) unsafe fn call(&self, row: &LogitsRow<'_>, logits: &mut [f32]) -> Result<()> {
        let row = esolm_logits_row {
            sequence: row.sequence as u32,
            position: row.position,
            slot: row.slot as u32,
            reserved: 0,
            n_logits: logits.len(),
            model_logits: row.logits.as_ptr(),
        };
        // SAFETY: the contract allows the call; both arrays have `n_logits` numbers and outlive it.
        match unsafe { (self.function)(&row, logits.as_mut_ptr(), self.user_data.get()) } {
            0 => Ok(()),
            _ => Err(Error::Cancelled),
        }
    }
}
