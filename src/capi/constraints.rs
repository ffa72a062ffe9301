//! Which tokens may be written.

use std::ptr::null;

use super::args;
use super::params::{self, SizedStruct};
use crate::error::Result;
use crate::memory::{collected, with_room};
use crate::sample::Constraints;

/// The tokens that are allowed at one position. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_allowed_tokens {
    /// The position in the text.
    pub position: u32,
    /// Reserved, must be 0.
    pub reserved: u32,
    /// The allowed tokens.
    pub tokens: *const u32,
    /// Their number, at least 1.
    pub n_tokens: usize,
}

/// A number that is added to the logits of one token. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_logit_bias {
    /// The token.
    pub token: u32,
    /// Any finite number.
    pub bias: f32,
}

/// Rules for the tokens of a sequence, applied in the order penalty, bias, banned, allowed. Set struct_size and leave
/// unused fields 0. Copied when a generation begins.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_constraints {
    /// sizeof(esolm_constraints)
    pub struct_size: usize,
    /// Positions at which only some tokens are allowed, no position twice.
    pub allowed: *const esolm_allowed_tokens,
    /// Number of these positions.
    pub n_allowed: usize,
    /// Tokens that are never written.
    pub banned: *const u32,
    /// Number of banned tokens.
    pub n_banned: usize,
    /// Tokens that are made more or less likely, no token twice.
    pub bias: *const esolm_logit_bias,
    /// Number of biased tokens.
    pub n_bias: usize,
    /// Above 1: tokens that are anywhere in the text before the step become less likely; a positive logit is divided by
    /// this, a negative one multiplied. 0 and 1: no penalty.
    pub repetition_penalty: f32,
    /// Reserved, must be 0.
    pub reserved: u32,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_constraints {
    const NAME: &'static str = "esolm_constraints";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        allowed: null(),
        n_allowed: 0,
        banned: null(),
        n_banned: 0,
        bias: null(),
        n_bias: 0,
        repetition_penalty: 0.0,
        reserved: 0,
    };

    fn reserved(&self) -> u32 {
        self.reserved
    }
}

impl esolm_constraints {
    /// A copy in the library's form.
    ///
    /// # Safety
    /// Each array must have as many items as its count says.
    pub(super) unsafe fn copy(&self) -> Result<Constraints> {
        // SAFETY: the contract says that each array has as many items as its count.
        let (allowed, banned, bias) = unsafe {
            (
                args::slice(self.allowed, self.n_allowed, "allowed")?,
                args::slice(self.banned, self.n_banned, "banned")?,
                args::slice(self.bias, self.n_bias, "bias")?,
            )
        };
        let at_position = |place: &esolm_allowed_tokens| {
            params::check_reserved("esolm_allowed_tokens", place.reserved)?;
            // SAFETY: the contract says the same of the arrays inside `allowed`.
            let tokens = unsafe { args::slice(place.tokens, place.n_tokens, "allowed tokens")? };
            Ok((place.position, collected(tokens.iter().copied())?))
        };
        let mut copied = with_room(allowed.len())?;
        for place in allowed {
            copied.push(at_position(place)?);
        }
        Ok(Constraints {
            allowed: copied,
            banned: collected(banned.iter().copied())?,
            bias: collected(bias.iter().map(|bias| (bias.token, bias.bias)))?,
            repetition_penalty: if self.repetition_penalty == 0.0 { 1.0 } else { self.repetition_penalty },
        })
    }
}
