//! `esolm_prompt`: the known tokens of a sequence.

use super::args;
use crate::error::{Error, Result};
use crate::generate::Prompt;

/// The known tokens of one sequence. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_prompt {
    /// The tokens; may be NULL if count is 0.
    pub tokens: *const u32,
    /// Their positions in the text, from 0, in any order, no position twice. NULL: 0, 1, 2 and so on.
    pub positions: *const u32,
    /// Number of tokens. 0: the model writes the whole text. A model whose key esolm.needs_first_token is true needs the
    /// token at position 0.
    pub count: usize,
}

impl esolm_prompt {
    /// Copies the prompt into memory that is reserved for `capacity` tokens.
    ///
    /// # Safety
    /// The arrays must have `count` items.
    pub(super) unsafe fn copy_to(&self, to: &mut Prompt, capacity: usize) -> Result<()> {
        to.known.clear();
        if self.count > capacity {
            return Err(Error::invalid(format!("{} tokens; at most {capacity} fit", self.count)));
        }
        // SAFETY: the contract says that there are `count` tokens.
        let tokens = unsafe { args::slice(self.tokens, self.count, "tokens")? }.iter().copied();
        if self.positions.is_null() {
            to.known.extend((0..).zip(tokens));
        } else {
            // SAFETY: the contract says that there are `count` positions.
            let positions = unsafe { args::slice(self.positions, self.count, "positions")? };
            to.known.extend(positions.iter().copied().zip(tokens));
        }
        Ok(())
    }
}
