//! Which tokens may be written.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr::null;

use super::args;
use super::params::{self, SizedStruct};
use crate::error::{Error, Result};
use crate::memory::{collected, copied, try_collected};
use crate::sample::{Constraints, Dry, Grammar};

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

/// Rules for the tokens of a sequence, applied in the order repetition, frequency and presence penalty, DRY, bias, banned,
/// allowed. Set struct_size and leave unused fields 0. Copied when a generation begins.
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
    /// Subtracted from the logit of a token for each time that it is anywhere in the text before the step. 0: no penalty.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that is anywhere in the text before the step. 0: no penalty.
    pub presence_penalty: f32,
    /// DRY ("don't repeat yourself"): if the last n tokens directly left of a position, n at least dry_allowed_length, occur
    /// earlier, too, the logit of the token that followed there is lowered by dry_multiplier * dry_base^(n -
    /// dry_allowed_length). The tokens left of a position end at the first that is not written yet. 0: no penalty.
    pub dry_multiplier: f32,
    /// At least 1; 0: 1.75.
    pub dry_base: f32,
    /// 0: 2.
    pub dry_allowed_length: u32,
    /// How many tokens left of a position are looked at; 0: all.
    pub dry_range: u32,
    /// Tokens that end a repetition (sequence breakers), such as those with a line break or a quotation mark.
    pub dry_breakers: *const u32,
    /// Number of entries in dry_breakers.
    pub n_dry_breakers: usize,
    /// A regular expression that the written text must match: one hole, or all that follows the prompt, from left to right
    /// and one token per step. The syntax is that of Rust's regex crate, without look-around, anchors and word boundaries.
    /// NUL-terminated UTF-8; NULL: none. Beginning and steps then allocate. A build without the feature "grammar" returns
    /// ESOLM_ERR_UNSUPPORTED.
    pub regex: *const c_char,
    /// The same with a JSON schema, of which the written text is a value. At most one of the two is given.
    pub json_schema: *const c_char,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_constraints {
    const NAME: &'static str = "esolm_constraints";
    const VERSION_1: usize = offset_of!(Self, frequency_penalty);
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
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        dry_multiplier: 0.0,
        dry_base: 0.0,
        dry_allowed_length: 0,
        dry_range: 0,
        dry_breakers: null(),
        n_dry_breakers: 0,
        regex: null(),
        json_schema: null(),
    };

    fn reserved(&self) -> u32 {
        self.reserved
    }
}

impl esolm_constraints {
    /// A copy in the library's form.
    ///
    /// # Safety
    /// Each array must have as many items as its count says; strings must be NULL or end with a NUL.
    pub(super) unsafe fn copy(&self) -> Result<Constraints> {
        // SAFETY: the contract says that each array has as many items as its count.
        let (allowed, banned, bias, breakers) = unsafe {
            (
                args::slice(self.allowed, self.n_allowed, "allowed")?,
                args::slice(self.banned, self.n_banned, "banned")?,
                args::slice(self.bias, self.n_bias, "bias")?,
                args::slice(self.dry_breakers, self.n_dry_breakers, "dry_breakers")?,
            )
        };
        // SAFETY: the contract says that the strings are NULL or end with a NUL.
        let (regex, json_schema) = unsafe {
            (
                args::optional_string(self.regex, "regex")?,
                args::optional_string(self.json_schema, "json_schema")?,
            )
        };
        let grammar = match (self.regex.is_null(), self.json_schema.is_null()) {
            (true, true) => None,
            (false, true) => Some(Grammar::Regex(copied(regex)?)),
            (true, false) => Some(Grammar::JsonSchema(copied(json_schema)?)),
            (false, false) => {
                return Err(Error::invalid("esolm_constraints: regex and json_schema are given; take one"));
            }
        };
        let at_position = |place: &esolm_allowed_tokens| {
            params::check_reserved("esolm_allowed_tokens", place.reserved)?;
            // SAFETY: the contract says the same of the arrays inside `allowed`.
            let tokens = unsafe { args::slice(place.tokens, place.n_tokens, "allowed tokens")? };
            Ok((place.position, collected(tokens.iter().copied())?))
        };
        Ok(Constraints {
            allowed: try_collected(allowed.iter().map(at_position))?,
            banned: collected(banned.iter().copied())?,
            bias: collected(bias.iter().map(|bias| (bias.token, bias.bias)))?,
            repetition_penalty: if self.repetition_penalty == 0.0 { 1.0 } else { self.repetition_penalty },
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            grammar,
            dry: Dry {
                multiplier: self.dry_multiplier,
                base: if self.dry_base == 0.0 { Dry::DEFAULT.base } else { self.dry_base },
                allowed_length: match self.dry_allowed_length {
                    0 => Dry::DEFAULT.allowed_length,
                    given => given,
                },
                range: self.dry_range,
                breakers: collected(breakers.iter().copied())?,
            },
        })
    }
}
