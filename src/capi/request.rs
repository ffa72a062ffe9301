//! What a caller asks for: prompts, parameters.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::{null, null_mut};

use super::callback::UserData;
use super::constraints::esolm_constraints;
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::{Error, Result};
use crate::generate::{GenerateParams, Prompt};
use crate::plan::Order;
use crate::plan::Schedule;
use crate::plan::{Adaptive, Confidence};
use crate::sample::LogitsRow;
use crate::sample::SamplingParams;

/// The known tokens of one sequence. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_prompt {
    /// The tokens; may be NULL if count is 0.
    pub tokens: *const u32,
    /// Their positions in the text, from 0, in any order, none twice. NULL is 0, 1, 2 and so on.
    pub positions: *const u32,
    /// How many; 0 leaves the whole text to the model.
    pub count: usize,
}

impl esolm_prompt {
    /// Copies the prompt into memory that is reserved for `most` tokens.
    ///
    /// # Safety
    /// The arrays must have `count` items.
    pub(super) unsafe fn copy_to(&self, to: &mut Prompt, most: usize) -> Result<()> {
        to.known.clear();
        if self.count > most {
            return Err(Error::invalid(format!("{} tokens; at most {most} fit", self.count)));
        }
        // SAFETY: what the caller promises.
        let tokens = unsafe { args::slice(self.tokens, self.count, "tokens")? }.iter().copied();
        if self.positions.is_null() {
            to.known.extend((0..).zip(tokens));
        } else {
            // SAFETY: what the caller promises.
            let positions = unsafe { args::slice(self.positions, self.count, "positions")? };
            to.known.extend(positions.iter().copied().zip(tokens));
        }
        Ok(())
    }
}

/// esolm_generate_params.order: diffusion at random positions, then the rest left to right: what the models are trained
/// for.
pub const ESOLM_ORDER_RANDOM: i32 = 0;
/// esolm_generate_params.order: from left to right, in both phases.
pub const ESOLM_ORDER_LEFT_TO_RIGHT: i32 = 1;
/// esolm_generate_params.order: step j writes the positions j, j + order_size, j + 2 order_size and so on, so that tokens
/// of one step are far apart; then the rest left to right. order_size is 1 to the length.
pub const ESOLM_ORDER_STRIDED: i32 = 2;
/// esolm_generate_params.order: the same steps in random order, and the tokens in each.
pub const ESOLM_ORDER_STRIDED_SHUFFLED: i32 = 3;
/// esolm_generate_params.order: blocks of order_size neighbouring positions, from left to right, each whole before the
/// next begins, random inside (semi-autoregressive).
pub const ESOLM_ORDER_BLOCKS: i32 = 4;
/// esolm_generate_params.order: the caller's, given_order.
pub const ESOLM_ORDER_GIVEN: i32 = 5;

/// esolm_generate_params.confidence: not asked for.
pub const ESOLM_CONFIDENCE_NONE: i32 = 0;
/// esolm_generate_params.confidence: the largest probability is at least threshold.
pub const ESOLM_CONFIDENCE_PROBABILITY: i32 = 1;
/// esolm_generate_params.confidence: the largest probability is larger than the second by at least threshold.
pub const ESOLM_CONFIDENCE_MARGIN: i32 = 2;
/// esolm_generate_params.confidence: the entropy in nats is at most threshold.
pub const ESOLM_CONFIDENCE_ENTROPY: i32 = 3;

/// A token that is about to be drawn, in a logits callback. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_choice {
    /// The sequence: the index of its prompt.
    pub sequence: usize,
    /// The place in generation order.
    pub slot: usize,
    /// The place in the text.
    pub position: usize,
    /// The tokens of the vocabulary: how many numbers the two arrays have.
    pub n_logits: usize,
    /// The network's own output.
    pub model_logits: *const f32,
}

/// Sees and changes the logits that a token is drawn from: after the constraints were applied, before temperature,
/// top_k and top_p. Minus infinity rules a token out; the mask token always is. 0 goes on, anything else stops the step
/// with ESOLM_ERR_CANCELLED as if it had not begun. It runs on the thread of esolm_step or esolm_generate, must not throw
/// or jump, and may call nothing on the context but esolm_cancel and esolm_cancel_reset.
pub type esolm_logits_callback = Option<
    unsafe extern "C" fn(choice: *const esolm_choice, logits: *mut f32, user_data: *mut c_void) -> i32,
