//! How likely a text is.

use std::ffi::c_void;
use std::mem::offset_of;

use super::callback::{esolm_progress_callback, report};
use super::context::{State, esolm_context};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::memory::collected;
use crate::score::ScoreParams;

/// How to score a text. Set by esolm_score_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_score_params {
    /// sizeof(esolm_score_params)
    pub struct_size: usize,
    /// Number of orders in which each window of the text is scored, 0 to 2^20 (default 1). 0: none.
    pub orders: usize,
    /// Number of diffusion times drawn for each window's diffusion bound, 0 to 2^20 (default 0). 0: no diffusion bound.
    pub draws: usize,
    /// The seed for orders, times and masks (default 0).
    pub seed: u64,
    /// Share of diffusion in that bound, 0 to 1 (default 1: the pure diffusion bound, NELBO).
    pub alpha_0: f64,
    /// 0 (default): one order, left to right. 1: random orders.
    pub random_order: i32,
    /// Reserved, must be 0.
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

    fn reserved(&self) -> u32 {
        self.reserved
    }
}

impl esolm_score_params {
    fn check(&self) -> Result<ScoreParams> {
        let random_order = params::flag::<Self>("random_order", self.random_order)?;
        let Self { orders, draws, seed, alpha_0, .. } = *self;
        if orders == 0 && draws == 0 {
            return Err(Error::invalid(
                "esolm_score_params: neither orders nor draws; set the struct with esolm_score_params_init before its fields",
            ));
        }
        Ok(ScoreParams { orders, random_order, draws, alpha_0, seed })
    }
}

/// How likely a whole text is, in nats (natural logarithms). Set struct_size before esolm_score_text.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_text_score {
    /// sizeof(esolm_text_score)
    pub struct_size: usize,
    /// An upper bound of -log p(text): -log of the mean of p(text | order) over the orders (the importance-weighted
    /// bound), tighter with more orders. 0 without orders.
    pub nll: f64,
    /// The diffusion bound, averaged over the draws: -log p(text) is at most diffusion + sequential. 0 without draws.
    pub diffusion: f64,
    /// Its standard error; NaN for one draw.
    pub diffusion_error: f64,
    /// What the sequential phase adds to that bound if alpha_0 is less than 1.
    pub sequential: f64,
    /// Its standard error; NaN for one draw.
    pub sequential_error: f64,
    /// How many tokens have a probability: all but the first of each window with WeDLM and some autoregressive models, which have
    /// to be given it. The mean is nll / scored_tokens.
    pub scored_tokens: usize,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_text_score {
    const NAME: &'static str = "esolm_text_score";
    const VERSION_1: usize = offset_of!(Self, scored_tokens);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        nll: 0.0,
        diffusion: 0.0,
        diffusion_error: 0.0,
        sequential: 0.0,
        sequential_error: 0.0,
        scored_tokens: 0,
    };
}

/// Sets the defaults; size is sizeof(esolm_score_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_score_params_init(
    params: *mut esolm_score_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Scores a text of any length, n_tokens tokens. It is cut into consecutive windows of the context's length, and each
/// is scored by itself, as in training. Ends the context's generation. Allocates memory.
///
/// params may be NULL for the defaults. log_p may be NULL; otherwise it has room for capacity numbers and gets the
/// log-probability of each token, given those before it in its window's first order. score->struct_size must be set; on
/// failure its other fields are 0 and log_p is unchanged. progress may be NULL; otherwise it is called after each
/// window.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT for no tokens, tokens outside the vocabulary, parameters out of range, neither orders
/// nor draws, and log_p without orders; ESOLM_ERR_BUFFER_TOO_SMALL if capacity is less than n_tokens;
/// ESOLM_ERR_UNSUPPORTED for what the model cannot do (MDLM: orders; autoregressive models: random orders, diffusion);
/// ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
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
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and `n_tokens` tokens.
        let (place, handle, params, tokens) = unsafe {
            (
                params::result(score)?,
                args::reference(context, "context")?,
                params::read(params)?.check()?,
                args::slice(tokens, n_tokens, "tokens")?,
            )
        };
        if !log_p.is_null() && params.orders == 0 {
            return Err(Error::invalid("log_p needs at least one order"));
        }
        // SAFETY: the header requires NULL or an array of `capacity` numbers that nothing else uses during the call.
        let log_p = unsafe { args::room(log_p, capacity, n_tokens)? };
        let found = handle.with(|state| {
            state.context.score_text(tokens, &params, |done, all| {
                // SAFETY: the caller's callback has this signature and belongs to this user data.
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
            scored_tokens: found.scored_tokens,
        });
        Ok(())
    })
}

