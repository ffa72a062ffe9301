//! Rules for the tokens that may be written.

use std::ptr::null;

use super::args;
use super::params::SizedStruct;
use crate::error::{Error, Result};
use crate::sample::Constraints;

/// A position, and the tokens of which one has to be there. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_allowed {
    /// Where in the text.
    pub position: u32,
    /// 0
    pub reserved: u32,
    /// What may be there.
    pub tokens: *const u32,
    /// How many, at least 1.
    pub n_tokens: usize,
}

/// A token, and what is added to its logits. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_bias {
    /// The token.
    pub token: u32,
    /// Any finite number.
    pub bias: f32,
}

/// Rules for the tokens of a sequence, applied in the order penalty, bias, banned, allowed. Set struct_size; zero
/// everywhere else is no rule. Copied when a generation begins.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_constraints {
    /// sizeof(esolm_constraints)
    pub struct_size: usize,
    /// Positions where only some tokens may be, no position twice.
    pub allowed: *const esolm_allowed,
    /// How many.
    pub n_allowed: usize,
    /// Tokens that are never written.
    pub banned: *const u32,
    /// How many.
    pub n_banned: usize,
    /// Tokens that are made likelier or less likely, none twice.
    pub bias: *const esolm_bias,
    /// How many.
    pub n_bias: usize,
    /// Above 1 makes tokens less likely that are in the text before the step, wherever: a positive logit is divided by
    /// it, a negative one multiplied. 0 and 1 are none.
    pub repetition_penalty: f32,
    /// 0
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
}

impl esolm_constraints {
    /// A copy in the library's form.
    ///
    /// # Safety
    /// The arrays must have as many items as is said beside them.
    pub(super) unsafe fn copy(&self) -> Result<Constraints> {
        if self.reserved != 0 {
            return Err(Error::invalid("esolm_constraints: reserved is not 0"));
        }
        // SAFETY: what the caller promises.
        let (allowed, banned, bias) = unsafe {
            (
                args::slice(self.allowed, self.n_allowed, "allowed")?,
                args::slice(self.banned, self.n_banned, "banned")?,
                args::slice(self.bias, self.n_bias, "bias")?,
            )
        };
        let tokens = |place: &esolm_allowed| {
            if place.reserved != 0 {
                return Err(Error::invalid("esolm_allowed: reserved is not 0"));
            }
            // SAFETY: what the caller promises.
            let tokens = unsafe { args::slice(place.tokens, place.n_tokens, "allowed tokens")? };
            Ok((place.position, tokens.to_vec()))
        };
        Ok(Constraints {
            allowed: allowed.iter().map(tokens).collect::<Result<_>>()?,
            banned: banned.to_vec(),
            bias: bias.iter().map(|bias| (bias.token, bias.bias)).collect(),
            repetition_penalty: if self.repetition_penalty == 0.0 { 1.0 } else { self.repetition_penalty },
        })
    }
}