>;

/// A caller's function on the logits, with its pointer.
#[derive(Clone, Copy)]
pub(super) struct LogitsFunction {
    function: unsafe extern "C" fn(*const esolm_choice, *mut f32, *mut c_void) -> i32,
    user_data: UserData,
}

impl LogitsFunction {
    /// Calls it.
    ///
    /// # Safety
    /// The function must be one that the header describes.
    pub(super) unsafe fn call(&self, choice: &LogitsRow<'_>, row: &mut [f32]) -> Result<()> {
        let LogitsRow { sequence, slot, position, logits } = *choice;
        let choice = esolm_choice {
            sequence,
            slot,
            position: position as usize,
            n_logits: row.len(),
            model_logits: logits.as_ptr(),
        };
        // SAFETY: what the caller promises.
        match unsafe { (self.function)(&choice, row.as_mut_ptr(), self.user_data.get()) } {
            0 => Ok(()),
            _ => Err(Error::Cancelled),
        }
    }
}

/// What to generate. Set by esolm_generate_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_generate_params {
    /// sizeof(esolm_generate_params)
    pub struct_size: usize,
    /// Tokens of a sequence, the prompt's included; 0 (the default) is the context's length.
    pub length: usize,
    /// Steps of the diffusion phase, 1 to 1048576 (default 128). Steps that happen to write nothing are left out.
    pub steps: usize,
    /// The same seed, parameters and prompts give the same text on the same machine (default 0).
    pub seed: u64,
    /// Share of the unknown tokens that diffusion writes, in parallel, 0 to 1 (default 1); the rest is written
    /// one by one, left to right.
    pub alpha_0: f64,
    /// Divides the logits, from 0 (default 1); 0 always takes the most likely token.
    pub temperature: f32,
    /// Nucleus: only the most likely tokens that together exceed this probability, above 0 to 1 (default 1: no
    /// limit).
    pub top_p: f32,
    /// Only so many of the most likely tokens; 0 (the default) is no limit.
    pub top_k: u32,
    /// Which positions come when: ESOLM_ORDER_*.
    pub order: i32,
    /// The number that ESOLM_ORDER_STRIDED, ESOLM_ORDER_STRIDED_SHUFFLED or ESOLM_ORDER_BLOCKS takes.
    pub order_size: usize,
    /// For ESOLM_ORDER_GIVEN: every position of the text once.
    pub given_order: *const u32,
    /// How many these are: the length.
    pub n_given_order: usize,
    /// How many tokens each step of the diffusion phase writes; the last number goes on as long as there are tokens.
    /// NULL (the default): as the noise that the models are trained with has it, or a row per step for strided
    /// orders.
    pub schedule: *const u32,
    /// How many numbers.
    pub n_schedule: usize,
    /// What may be written: n_constraints pointers, each of which may be NULL for no rule.
    pub constraints: *const *const esolm_constraints,
    /// 0: no rules (the default); 1: the same for all sequences; otherwise one for each sequence.
    pub n_constraints: usize,
    /// Sees and may change the logits of every token; NULL (the default): none. It and logits_data must be valid for
    /// all steps of the generation.
    pub logits: esolm_logits_callback,
    /// What logits is given.
    pub logits_data: *mut c_void,
    /// 1 to have esolm_step_info.log_probs, which takes a little time; 0 (the default) not to.
    pub log_probs: i32,
    /// Steps that write what the model is sure of, by a measure of ESOLM_CONFIDENCE_*; ESOLM_CONFIDENCE_NONE (the
    /// default): the schedule says how many. Needs alpha_0 = 1 and no schedule; not for autoregressive models.
    pub confidence: i32,
    /// The positions that such a step looks at, at least 1.
    pub window: usize,
    /// How sure is sure enough, from 0.
    pub threshold: f32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_generate_params {
    const NAME: &'static str = "esolm_generate_params";
    const VERSION_1: usize = offset_of!(Self, order_size);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        length: 0,
        steps: 128,
        seed: 0,
        alpha_0: 1.0,
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        order: ESOLM_ORDER_RANDOM,
        order_size: 0,
        given_order: null(),
        n_given_order: 0,
        schedule: null(),
        n_schedule: 0,
        constraints: null(),
        n_constraints: 0,
        logits: None,
        logits_data: null_mut(),
        log_probs: 0,
        confidence: ESOLM_CONFIDENCE_NONE,
        window: 0,
        threshold: 0.0,
        reserved: 0,
    };
}

