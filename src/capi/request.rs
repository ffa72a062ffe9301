//! `esolm_generate_params`: what to generate.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr::{null, null_mut};

use super::constraints::esolm_constraints;
use super::logits::{LogitsCallback, esolm_logits_callback};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::{Error, Result};
use crate::generate::GenerateParams;
use crate::memory::try_collected;
use crate::plan::{Adaptive, Confidence, Order, Schedule};
use crate::sample::SamplingParams;

/// Diffusion at random positions, then the rest left to right, as in training.
pub const ESOLM_ORDER_RANDOM: i32 = 0;
/// Left to right in both phases.
pub const ESOLM_ORDER_LEFT_TO_RIGHT: i32 = 1;
/// Step j writes the positions j, j + order_size, j + 2 order_size and so on, so the tokens of a step are far apart;
/// then the rest left to right. order_size is 1 to the length.
pub const ESOLM_ORDER_STRIDED: i32 = 2;
/// As ESOLM_ORDER_STRIDED, with the steps, and the tokens of each step, in random order.
pub const ESOLM_ORDER_STRIDED_SHUFFLED: i32 = 3;
/// Semi-autoregressive: blocks of order_size adjacent positions from left to right, in random order inside a block.
pub const ESOLM_ORDER_BLOCKS: i32 = 4;
/// The caller's order: esolm_generate_params.custom_order.
pub const ESOLM_ORDER_CUSTOM: i32 = 5;

/// Not used: the schedule says how many tokens a step writes.
pub const ESOLM_CONFIDENCE_NONE: i32 = 0;
/// A token is certain if the largest probability is at least threshold.
pub const ESOLM_CONFIDENCE_PROBABILITY: i32 = 1;
/// A token is certain if the largest probability exceeds the second largest by at least threshold.
pub const ESOLM_CONFIDENCE_MARGIN: i32 = 2;
/// A token is certain if the entropy in nats is at most threshold.
pub const ESOLM_CONFIDENCE_ENTROPY: i32 = 3;

/// For temperature, top_p, min_p, typical_p and top_n_sigma in esolm_generate_params: what the model's file says
/// (esolm.default.temperature and so on), or the library's own default.
pub const ESOLM_AUTO: f32 = -1.0;
/// The same for esolm_generate_params.top_k.
pub const ESOLM_TOP_K_AUTO: u32 = u32::MAX;
/// For esolm_generate_params.alpha_0: by what else is asked for, and by the model.
pub const ESOLM_ALPHA_0_AUTO: f64 = -1.0;

/// For esolm_generate_params.lookahead: as many as pay.
pub const ESOLM_LOOKAHEAD_AUTO: u32 = u32::MAX;
/// For esolm_generate_params.window, with in_order or WeDLM: as many positions as pay, to 32.
pub const ESOLM_WINDOW_AUTO: u32 = u32::MAX;

const _: () = assert!(
    ESOLM_LOOKAHEAD_AUTO == GenerateParams::LOOKAHEAD_AUTO
        && ESOLM_WINDOW_AUTO as usize == Adaptive::WINDOW_AUTO
        && ESOLM_ALPHA_0_AUTO == GenerateParams::ALPHA_0_AUTO
        && ESOLM_AUTO == SamplingParams::AUTO
        && ESOLM_TOP_K_AUTO == SamplingParams::TOP_K_AUTO
);

