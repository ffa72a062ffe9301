//! Callbacks, which end the call some time, and call what they may.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null_mut;

use esolm::capi::*;
use esolm_fuzz::VOCAB_SIZE;

use crate::LENGTH;
use crate::structs::check;

/// What the callbacks do; they get a pointer to it.
pub struct Callbacks {
    pub context: Cell<*mut esolm_context>,
    /// Calls until one returns non-zero.
    pub left: Cell<u32>,
    pub logit: Cell<f32>,
}

impl Callbacks {
    fn next(&self) -> i32 {
        self.left.set(self.left.get().wrapping_sub(1));
        i32::from(self.left.get() == 0)
    }
}

pub unsafe extern "C" fn on_step(step: *const esolm_step_info, data: *mut c_void) -> i32 {
    // SAFETY: `data` is the caller's `Callbacks`, `step` is valid, and its updates are as many as it says.
    unsafe {
        let step = &*step;
        let updates = std::slice::from_raw_parts(step.updates, step.n_updates);
        assert!(
            updates.iter().all(|update| update.token < VOCAB_SIZE as u32 && update.position < LENGTH as u32)
        );
        let this = &*data.cast::<Callbacks>();
        let mut n = 0;
        let mut tokens = [0; LENGTH];
        check(esolm_copy_tokens(this.context.get(), 0, tokens.as_mut_ptr(), LENGTH, &mut n));
        assert_eq!(esolm_step(this.context.get(), null_mut(), &mut 0), ESOLM_ERR_BUSY);
        this.next()
    }
}

pub unsafe extern "C" fn on_logits(row: *const esolm_logits_row, logits: *mut f32, data: *mut c_void) -> i32 {
    // SAFETY: `data` is the caller's `Callbacks`, or NULL if its struct ends before it; there are as many logits as the row
    // says.
    unsafe {
        let Some(this) = data.cast::<Callbacks>().as_ref() else { return 0 };
        let n = (*row).n_logits;
        assert_eq!(std::slice::from_raw_parts((*row).model_logits, n).len(), VOCAB_SIZE);
        logits.add(this.left.get() as usize % n).write(this.logit.get());
        this.next()
    }
}

pub unsafe extern "C" fn on_progress(fraction: f64, data: *mut c_void) -> i32 {
    assert!((0.0..=1.0).contains(&fraction));
    // SAFETY: `data` is the caller's `Callbacks`, or NULL if its struct ends before it.
    unsafe { data.cast::<Callbacks>().as_ref() }.map_or(0, Callbacks::next)
}
