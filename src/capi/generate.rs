//! Generating: in one call with a callback, or step by step.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;

use super::context::{State, esolm_context};
use super::prompt::esolm_prompt;
use super::request::esolm_generate_params;
use super::snapshot::Snapshot;
use super::status::{esolm_status, wrap};
use super::step::{ESOLM_STOP_NONE, esolm_step_info, reason_code};
use super::{args, params, request};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::generate::{GenerateParams, Prompt};
use crate::memory::collected;
use crate::sample::TokenLogProb;

/// A token and its log-probability (natural) under the model. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_token_log_prob {
    /// The token.
    pub token: u32,
    /// Before constraints, temperature and filters.
    pub log_prob: f32,
}

const _: () = {
    assert!(size_of::<esolm_token_log_prob>() == size_of::<TokenLogProb>());
    assert!(offset_of!(esolm_token_log_prob, log_prob) == offset_of!(TokenLogProb, log_prob));
};

/// Called after each step; a non-zero return ends the call with ESOLM_ERR_CANCELLED. Runs on the thread of
/// esolm_generate; must not throw or longjmp. On the context it may call esolm_copy_*, esolm_stop_reason, esolm_context_profile,
/// esolm_cancel and esolm_cancel_reset; what computes or changes something returns ESOLM_ERR_BUSY.
pub type esolm_step_callback =
    Option<unsafe extern "C" fn(step: *const esolm_step_info, user_data: *mut c_void) -> i32>;

/// Runs `start` (`Context::begin` or `Context::extend`) with the caller's prompts, copied into the memory that is
/// reserved for them.
///
/// # Safety
/// The pointers must be valid, as must all that the prompts and the parameters point to.
unsafe fn begin(
    start: impl FnOnce(&mut Context, &[Prompt], &GenerateParams<'_>) -> Result<()>,
    state: &mut State,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
) -> Result<()> {
    let State { context, prompts: own, logits, .. } = state;
    // SAFETY: the contract says that there are `n_prompts` prompts.
    let prompts = unsafe { args::slice(prompts, n_prompts, "prompts")? };
    let capacity = own.len();
    let too_many = || Error::invalid(format!("{n_prompts} sequences; the context holds 1 to {capacity}"));
    let own = own.get_mut(..n_prompts).ok_or_else(too_many)?;
    for (number, (to, from)) in own.iter_mut().zip(prompts).enumerate() {
        // SAFETY: the contract covers what the prompts point to.
        unsafe { from.copy_to(to, context.length()) }
            .map_err(|e| Error::invalid(format!("prompt {number}: {e}")))?;
    }
    // SAFETY: the contract covers the parameters and what they point to.
    unsafe {
        request::with_params(params, |params, callback| {
            start(context, own, params)?;
            logits.fill(callback);
            Ok(())
        })
    }
}

/// Runs the next step, with the caller's callback on the logits.
fn next_step(state: &mut State) -> Result<Option<esolm_step_info>> {
    let State { context, logits, texts, .. } = state;
    let called = |sequence| matches!(logits.get(sequence), Some(Some(_)));
    let step = if (0..context.sequences()).any(|sequence| context.has_sequence(sequence) && called(sequence))
    {
        context.step_with_logits_of(called, |row, numbers| match logits.get(row.sequence) {
            // SAFETY: the header requires the callback and its user data to be valid for all steps of the sequence.
            Some(Some(callback)) => unsafe { callback.call(row, numbers) },
            _ => Ok(()),
        })?
    } else {
        context.step()?
    };
    Ok(step.map(|step| esolm_step_info::new(&step, texts)))
}

/// Generates one sequence per prompt, to the end. callback, which may be NULL, is called after every step, also of those
/// that only feed a part of the prompts (esolm_context_params.prompt_rows); read the result with esolm_copy_text or
/// esolm_copy_tokens. params may be NULL for the defaults. Allocations: see "Memory" above.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT for too many prompts, a parameter, position or token out of range, constraints
/// that cannot be met, or a logits callback that excludes all tokens; ESOLM_ERR_UNSUPPORTED; ESOLM_ERR_CANCELLED;
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
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| {
            // SAFETY: the header requires prompts, parameters and all that they point to to be valid for the call.
            unsafe { begin(Context::begin, state, prompts, n_prompts, params)? };
            handle.publish(state);
            while let Some(step) = next_step(state)? {
                handle.publish(state);
                // SAFETY: the caller's function has this signature, and `step` outlives the call; what it
                // points to is not touched before the next step.
                if callback.map_or(0, |callback| unsafe { callback(&step, user_data) }) != 0 {
                    state.context.interrupt();
                    return Err(Error::Cancelled);
                }
            }
            Ok(())
        })
    })
}

