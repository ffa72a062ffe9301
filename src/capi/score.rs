//! How likely a text is.

use std::ffi::c_void;

use super::callback::{esolm_progress_callback, report};
use super::context::{State, esolm_context};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::score::ScoreParams;

/// How a text is scored. Set by esolm_score_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_score_params {
    /// sizeof(esolm_score_params)
    pub struct_size: usize,
    /// Orders in which each window of the text is scored (default 1; at most 2^20); 0 leaves this out.
    pub orders: usize,
    /// Times drawn for each window's bound with diffusion (default 0: leaves this out; at most 2^20).
    pub draws: usize,
    /// Chooses orders, times and masks (default 0).
    pub seed: u64,
    /// The share of diffusion in that bound, 0 to 1 (default 1: the diffusion bound, NELBO, alone).
    pub alpha_0: f64,
    /// 0 (default): one order, left to right. 1: random orders.
    pub random_order: i32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_score_params {
    const NAME: &'static str = "esolm_score_params";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        orders: 1,
        draws: 0,
        seed: 0,
        alpha_0: 1.0,
        random_order: 0,
        reserved: 0,
    };
}

impl esolm_score_params {
    fn check(&self) -> Result<ScoreParams> {
        if self.reserved != 0 {
            return Err(Error::invalid("esolm_score_params: reserved is not 0"));
        }
        let random_order = match self.random_order {
            0 => false,
            1 => true,
            other => {
                return Err(Error::invalid(format!(
                    "esolm_score_params: random_order is {other}, not 0 or 1"
                )));
            }
        };
        let Self { orders, draws, seed, alpha_0, .. } = *self;
        Ok(ScoreParams { orders, random_order, draws, alpha_0, seed })
    }
}

/// How likely a text is, all of it, in nats (natural logarithms). Set struct_size before esolm_score_text.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_text_score {
    /// sizeof(esolm_text_score)
    pub struct_size: usize,
    /// -log p(text) is at most this, -log of the mean over the orders of p(text | order): the importance-weighted
    /// bound, tighter the more orders. Zero without orders.
    pub nll: f64,
    /// The bound of diffusion: the mean of the draws. -log p(text) is at most diffusion + sequential. Zero without
    /// draws.
    pub diffusion: f64,
    /// Its standard error; NaN for one draw.
    pub diffusion_error: f64,
    /// What the sequential phase adds to that bound where alpha_0 is less than 1.
    pub sequential: f64,
    /// Its standard error; NaN for one draw.
    pub sequential_error: f64,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_text_score {
    const NAME: &'static str = "esolm_text_score";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        nll: 0.0,
        diffusion: 0.0,
        diffusion_error: 0.0,
        sequential: 0.0,
        sequential_error: 0.0,
    };
}

/// Sets the defaults. size is sizeof(esolm_score_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_score_params_init(
    params: *mut esolm_score_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the caller's struct has `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Scores a text of any length: n_tokens tokens. It is cut into windows of the context's length, one after the other,
/// and each is scored by itself, as in training.
///
/// params may be NULL for the defaults. log_p, if it is not NULL, has room for capacity numbers and gets for each token
/// the natural logarithm of its probability, given those before it in its window's first order. score->struct_size must
/// be set; on failure its other fields are zero and log_p is as it was. progress, which may be NULL, is told of each
/// window. Ends the context's generation. Unlike esolm_step this takes memory.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT for no token, tokens that are not the model's, parameters out of range, and log_p
/// without orders; ESOLM_ERR_BUFFER_TOO_SMALL if capacity is less than n_tokens; ESOLM_ERR_UNSUPPORTED for what the
/// model cannot do (MDLM: orders; autoregression: random orders, diffusion); ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY,
/// ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_score_text(
    context: *mut esolm_context,
    tokens: *const u32,
    n_tokens: usize,
    params: *const esolm_score_params,
    log_p: *mut f64,
    capacity: usize,
    score: *mut esolm_text_score,
    progress: esolm_progress_callback,
    user_data: *mut c_void,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid, and there are `n_tokens` tokens.
        let (place, handle, params, tokens) = unsafe {
            (
                params::result(score)?,
                args::reference(context, "context")?,
                params::read(params)?.check()?,
                args::slice(tokens, n_tokens, "tokens")?,
            )
        };
        if !log_p.is_null() && params.orders == 0 {
            return Err(Error::invalid("log_p without orders"));
        }
        // SAFETY: the caller's array has that capacity.
        let log_p = unsafe { args::room(log_p, capacity, n_tokens)? };
        let found = handle.with(|state| {
            state.context.score_text(tokens, &params, |done, all| {
                // SAFETY: the caller's function takes a number and the caller's own pointer.
                unsafe { report(progress, done as f64 / all as f64, user_data) }
            })
        })?;
        if let Some(log_p) = log_p {
            log_p.copy_from_slice(&found.tokens);
        }
        let (diffusion, sequential) = (found.bound.diffusion, found.bound.sequential);
        place.set(esolm_text_score {
            struct_size: 0,
            nll: found.nll,
            diffusion: diffusion.mean,
            diffusion_error: diffusion.standard_error,
            sequential: sequential.mean,
            sequential_error: sequential.standard_error,
        });
        Ok(())
    })
}

