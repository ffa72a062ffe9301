//! Generating: all at once with a callback, or step by step.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::ptr::null;

use super::context::{State, esolm_context};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::{Error, Result};
use crate::request::GenerateParams;
use crate::sampler::Sampling;
use crate::step::{Step, Update};

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
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_generate_params {
    const NAME: &'static str = "esolm_generate_params";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        length: 0,
        steps: 128,
        seed: 0,
        alpha_0: 1.0,
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        reserved: 0,
    };
}

impl esolm_generate_params {
    fn check(&self) -> Result<GenerateParams<'static>> {
        if self.reserved != 0 {
            return Err(Error::invalid("esolm_generate_params: reserved is not 0"));
        }
        let Self { length, steps, seed, alpha_0, temperature, top_p, top_k, .. } = *self;
        let sampling = Sampling { temperature, top_k, top_p };
        Ok(GenerateParams { length, alpha_0, steps, sampling, seed, ..GenerateParams::default() })
    }
}

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

/// A token that a step wrote. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_update {
    /// The sequence: the index of its prompt.
    pub sequence: u32,
    /// Where in the text.
    pub position: u32,
    /// What.
    pub token: u32,
}

// The library's own updates are handed to C as they are.
const _: () = {
    assert!(size_of::<esolm_update>() == size_of::<Update>());
    assert!(offset_of!(esolm_update, sequence) == offset_of!(Update, sequence));
    assert!(offset_of!(esolm_update, position) == offset_of!(Update, position));
    assert!(offset_of!(esolm_update, token) == offset_of!(Update, token));
};

/// What a step did. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_step_info {
    /// The step's number, from 0.
    pub index: usize,
    /// Steps of the whole generation.
    pub total: usize,
    /// The tokens written. In a callback they are valid until it returns, from esolm_step until the next call
    /// on the context.
    pub updates: *const esolm_update,
    /// How many.
    pub n_updates: usize,
}

impl esolm_step_info {
    const NOTHING: Self = Self { index: 0, total: 0, updates: null(), n_updates: 0 };

    fn new(step: &Step<'_>) -> Self {
        let Step { index, total, updates, .. } = *step;
        Self { index, total, updates: updates.as_ptr().cast(), n_updates: updates.len() }
    }
}

/// Is told what each step did. 0 goes on, anything else stops the generation. It runs on the thread that called
/// esolm_generate, must not throw or jump, and may call nothing on the context but esolm_cancel and
/// esolm_cancel_reset (everything else returns ESOLM_ERR_BUSY).
pub type esolm_step_callback =
    Option<unsafe extern "C" fn(step: *const esolm_step_info, user_data: *mut c_void) -> i32>;

/// Begins a generation, with the caller's prompts copied into memory that is reserved for them.
///
/// # Safety
/// `prompts` must point to `n_prompts` prompts whose arrays have their `count`.
unsafe fn begin(
    state: &mut State,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: &GenerateParams<'_>,
) -> Result<()> {
    let State { context, prompts: own } = state;
    // SAFETY: what the caller promises.
    let prompts = unsafe { args::slice(prompts, n_prompts, "prompts")? };
    let most = own.len();
    let too_many = || Error::invalid(format!("{n_prompts} sequences; the context holds 1 to {most}"));
    let own = own.get_mut(..n_prompts).ok_or_else(too_many)?;
    for (number, (to, from)) in own.iter_mut().zip(prompts).enumerate() {
        to.known.clear();
        if from.count > context.length() {
            let (count, longest) = (from.count, context.length());
            return Err(Error::invalid(format!("prompt {number}: {count} tokens; at most {longest} fit")));
        }
        // SAFETY: what the caller promises.
        let tokens = unsafe { args::slice(from.tokens, from.count, "a prompt's tokens")? };
        if from.positions.is_null() {
            to.known.extend((0..).zip(tokens.iter().copied()));
        } else {
            // SAFETY: what the caller promises.
            let positions = unsafe { args::slice(from.positions, from.count, "a prompt's positions")? };
            to.known.extend(positions.iter().copied().zip(tokens.iter().copied()));
        }
    }
    context.begin(own, params)
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

/// Generates one sequence per prompt, to the end. callback, which may be NULL, is told of every step; read the
/// result with esolm_copy_tokens or esolm_copy_text. params may be NULL for the defaults. On
/// allocations see "Memory" above.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if there are too many prompts, or a parameter, position or token is out of
/// range; ESOLM_ERR_CANCELLED; ESOLM_ERR_BUSY; ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE. What was written before a
/// failure stays readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_generate(
    context: *mut esolm_context,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
    callback: esolm_step_callback,
    user_data: *mut c_void,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (handle, params) =
            unsafe { (args::reference(context, "context")?, params::read(params)?.check()?) };
        handle.with(|state| {
            // SAFETY: the caller promises what the prompts' fields say.
            unsafe { begin(state, prompts, n_prompts, &params)? };
            state.context.finish(|step| {
                let info = esolm_step_info::new(step);
                // SAFETY: the caller's function takes a step and the caller's own pointer.
                match callback.map_or(0, |callback| unsafe { callback(&info, user_data) }) {
                    0 => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            })
        })
    })
}