/// Runs `score`, `Context::score_order` or `Context::score_masked`, on arrays of C.
///
/// # Safety
/// Each pointer must be NULL or valid: `n_tokens` tokens and positions, `capacity` numbers at `log_p`.
unsafe fn score_in_order(
    context: *mut esolm_context,
    tokens: *const u32,
    order: *const u32,
    n_tokens: usize,
    n_known: usize,
    (log_p, capacity): (*mut f64, usize),
    score: impl FnOnce(&mut Context, &[u32], &[u32], usize) -> Result<Vec<f64>>,
) -> Result<()> {
    // SAFETY: the contract says that the context is valid and that there are `n_tokens` tokens.
    let (handle, tokens) =
        unsafe { (args::reference(context, "context")?, args::slice(tokens, n_tokens, "tokens")?) };
    let unknown = n_tokens.checked_sub(n_known);
    let unknown =
        unknown.ok_or_else(|| Error::invalid(format!("{n_known} of {n_tokens} tokens are known")))?;
    if log_p.is_null() {
        return Err(args::null("log_p"));
    }
    // SAFETY: the contract says that there are `capacity` numbers.
    let log_p = unsafe { args::room(log_p, capacity, unknown)? };
    let found = handle.with(|State { context, .. }| {
        if n_tokens > context.length() {
            let longest = context.length();
            return Err(Error::invalid(format!("{n_tokens} tokens; the context holds {longest}")));
        }
        if order.is_null() {
            let left_to_right = collected(0..n_tokens as u32)?;
            return score(context, tokens, &left_to_right, n_known);
        }
        // SAFETY: the contract says that there are `n_tokens` positions.
        score(context, tokens, unsafe { args::slice(order, n_tokens, "order")? }, n_known)
    })?;
    if let Some(log_p) = log_p {
        log_p.copy_from_slice(&found);
    }
    Ok(())
}

/// Writes the log-probability (natural) of each token except the first n_known of an order, given all tokens before it
/// in the order, as if generated one token at a time. For Eso-LM (A) this is the sequential phase, in which the known
/// tokens attend to each other in both directions. Ends the context's generation. Allocates memory.
///
/// tokens are the n_tokens tokens of the text by position, at most the context's length. order has each position once;
/// NULL is left to right. log_p gets n_tokens - n_known numbers, in the order; on failure it is unchanged.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if order does not have each position once, or a token is outside the vocabulary;
/// ESOLM_ERR_BUFFER_TOO_SMALL if capacity is too small; ESOLM_ERR_UNSUPPORTED for MDLM; ESOLM_ERR_CANCELLED,
/// ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
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
    // SAFETY: the header requires each pointer to be NULL or valid for the call, for these numbers of items.
    wrap(|| unsafe { score_in_order(context, tokens, order, n_tokens, n_known, log_p, Context::score_order) })
}

/// As esolm_score_order, with all tokens after the first n_known of the order masked at once: one step of diffusion.
///
/// Errors: as esolm_score_order, but ESOLM_ERR_UNSUPPORTED is for an autoregressive model.
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
    // SAFETY: the header requires each pointer to be NULL or valid for the call, for these numbers of items.
    wrap(|| unsafe {
        score_in_order(context, tokens, order, n_tokens, n_known, log_p, Context::score_masked)
    })
}