impl esolm_generate_params {
    fn adaptive(&self) -> Result<Option<Adaptive>> {
        let confidence = match self.confidence {
            ESOLM_CONFIDENCE_NONE => return Ok(None),
            ESOLM_CONFIDENCE_PROBABILITY => Confidence::Probability,
            ESOLM_CONFIDENCE_MARGIN => Confidence::Margin,
            ESOLM_CONFIDENCE_ENTROPY => Confidence::Entropy,
            other => {
                return Err(Error::invalid(format!("esolm_generate_params: there is no confidence {other}")));
            }
        };
        Ok(Some(Adaptive { confidence, threshold: self.threshold, window: self.window }))
    }
}

/// Hands the caller's parameters to `f`, and the function on the logits if there is one.
///
/// # Safety
/// `pointer` must be as [`params::read`] wants it, and all that the fields point to must be there.
pub(super) unsafe fn with_params<T>(
    pointer: *const esolm_generate_params,
    f: impl FnOnce(&GenerateParams<'_>, Option<LogitsFunction>) -> Result<T>,
) -> Result<T> {
    // SAFETY: what the caller promises.
    let params = unsafe { params::read(pointer)? };
    if params.reserved != 0 {
        return Err(Error::invalid("esolm_generate_params: reserved is not 0"));
    }
    // SAFETY: what the caller promises.
    let (given, schedule, rules) = unsafe {
        (
            args::slice(params.given_order, params.n_given_order, "given_order")?,
            args::slice(params.schedule, params.n_schedule, "schedule")?,
            args::slice(params.constraints, params.n_constraints, "constraints")?,
        )
    };
    let size = params.order_size;
    let order = match params.order {
        ESOLM_ORDER_RANDOM => Order::Random,
        ESOLM_ORDER_LEFT_TO_RIGHT => Order::LeftToRight,
        ESOLM_ORDER_STRIDED => Order::Strided { stride: size, shuffle: false },
        ESOLM_ORDER_STRIDED_SHUFFLED => Order::Strided { stride: size, shuffle: true },
        ESOLM_ORDER_BLOCKS => Order::Blocks { size },
        ESOLM_ORDER_GIVEN => Order::Custom(given),
        order => return Err(Error::invalid(format!("esolm_generate_params: there is no order {order}"))),
    };
    let log_probs = match params.log_probs {
        0 => false,
        1 => true,
        other => {
            return Err(Error::invalid(format!("esolm_generate_params: log_probs is {other}, not 0 or 1")));
        }
    };
    let adaptive = params.adaptive()?;
    let rules = rules.iter().map(|&rules| {
        // SAFETY: what the caller promises.
        unsafe { params::read(rules).and_then(|rules| rules.copy()) }
    });
    let constraints = rules.collect::<Result<Vec<_>>>()?;
    let user_data = UserData::new(params.logits_data);
    let logits = params.logits.map(|function| LogitsFunction { function, user_data });
    let esolm_generate_params { length, steps, seed, alpha_0, temperature, top_p, top_k, .. } = params;
    #[allow(clippy::needless_update, reason = "what C has no field for keeps its default")]
    let request = GenerateParams {
        length,
        alpha_0,
        steps,
        order,
        schedule: if schedule.is_empty() { Schedule::Reference } else { Schedule::Custom(schedule) },
        sampling: SamplingParams { temperature, top_k, top_p },
        constraints: &constraints,
        log_probs,
        adaptive,
        seed,
        ..GenerateParams::default()
    };
    f(&request, logits)
}

/// Sets the defaults. size is sizeof(esolm_generate_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_generate_params_init(
    params: *mut esolm_generate_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the caller's struct has `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}