/// Begins a generation of one sequence per prompt, in place of the last one; esolm_step runs it. Arguments and errors
/// are as in esolm_generate. If it fails, the last generation is still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_begin(
    context: *mut esolm_context,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (handle, params) =
            unsafe { (args::reference(context, "context")?, params::read(params)?.check()?) };
        // SAFETY: the caller promises what the prompts' fields say.
        handle.with(|state| unsafe { begin(state, prompts, n_prompts, &params) })
    })
}

/// Runs the next step. *done is 0 and *info says what the step wrote; or the generation is finished, no step was
/// run, *done is 1 and *info is zero. info may be NULL. On allocations see
/// "Memory" above.
///
/// Errors: ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE. The state is then as
/// before the call, *done is 0 and *info is zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_step(
    context: *mut esolm_context,
    info: *mut esolm_step_info,
    done: *mut i32,
) -> esolm_status {
    wrap(|| {
        if !info.is_null() {
            // SAFETY: the caller's pointer is valid.
            unsafe { info.write(esolm_step_info::NOTHING) };
        }
        // SAFETY: the caller's pointers are NULL or valid.
        let (done, handle) = unsafe { (args::out(done, 0, "done")?, args::reference(context, "context")?) };
        let step = handle.with(|state| Ok(state.context.step()?.map(|step| esolm_step_info::new(&step))))?;
        match step {
            // SAFETY: the caller's pointer is valid.
            Some(step) if !info.is_null() => unsafe { info.write(step) },
            Some(_) => (),
            // SAFETY: `done` is valid for writing.
            None => unsafe { done.write(1) },
        }
        Ok(())
    })
}

/// Copies the tokens of a sequence by position, the model's mask token where one is not written yet.
///
/// At most capacity are written, and their number goes to *n_out. If they do not fit, the result is
/// ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *n_out is the number needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_tokens(
    context: *mut esolm_context,
    sequence: usize,
    tokens: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (n_out, handle) =
            unsafe { (args::out(n_out, 0, "n_out")?, args::reference(context, "context")?) };
        handle.with(|state| {
            let found = state.context.tokens(sequence)?;
            // SAFETY: the caller's buffer has that capacity.
            unsafe { args::copy_items(found, tokens, capacity, n_out, "tokens") }
        })
    })
}

/// Copies the text of a sequence's finished beginning, up to the first token that is unknown or ends the text:
/// whole characters of UTF-8, and a NUL. It only ever grows during a generation. capacity and *len_out are as in
/// esolm_detokenize.
///
/// Errors: also ESOLM_ERR_BUSY, ESOLM_ERR_TOKENIZER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_text(
    context: *mut esolm_context,
    sequence: usize,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (len_out, handle) =
            unsafe { (args::out(len_out, 0, "len_out")?, args::reference(context, "context")?) };
        handle.with(|state| {
            let found = state.context.text(sequence)?;
            // SAFETY: the caller's buffer has that capacity.
            unsafe { args::copy_text(&found, text, capacity, len_out) }
        })
    })
}