/// Begins a generation of one sequence per prompt, which replaces the previous one; esolm_step runs it. Arguments and
/// errors are as in esolm_generate. If it fails, the previous generation is still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_begin(
    context: *mut esolm_context,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        // SAFETY: the header requires prompts, parameters and all that they point to to be valid for the call.
        handle.with(|state| unsafe { begin(Context::begin, state, prompts, n_prompts, params) })
    })
}

/// Continues from all known tokens without computing them again, and drops the steps that are left: a finished text
/// becomes the beginning of one with params->length tokens. Each sequence has one prompt, with further known tokens
/// (count 0: none, as for one that was removed). params should have another seed. esolm_step runs it. Arguments are as in esolm_generate.
///
/// Errors: as esolm_generate, and ESOLM_ERR_INVALID_ARGUMENT if the text would get shorter; ESOLM_ERR_UNSUPPORTED for
/// models whose keys and values are not kept between steps: Eso-LM (A), MDLM. The previous generation is then still
/// there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_extend(
    context: *mut esolm_context,
    prompts: *const esolm_prompt,
    n_prompts: usize,
    params: *const esolm_generate_params,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        // SAFETY: the header requires prompts, parameters and all that they point to to be valid for the call.
        handle.with(|state| unsafe { begin(Context::extend, state, prompts, n_prompts, params) })
    })
}

/// Runs the next step: *done is 0 and *info, whose struct_size is set, says what it wrote. If the generation is finished,
/// no step is run, *done is 1 and *info is zero but for its size. info may be NULL. Allocations: see "Memory" above.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if the logits callback excludes all tokens; ESOLM_ERR_CANCELLED; ESOLM_ERR_BUSY;
/// ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE; ESOLM_ERR_OUT_OF_MEMORY. The state is then as before the call, *done is 0 and *info is
/// zero but for its size. Only with ESOLM_ERR_OUT_OF_MEMORY where new text had no room (see "Memory") the tokens are written, and
/// all texts since come with the next step, if there is one (esolm_copy_text has them all).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_step(
    context: *mut esolm_context,
    info: *mut esolm_step_info,
    done: *mut i32,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL, or a struct of as many bytes as its first field says.
        let info = if info.is_null() { None } else { Some(unsafe { params::result(info)? }) };
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (done, handle) = unsafe { (args::out(done, 0, "done")?, args::reference(context, "context")?) };
        match (handle.with(next_step)?, info) {
            (Some(step), Some(info)) => info.set(step),
            (Some(_), None) => (),
            // SAFETY: `done` is not NULL (`args::out`), and the header requires it to be valid then.
            (None, _) => unsafe { done.write(1) },
        }
        Ok(())
    })
}

