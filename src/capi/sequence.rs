//! Sequences that join a generation and leave it.

use std::ffi::c_void;

use super::context::{State, esolm_context};
use super::prompt::esolm_prompt;
use super::request::{esolm_generate_params, with_params};
use super::status::{esolm_status, wrap};
use super::{args, state};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::generate::{GenerateParams, Prompt};

/// Runs `start` with the caller's prompt, copied into the memory that is reserved for it, and keeps the callback on the
/// logits for the sequence that it returns.
///
/// # Safety
/// Each pointer must be NULL or valid, as must all that the prompt and the parameters point to.
unsafe fn start(
    state: &mut State,
    prompt: *const esolm_prompt,
    params: *const esolm_generate_params,
    start: impl FnOnce(&mut State, &Prompt, &GenerateParams<'_>) -> Result<usize>,
) -> Result<usize> {
    let missing = || Error::internal("no room for a prompt");
    let length = state.context.length();
    let mut own = std::mem::take(state.prompts.first_mut().ok_or_else(missing)?);
    own.known.clear();
    // SAFETY: the contract covers the prompt and what it points to.
    let copied = match unsafe { prompt.as_ref() } {
        // SAFETY: as above.
        Some(prompt) => unsafe { prompt.copy_to(&mut own, length) },
        None => Ok(()),
    };
    let started = copied.and_then(|()| {
        // SAFETY: the contract covers the parameters and what they point to.
        unsafe {
            with_params(params, |params, callback| {
                let sequence = start(state, &own, params)?;
                *state.logits.get_mut(sequence).ok_or_else(missing)? = callback;
                Ok(sequence)
            })
        }
    });
    *state.prompts.first_mut().ok_or_else(missing)? = own;
    started
}

/// Adds a sequence to the generation, between two steps or in a new context, and writes its number to *sequence. The
/// others are not disturbed: esolm_step runs the next step of each in one pass of the network (continuous batching). The
/// text is the one that the prompt would get alone in a generation with these parameters. prompt may be NULL: no token is
/// known. params is as in esolm_generate, with one entry of constraints at most.
///
/// If the prompt begins as a sequence of this context, also one that has been removed, its keys and values there are
/// copied instead of computed, with the same result (models with ESOLM_FEATURE_STATES; of BD3-LM whole blocks); where another one that
/// joined before is still reading at least half of the prompt, this one waits for it (with the library's own kernels). Steps report log_probs of
/// all sequences if one wants them, and as many top_log_probs as the one that wants the most. A long prompt takes several
/// steps, which write nothing of it yet (esolm_context_params.prompt_rows).
///
/// If a logits callback or constraints leave a sequence no token, esolm_step fails and esolm_stop_reason is
/// ESOLM_STOP_ERROR for this one alone; the others go on once it is removed.
///
/// Errors: as esolm_generate, and ESOLM_ERR_INVALID_ARGUMENT if all sequences of the context are in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_add(
    context: *mut esolm_context,
    prompt: *const esolm_prompt,
    params: *const esolm_generate_params,
    sequence: *mut u32,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle) =
            unsafe { (args::out(sequence, 0, "sequence")?, args::reference(context, "context")?) };
        let add = |state: &mut State, prompt: &Prompt, params: &GenerateParams<'_>| {
            state.context.add_sequence(prompt, params)
        };
        // SAFETY: the header requires prompt, parameters and all that they point to to be valid for the call.
        let number = handle.with(|state| unsafe { start(state, prompt, params, add) })?;
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(number as u32) };
        Ok(())
    })
}

/// As esolm_extend for one sequence of a generation; the others are not disturbed.
///
/// Errors: as esolm_extend, and ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_extend(
    context: *mut esolm_context,
    sequence: u32,
    prompt: *const esolm_prompt,
    params: *const esolm_generate_params,
) -> esolm_status {
    let extend = |context: &mut Context, sequence, prompt: &Prompt, params: &GenerateParams<'_>| {
        context.extend_sequence(sequence, prompt, params)
    };
    // SAFETY: as the header requires it of the arguments.
    unsafe { go_on(context, sequence, prompt, params, extend) }
}

