//! Generating: all at once with a callback, or step by step.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr::null;

use super::context::{State, esolm_context};
use super::request::{esolm_generate_params, esolm_prompt};
use super::status::{esolm_status, wrap};
use super::{args, request};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::generate::{GenerateParams, Prompt};
use crate::generate::{Step, Update};

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
    /// Steps of the whole generation; with esolm_generate_params.confidence the most there can be.
    pub total: usize,
    /// The tokens written. In a callback they are valid until it returns, from esolm_step until the next call
    /// on the context.
    pub updates: *const esolm_update,
    /// How many.
    pub n_updates: usize,
    /// The natural logarithm of each token's probability under the model (before constraints, temperature, top_k and
    /// top_p), in the updates' order and valid as long; NULL unless esolm_generate_params.log_probs asks for it.
    pub log_probs: *const f64,
}

impl esolm_step_info {
    const NOTHING: Self = Self { index: 0, total: 0, updates: null(), n_updates: 0, log_probs: null() };

    fn new(step: &Step<'_>) -> Self {
        let Step { index, total, updates, log_probs } = *step;
        let log_probs = if log_probs.is_empty() { null() } else { log_probs.as_ptr() };
        Self { index, total, updates: updates.as_ptr().cast(), n_updates: updates.len(), log_probs }
    }
}

/// Is told what each step did. 0 goes on, anything else stops the generation. It runs on the thread that called
/// esolm_generate, must not throw or jump, and may call nothing on the context but esolm_cancel and
/// esolm_cancel_reset (everything else returns ESOLM_ERR_BUSY).
pub type esolm_step_callback =
    Option<unsafe extern "C" fn(step: *const esolm_step_info, user_data: *mut c_void) -> i32>;

/// Begins a generation or goes on (`start` is one of the crate's functions), with the caller's prompts copied into
/// memory that is reserved for them.
///
/// # Safety
/// The pointers must be valid, as must be all that the prompts and the parameters point to.
unsafe fn begin(
    start: impl FnOnce(&mut Context, &[Prompt], &GenerateParams<'_>) -> Result<()>,
    state: &mut State,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
) -> Result<()> {
    let State { context, prompts: own, logits } = state;
    // SAFETY: what the caller promises.
    let prompts = unsafe { args::slice(prompts, n_prompts, "prompts")? };
    let most = own.len();
    let too_many = || Error::invalid(format!("{n_prompts} sequences; the context holds 1 to {most}"));
    let own = own.get_mut(..n_prompts).ok_or_else(too_many)?;
    for (number, (to, from)) in own.iter_mut().zip(prompts).enumerate() {
        // SAFETY: what the caller promises.
        unsafe { from.copy_to(to, context.length()) }
            .map_err(|e| Error::invalid(format!("prompt {number}: {e}")))?;
    }
    // SAFETY: what the caller promises.
    unsafe {
        request::with_params(params, |params, function| {
            start(context, own, params)?;
            *logits = function;
            Ok(())
        })
    }
}

/// Runs the next step, with the caller's function on the logits.
fn next_step(state: &mut State) -> Result<Option<Step<'_>>> {
    let State { context, logits, .. } = state;
    match logits {
        // SAFETY: the caller promises that the function is valid during the generation.
        Some(function) => context.step_with_logits(|choice, row| unsafe { function.call(choice, row) }),
        None => context.step(),
    }
}

/// Generates one sequence per prompt, to the end. callback, which may be NULL, is told of every step; read the
/// result with esolm_copy_tokens or esolm_copy_text. params may be NULL for the defaults. On allocations see "Memory"
/// above.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if there are too many prompts, a parameter, position or token is out of range, a
/// constraint cannot be kept or the logits callback leaves none to draw; ESOLM_ERR_UNSUPPORTED; ESOLM_ERR_CANCELLED;
/// ESOLM_ERR_BUSY; ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE. What was written before a failure stays readable.
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
        // SAFETY: the caller's pointer is NULL or valid.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| {
            // SAFETY: the caller promises what the prompts' and the parameters' fields say.
            unsafe { begin(Context::begin, state, prompts, n_prompts, params)? };
            while let Some(step) = next_step(state)? {
                let info = esolm_step_info::new(&step);
                // SAFETY: the caller's function takes a step and the caller's own pointer.
                if callback.map_or(0, |callback| unsafe { callback(&info, user_data) }) != 0 {
                    return Err(Error::Cancelled);
                }
            }
            Ok(())
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
        // SAFETY: the caller's pointer is NULL or valid.
        let handle = unsafe { args::reference(context, "context")? };
        // SAFETY: the caller promises what the prompts' and the parameters' fields say.
        handle.with(|state| unsafe { begin(Context::begin, state, prompts, n_prompts, params) })
    })
}

/// Goes on from all that is known, without computing it again, in place of the steps that are left: a finished text
/// becomes the beginning of one of params->length tokens. There is one prompt for each sequence, of further known tokens
/// (count 0: none). params should have another seed. esolm_step runs it. Arguments and errors are as in esolm_generate.
///
/// Errors: also ESOLM_ERR_INVALID_ARGUMENT if the text would be shorter than it is; ESOLM_ERR_UNSUPPORTED for models
/// whose keys and values do not outlast a step: Eso-LM (A), MDLM. The last generation is then still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_extend(
    context: *mut esolm_context,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointer is NULL or valid.
        let handle = unsafe { args::reference(context, "context")? };
        // SAFETY: the caller promises what the prompts' and the parameters' fields say.
        handle.with(|state| unsafe { begin(Context::extend, state, prompts, n_prompts, params) })
    })
}

/// Runs the next step. *done is 0 and *info says what the step wrote; or the generation is finished, no step was
/// run, *done is 1 and *info is zero. info may be NULL. On allocations see "Memory" above.
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
        let step = handle.with(|state| Ok(next_step(state)?.map(|step| esolm_step_info::new(&step))))?;
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

/// Copies the order in which the positions of a sequence are generated: the known ones first, in any order, then the
/// others as the steps write them. It is what esolm_score_order takes. capacity and *n_out are as in esolm_copy_tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_order(
    context: *mut esolm_context,
    sequence: usize,
    positions: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (n_out, handle) =
            unsafe { (args::out(n_out, 0, "n_out")?, args::reference(context, "context")?) };
        handle.with(|state| {
            let found = state.context.order(sequence)?;
            // SAFETY: the caller's buffer has that capacity.
            unsafe { args::copy_items(found, positions, capacity, n_out, "positions") }
        })
    })
}

/// Copies the tokens of a sequence by position, the model's mask token where one is not written yet.
///
/// At most capacity are written, and their number goes to *n_out. If they do not fit, the result is
/// ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *n_out is the number needed; with capacity 0, tokens may be NULL.
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