/// What to generate. Set by esolm_generate_params_init.
///
/// A row of logits becomes a token in this order: constraints, logits_callback, temperature, top_n_sigma, top_k, typical_p,
/// top_p, min_p, draw. (That is llama.cpp's order, except that the temperature comes first.)
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_generate_params {
    /// sizeof(esolm_generate_params)
    pub struct_size: usize,
    /// Tokens of a sequence, the prompt's included. 0 (default): the context's length.
    pub length: usize,
    /// Steps of the diffusion phase, at most 1048576. 0 (default): the file's esolm.default.steps, or 128. Steps
    /// that write nothing are left out.
    pub steps: usize,
    /// The same seed, parameters and prompts give the same text on the same machine (default 0).
    pub seed: u64,
    /// Share of the unknown tokens that diffusion writes in parallel, 0 to 1; the others are written one by one, left to
    /// right. A model whose key esolm.diffusion_only is true takes 1 only. ESOLM_ALPHA_0_AUTO (default): 1 if confidence, a
    /// window or an order other than left to right is given, or if the model does nothing else; otherwise the file's
    /// esolm.default.alpha_0, or 0, which writes the best text (WeDLM: or 1, its window, without lookahead). With steps or a
    /// schedule it is 1 where it would be 0; with a grammar it is 0, unless confidence, a window, an order, steps or a schedule
    /// is given.
    pub alpha_0: f64,
    /// Divides the logits, at least 0 (default: ESOLM_AUTO, the file's or 1, of WeDLM 0.2). 0: always the most likely token.
    pub temperature: f32,
    /// Nucleus sampling: draws from the most likely tokens whose probabilities add up to this, above 0 to 1 (default:
    /// ESOLM_AUTO, the file's or 0.9, of WeDLM 1). 1: no limit.
    pub top_p: f32,
    /// Draws from this many of the most likely tokens (default: ESOLM_TOP_K_AUTO, the file's or 0). 0: no limit.
    pub top_k: u32,
    /// The order in which positions are written: ESOLM_ORDER_*.
    pub order: i32,
    /// The stride or block size of ESOLM_ORDER_STRIDED, ESOLM_ORDER_STRIDED_SHUFFLED and ESOLM_ORDER_BLOCKS.
    pub order_size: usize,
    /// For ESOLM_ORDER_CUSTOM: every position of the text once.
    pub custom_order: *const u32,
    /// Number of entries in custom_order: the length.
    pub n_custom_order: usize,
    /// How many tokens each step of the diffusion phase writes; the last number is repeated while tokens are left. NULL
    /// (default): drawn as in training, or a row per step for strided orders.
    pub schedule: *const u32,
    /// Number of entries in schedule.
    pub n_schedule: usize,
    /// Pointers to the rules of the sequences, each of which may be NULL: no rules.
    pub constraints: *const *const esolm_constraints,
    /// 0 (default): no rules. 1: the same rules for all sequences. Otherwise one for each sequence.
    pub n_constraints: usize,
    /// Reads or changes the logits of every token; NULL (default): not called. It and logits_user_data must stay valid
    /// for all steps of the generation.
    pub logits_callback: esolm_logits_callback,
    /// Passed to logits_callback.
    pub logits_user_data: *mut c_void,
    /// 1: fill esolm_step_info.log_probs, which takes a little time. 0 (default): do not.
    pub log_probs: i32,
    /// Adaptive steps: each writes the tokens that are certain, by the measure ESOLM_CONFIDENCE_* (default:
    /// ESOLM_CONFIDENCE_NONE), at least one. Needs alpha_0 = 1 and no schedule; not for autoregressive models.
    pub confidence: i32,
    /// Number of positions that an adaptive step considers, at least 1. ESOLM_WINDOW_AUTO (with in_order or WeDLM): as many as pay,
    /// to 32, by those filled so far and by a fixed formula for the time of a step, not by a clock: the text depends on it, and
    /// the same seed gives the same one. Without confidence a window slides by WeDLM's rule: in order, an entropy of 0.4, a
    /// penalty of 0.02.
    pub window: usize,
    /// With confidence: how certain is certain enough, at least 0.
    pub threshold: f32,
    /// How many tokens a step proposes, of which it writes as many as the model would have drawn one by one, and one more: the
    /// text has the same distribution in fewer steps. At most 16; ESOLM_LOOKAHEAD_AUTO: as many as pay, by those accepted so
    /// far. 0 (default): one token per step. It acts where steps write one token each, without logits_callback; WeDLM writes one
    /// by one with it (alpha_0 of 0). Only for Eso-LM and WeDLM (ESOLM_ERR_UNSUPPORTED); needs esolm_context_params.batch_rows of
    /// three times as many and one. esolm_begin allocates memory for the proposals.
    pub lookahead: u32,
    /// Most tokens of a sequence behind its prompt. 0 (default): no limit but the length; with both, the smaller one counts.
    pub max_tokens: usize,
    /// Tokens that end a text when the model writes them behind the prompt, as the end-of-text token does. (What is written
    /// before the prompt's last token, and at position 0, ends no text.)
    pub stop_tokens: *const u32,
    /// Number of entries in stop_tokens.
    pub n_stop_tokens: usize,
    /// Texts in UTF-8, at most 64 of 1 to 1024 bytes, that end a text when the model writes them behind the prompt, over
    /// any borders of tokens; the text ends before them.
    pub stop_strings: *const *const c_char,
    /// Number of entries in stop_strings.
    pub n_stop_strings: usize,
    /// 1: the end-of-text token is a token as others are (it may still be written). 0 (default): it ends a text.
    pub ignore_eos: i32,
    /// 1: fill esolm_step_info.texts. 0 (default): do not.
    pub step_text: i32,
    /// Leaves out the tokens that are less likely than this times the most likely one, 0 to 1 (default: ESOLM_AUTO,
    /// the file's or 0). 0: none.
    pub min_p: f32,
    /// Locally typical sampling: draws from the tokens whose information content is nearest to the entropy and whose
    /// probabilities add up to this, above 0 to 1 (default: ESOLM_AUTO, the file's or 1). 1: no limit.
    pub typical_p: f32,
    /// Leaves out the tokens whose logit is more than this many standard deviations of the logits below the largest, at
    /// least 0 (default: ESOLM_AUTO, the file's or 0). 0: none.
    pub top_n_sigma: f32,
    /// How many of the most likely tokens at each written position esolm_copy_top_log_probs has: less than the size of the
    /// vocabulary. 0 (default): none. esolm_begin allocates memory for them, and log_probs is as if it were 1.
    pub top_log_probs: u32,
    /// With confidence: what is taken from it for each position that one is behind the first of the step's, so that earlier
    /// ones come first. 0 is off.
    pub penalty: f32,
    /// With confidence: whether the window slides from left to right; accepted tokens stay, but are computed anew in each step
    /// until there is no unknown position before them. WeDLM always does; Eso-LM (B) can. 1 without confidence: WeDLM's rule,
    /// with a window of 16 unless there is another.
    pub in_order: i32,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_generate_params {
    const NAME: &'static str = "esolm_generate_params";
    const VERSION_1: usize = offset_of!(Self, order_size);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        length: 0,
        steps: GenerateParams::DEFAULT.steps,
        seed: GenerateParams::DEFAULT.seed,
        alpha_0: GenerateParams::DEFAULT.alpha_0,
        temperature: SamplingParams::DEFAULT.temperature,
        top_p: SamplingParams::DEFAULT.top_p,
        top_k: SamplingParams::DEFAULT.top_k,
        order: ESOLM_ORDER_RANDOM,
        order_size: 0,
        custom_order: null(),
        n_custom_order: 0,
        schedule: null(),
        n_schedule: 0,
        constraints: null(),
        n_constraints: 0,
        logits_callback: None,
        logits_user_data: null_mut(),
        log_probs: 0,
        confidence: ESOLM_CONFIDENCE_NONE,
        window: 0,
        threshold: 0.0,
        lookahead: 0,
        max_tokens: 0,
        stop_tokens: null(),
        n_stop_tokens: 0,
        stop_strings: null(),
        n_stop_strings: 0,
        ignore_eos: 0,
        step_text: 0,
        min_p: SamplingParams::DEFAULT.min_p,
        typical_p: SamplingParams::DEFAULT.typical_p,
        top_n_sigma: SamplingParams::DEFAULT.top_n_sigma,
        top_log_probs: 0,
        penalty: 0.0,
        in_order: 0,
    };
}