/// Copies items of what the last step left to the caller's buffer `to`, and their number to `n_out`.
///
/// # Safety
/// Each pointer must be NULL or valid, `to` for `capacity` items.
unsafe fn copy<T: Copy>(
    context: *mut esolm_context,
    find: impl FnOnce(&Snapshot) -> Result<&[T]>,
    to: *mut T,
    capacity: usize,
    n_out: *mut usize,
    name: &str,
) -> Result<()> {
    // SAFETY: the contract says that each pointer is NULL or valid.
    let (n_out, handle) = unsafe { (args::out(n_out, 0, "n_out")?, args::reference(context, "context")?) };
    // SAFETY: the contract says that there is room for `capacity` items; `n_out` is not NULL (`args::out`) and so valid.
    handle.read(|texts| unsafe { args::copy_items(find(texts)?, to, capacity, n_out, name) })
}

/// Copies the order in which the positions of a sequence are generated: the known ones first, in any order, then the
/// others in the order of the steps; while a window slides, whose order its tokens decide, those that are final.
/// esolm_score_order takes that of a whole text. capacity and *n_out are as in esolm_tokenize. As all esolm_copy_* it copies
/// what the last step left, from any thread, also in a callback and while another call computes, and disturbs neither.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, ESOLM_ERR_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_order(
    context: *mut esolm_context,
    sequence: u32,
    positions: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    // SAFETY: the header requires each pointer to be NULL or valid for the call, with room for `capacity` positions.
    wrap(|| unsafe { copy(context, |texts| texts.order(sequence), positions, capacity, n_out, "positions") })
}

/// Copies the most likely tokens at the position of update number update of the last step, the likeliest first, as many
/// as esolm_generate_params.top_log_probs says. capacity and *n_out are as in esolm_tokenize.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such update or top_log_probs is 0; ESOLM_ERR_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_top_log_probs(
    context: *mut esolm_context,
    update: usize,
    entries: *mut esolm_token_log_prob,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    // SAFETY: the header requires each pointer to be NULL or valid for the call, with room for `capacity` entries, which are
    // the library's as they are.
    wrap(|| unsafe {
        copy(context, |texts| texts.top_log_probs(update), entries.cast(), capacity, n_out, "entries")
    })
}

/// Copies the tokens of a sequence by position, with the model's mask token where none is written yet. capacity and
/// *n_out are as in esolm_tokenize.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, ESOLM_ERR_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_tokens(
    context: *mut esolm_context,
    sequence: u32,
    tokens: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    // SAFETY: the header requires each pointer to be NULL or valid for the call, with room for `capacity` tokens.
    wrap(|| unsafe { copy(context, |texts| texts.tokens(sequence), tokens, capacity, n_out, "tokens") })
}

/// Copies the text of a sequence up to the first unknown token, or to what ended it: whole characters of UTF-8 with a NUL,
/// without the tokens that begin and end a text. It only grows during a generation. capacity and *len_out are as in
/// esolm_detokenize.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, ESOLM_ERR_BUFFER_TOO_SMALL, ESOLM_ERR_OUT_OF_MEMORY, ESOLM_ERR_TOKENIZER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_copy_text(
    context: *mut esolm_context,
    sequence: u32,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (len_out, handle) =
            unsafe { (args::out(len_out, 0, "len_out")?, args::reference(context, "context")?) };
        // Others may read while this one decodes.
        let (tokens, end) = handle.read(|texts| {
            let (tokens, end) = texts.text(sequence)?;
            Ok((collected(tokens.iter().copied())?, end))
        })?;
        let found = handle.model.tokenizer()?.text(&tokens, end.bytes, end.complete)?;
        // SAFETY: the header requires room for `capacity` bytes; `len_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_text(&found, text, capacity, len_out) }
    })
}

/// Writes to *out why the text of a sequence ended: ESOLM_STOP_*. Its tokens then are those up to its end, with the one
/// that ended it. From any thread, as esolm_copy_text.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_stop_reason(
    context: *mut esolm_context,
    sequence: u32,
    out: *mut i32,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle) =
            unsafe { (args::out(out, ESOLM_STOP_NONE, "out")?, args::reference(context, "context")?) };
        let reason = reason_code(handle.read(|texts| texts.stop_reason(sequence))?);
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(reason) };
        Ok(())
    })
}