/// The work of the two functions below: `score` is one of the crate's.
///
/// # Safety
/// The pointers must be NULL or valid for as many items as the functions below say.
unsafe fn score_in_order(
    context: *mut esolm_context,
    tokens: *const u32,
    order: *const u32,
    n_tokens: usize,
    n_known: usize,
    (log_p, capacity): (*mut f64, usize),
    score: impl FnOnce(&mut Context, &[u32], &[u32], usize) -> Result<Vec<f64>>,
) -> Result<()> {
    // SAFETY: what the caller promises.
    let (handle, tokens) =
        unsafe { (args::reference(context, "context")?, args::slice(tokens, n_tokens, "tokens")?) };
    let unknown = n_tokens.checked_sub(n_known);
    let unknown =
        unknown.ok_or_else(|| Error::invalid(format!("{n_known} of {n_tokens} tokens are known")))?;
    if log_p.is_null() {
        return Err(Error::invalid("log_p is NULL"));
    }
    // SAFETY: what the caller promises.
    let log_p = unsafe { args::room(log_p, capacity, unknown)? };
    let found = handle.with(|State { context, .. }| {
        if n_tokens > context.length() {
            let longest = context.length();
            return Err(Error::invalid(format!("{n_tokens} tokens; the context holds {longest}")));
        }
        if order.is_null() {
            let left_to_right: Vec<u32> = (0..n_tokens as u32).collect();
            return score(context, tokens, &left_to_right, n_known);
        }
        // SAFETY: what the caller promises.
        score(context, tokens, unsafe { args::slice(order, n_tokens, "order")? }, n_known)
    })?;
    if let Some(log_p) = log_p {
        log_p.copy_from_slice(&found);
    }
    Ok(())
}

/// Writes natural logarithms of probabilities: of each token but the first n_known in an order, given all before it in
/// the order, as generation one token at a time would have it; of Eso-LM (A) its sequential phase, in which the given
/// ones see each other both ways.
///
/// tokens is the text by position, n_tokens of them, at most the context's length. order names each position once;
/// NULL is left to right. log_p gets n_tokens - n_known numbers in the order's sequence, and is as it was on failure.
/// Ends the context's generation. Unlike esolm_step this takes memory.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if the order is none, or a token is not the model's; ESOLM_ERR_BUFFER_TOO_SMALL if
/// capacity is less than those numbers; ESOLM_ERR_UNSUPPORTED for MDLM; ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY,
/// ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_score_order(
    context: *mut esolm_context,
    tokens: *const u32,
    order: *const u32,
    n_tokens: usize,
    n_known: usize,
    log_p: *mut f64,
    capacity: usize,
) -> esolm_status {
    let log_p = (log_p, capacity);
    // SAFETY: the caller's pointers are NULL or valid.
    wrap(|| unsafe { score_in_order(context, tokens, order, n_tokens, n_known, log_p, Context::score_order) })
}

/// As esolm_score_order, with all tokens but the first n_known in the order unknown at once: one step of diffusion.
///
/// Errors: as in esolm_score_order, but ESOLM_ERR_UNSUPPORTED for an autoregressive model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_score_masked(
    context: *mut esolm_context,
    tokens: *const u32,
    order: *const u32,
    n_tokens: usize,
    n_known: usize,
    log_p: *mut f64,
    capacity: usize,
) -> esolm_status {
    let log_p = (log_p, capacity);
    // SAFETY: the caller's pointers are NULL or valid.
    wrap(|| unsafe {
        score_in_order(context, tokens, order, n_tokens, n_known, log_p, Context::score_masked)
    })
}