impl esolm_generate_params {
    fn order<'a>(&self, custom: &'a [u32]) -> Result<Order<'a>> {
        let size = self.order_size;
        Ok(match self.order {
            ESOLM_ORDER_RANDOM => Order::Random,
            ESOLM_ORDER_LEFT_TO_RIGHT => Order::LeftToRight,
            ESOLM_ORDER_STRIDED => Order::Strided { stride: size, shuffle: false },
            ESOLM_ORDER_STRIDED_SHUFFLED => Order::Strided { stride: size, shuffle: true },
            ESOLM_ORDER_BLOCKS => Order::Blocks { size },
            ESOLM_ORDER_CUSTOM => Order::Custom(custom),
            other => return Err(params::unknown::<Self>("order", other)),
        })
    }

    fn adaptive(&self) -> Result<Option<Adaptive>> {
        let in_order = params::flag::<Self>("in_order", self.in_order)?;
        let confidence = match self.confidence {
            ESOLM_CONFIDENCE_NONE => return self.window_of_wedlm(in_order),
            ESOLM_CONFIDENCE_PROBABILITY => Confidence::Probability,
            ESOLM_CONFIDENCE_MARGIN => Confidence::Margin,
            ESOLM_CONFIDENCE_ENTROPY => Confidence::Entropy,
            other => return Err(params::unknown::<Self>("confidence", other)),
        };
        let (threshold, window) = (self.threshold, self.window);
        Ok(Some(Adaptive { confidence, threshold, window, penalty: self.penalty, in_order }))
    }

    /// What is meant by a window without a confidence, if there is one: its rule is WeDLM's.
    fn window_of_wedlm(&self, in_order: bool) -> Result<Option<Adaptive>> {
        if self.threshold != 0.0 || self.penalty != 0.0 {
            return Err(Error::invalid(
                "esolm_generate_params: threshold and penalty take a confidence (ESOLM_CONFIDENCE_ENTROPY is WeDLM's)",
            ));
        }
        let window = if self.window == 0 { Adaptive::WEDLM.window } else { self.window };
        Ok((self.window > 0 || in_order).then_some(Adaptive { window, ..Adaptive::WEDLM }))
    }
}