/// Has a sequence go on as `work` says.
///
/// # Safety
/// The context is NULL or not freed during the call; prompt, parameters and all that they point to are valid for it.
unsafe fn go_on(
    context: *mut esolm_context,
    sequence: u32,
    prompt: *const esolm_prompt,
    params: *const esolm_generate_params,
    work: impl FnOnce(&mut Context, usize, &Prompt, &GenerateParams<'_>) -> Result<()>,
) -> esolm_status {
    wrap(|| {
        // SAFETY: by the caller.
        let handle = unsafe { args::reference(context, "context")? };
        let sequence = sequence as usize;
        let work = |state: &mut State, prompt: &Prompt, params: &GenerateParams<'_>| {
            work(&mut state.context, sequence, prompt, params).map(|()| sequence)
        };
        // SAFETY: by the caller.
        handle.with(|state| unsafe { start(state, prompt, params, work) }.map(|_| ()))
    })
}

/// Goes on behind the text of a sequence, such as a model's answer, with a prompt whose positions count from there (NULL: 0, 1, 2
/// and so on); the others are not disturbed. The text ends at its first gap or with the token that ended it, or earlier: at
/// most its first keep tokens stay (SIZE_MAX: all). The keys and values of what stays are kept, so the steps compute the new
/// tokens only, and those of the last step. params->max_tokens counts behind the prompt. The call allocates 8 bytes for each token
/// of the prompt and frees them.
///
/// The result is the one of a text that has these tokens in this order: of an autoregressive model the one of a new prompt, of
/// Eso-LM (B) the one of the order in which the tokens became known.
///
/// Errors: as esolm_extend, and ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_append(
    context: *mut esolm_context,
    sequence: u32,
    keep: usize,
    prompt: *const esolm_prompt,
    params: *const esolm_generate_params,
) -> esolm_status {
    let append = |context: &mut Context, sequence, prompt: &Prompt, params: &GenerateParams<'_>| {
        context.append_sequence(sequence, Some(keep), prompt, params)
    };
    // SAFETY: as the header requires it of the arguments.
    unsafe { go_on(context, sequence, prompt, params, append) }
}

/// Copies the state of one sequence for esolm_sequence_restore, as esolm_state_save does that of all: such as a conversation that waits for
/// its next message while others have its place. The others are not disturbed. capacity and *size_out are as there. (llama.cpp:
/// llama_state_seq_get_data.)
///
/// Errors: as esolm_state_save, and ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_save(
    context: *mut esolm_context,
    sequence: u32,
    data: *mut c_void,
    capacity: usize,
    size_out: *mut usize,
) -> esolm_status {
    let sequence = sequence as usize;
    let size = |context: &Context| context.saved_sequence_size(sequence);
    // SAFETY: as the header requires it of the arguments.
    unsafe { state::save(context, data, capacity, size_out, size, |context| context.save_sequence(sequence)) }
}

/// Adds a saved sequence, size bytes at data, to the generation, between two steps or in a new context, and writes its number to
/// *sequence: its tokens are known, no steps are left, and esolm_sequence_extend and esolm_sequence_append go on with it. The others are not
/// disturbed. The bytes are those of esolm_sequence_save, or of esolm_state_save with one sequence; they are checked. (llama.cpp:
/// llama_state_seq_set_data.)
///
/// Errors: as esolm_state_restore, and ESOLM_ERR_INVALID_ARGUMENT if all sequences of the context are in use, or for bytes of no sequence or
/// of several. The other sequences are then still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_restore(
    context: *mut esolm_context,
    data: *const c_void,
    size: usize,
    sequence: *mut u32,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let out = unsafe { args::out(sequence, 0, "sequence")? };
        // SAFETY: as above, and `size` bytes at `data`.
        let (handle, bytes) = unsafe { state::given(context, data, size)? };
        let number = handle.with(|state| {
            let number = state.context.restore_sequence(bytes)?;
            state.logits.get_mut(number).into_iter().for_each(|callback| *callback = None);
            Ok(number)
        })?;
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(number as u32) };
        Ok(())
    })
}

/// Removes a sequence, finished or not; read its text before. Its number may then be another's.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence; ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_remove(context: *mut esolm_context, sequence: u32) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a context that is not freed during the call.
        let handle = unsafe { args::reference(context, "context")? };
        handle.with(|state| state.context.remove_sequence(sequence as usize))
    })
}

/// Writes to *out how many tokens of a sequence have keys and values in the cache that the next steps need not compute.
/// Before the first step of one that was added: those that came from another sequence.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence; ESOLM_ERR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_sequence_cached_tokens(
    context: *mut esolm_context,
    sequence: u32,
    out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, handle) = unsafe { (args::out(out, 0, "out")?, args::reference(context, "context")?) };
        let count = handle.with(|state| state.context.cached_tokens(sequence as usize))?;
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(count) };
        Ok(())
    })
}