/// Calls `f` with the caller's parameters in the library's form, and the callback on the logits if there is one.
///
/// # Safety
/// `pointer` must be as [`params::read`] wants it, each array must have as many items as its count says, and
/// the pointers in `constraints` must be as [`params::read`] wants them, with strings that are NULL or end with a NUL, as those
/// in `stop_strings`.
pub(super) unsafe fn with_params<T>(
    pointer: *const esolm_generate_params,
    f: impl FnOnce(&GenerateParams<'_>, Option<LogitsCallback>) -> Result<T>,
) -> Result<T> {
    // SAFETY: the contract asks of `pointer` what `params::read` asks.
    let params = unsafe { params::read(pointer)? };
    if params.top_p == 0.0 {
        return Err(Error::invalid(
            "esolm_generate_params: top_p is 0; set the struct with esolm_generate_params_init before its fields",
        ));
    }
    // SAFETY: the contract says that each array has as many items as its count.
    let (custom, schedule, constraints, stop_tokens, stop_strings) = unsafe {
        (
            args::slice(params.custom_order, params.n_custom_order, "custom_order")?,
            args::slice(params.schedule, params.n_schedule, "schedule")?,
            args::slice(params.constraints, params.n_constraints, "constraints")?,
            args::slice(params.stop_tokens, params.n_stop_tokens, "stop_tokens")?,
            args::slice(params.stop_strings, params.n_stop_strings, "stop_strings")?,
        )
    };
    let order = params.order(custom)?;
    let log_probs = params::flag::<esolm_generate_params>("log_probs", params.log_probs)?;
    let adaptive = params.adaptive()?;
    let constraints = constraints.iter().map(|&pointer| {
        // SAFETY: the contract covers the pointers in `constraints` and the arrays of what they point to.
        unsafe { params::read(pointer).and_then(|constraints| constraints.copy()) }
    });
    let constraints = try_collected(constraints)?;
    let stop_strings = stop_strings.iter().map(|&string| {
        // SAFETY: the contract covers the pointers in `stop_strings`.
        unsafe { args::string(string, "stop_strings") }
    });
    let stop_strings = try_collected(stop_strings)?;
    let ignore_eos = params::flag::<esolm_generate_params>("ignore_eos", params.ignore_eos)?;
    let step_text = params::flag::<esolm_generate_params>("step_text", params.step_text)?;
    let logits = LogitsCallback::new(params.logits_callback, params.logits_user_data);
    let esolm_generate_params { length, max_tokens, steps, seed, alpha_0, temperature, top_p, top_k, .. } =
        params;
    let esolm_generate_params { min_p, typical_p, top_n_sigma, top_log_probs, lookahead, .. } = params;
    #[allow(clippy::needless_update, reason = "what C has no field for keeps its default")]
    let request = GenerateParams {
        length,
        max_tokens,
        stop_tokens,
        stop_strings: &stop_strings,
        ignore_eos,
        step_text,
        alpha_0,
        steps,
        order,
        schedule: if schedule.is_empty() { Schedule::Reference } else { Schedule::Custom(schedule) },
        sampling: SamplingParams { temperature, top_k, top_p, min_p, typical_p, top_n_sigma },
        constraints: &constraints,
        log_probs,
        top_log_probs: top_log_probs as usize,
        adaptive,
        lookahead,
        seed,
        ..GenerateParams::default()
    };
    f(&request, logits)
}

/// Sets the defaults; size is sizeof(esolm_generate_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_generate_params_init(
    params: *mut esolm_generate_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}
