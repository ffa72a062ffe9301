//! What the model makes of positions that are not written yet.

use super::args;
use super::context::esolm_context;
use super::status::{esolm_status, wrap};
use crate::context::Context;
use crate::error::Result;

/// Writes the network's logits at positions that are not written yet, given the tokens that are: esolm_model_info.vocab_size
/// numbers for each of the n_positions positions, none twice. Each position is taken by itself, as if it were the next and
/// only one of a step. (MDLM sees that the others are unknown.) Runs the network and changes nothing of the generation.
/// logits has room for capacity numbers; *n_out is their number, also when they do not fit, and then none is written.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence, or a position is beyond the text, written or given
/// twice; ESOLM_ERR_UNSUPPORTED for any but the next position of an autoregressive model, and outside the block that
/// BD3-LM writes, be they written or not; ESOLM_ERR_BUFFER_TOO_SMALL;
/// ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE. The numbers are undefined after a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_evaluate_logits(
    context: *mut esolm_context,
    sequence: u32,
    positions: *const u32,
    n_positions: usize,
    logits: *mut f32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    let at = Positions { sequence, positions, n_positions };
    // SAFETY: the header requires each pointer to be NULL or valid for the call, and the arrays to be as long as they say.
    wrap(|| unsafe { evaluate(Context::logits, context, at, logits, capacity, n_out) })
}

/// As esolm_evaluate_logits, but the probabilities that the token would be drawn with: after the generation's constraints,
/// temperature and filters, without its logits callback. They add up to 1 for each position.
///
/// Errors: as esolm_evaluate_logits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_evaluate_probabilities(
    context: *mut esolm_context,
    sequence: u32,
    positions: *const u32,
    n_positions: usize,
    probabilities: *mut f32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    let at = Positions { sequence, positions, n_positions };
    // SAFETY: as in `esolm_evaluate_logits`.
    wrap(|| unsafe { evaluate(Context::probabilities, context, at, probabilities, capacity, n_out) })
}

/// Positions of C.
struct Positions {
    sequence: u32,
    positions: *const u32,
    n_positions: usize,
}

/// Has `how` write its numbers for the positions to the caller's buffer.
///
/// # Safety
/// Each pointer must be NULL or valid, and each array as long as it says.
unsafe fn evaluate(
    how: impl FnOnce(&mut Context, usize, &[u32], &mut [f32]) -> Result<()>,
    context: *mut esolm_context,
    at: Positions,
    numbers: *mut f32,
    capacity: usize,
    n_out: *mut usize,
) -> Result<()> {
    // SAFETY: the contract says that each pointer is NULL or valid, and that there are so many positions.
    let (n_out, handle, positions) = unsafe {
        (
            args::out(n_out, 0, "n_out")?,
            args::reference(context, "context")?,
            args::slice(at.positions, at.n_positions, "positions")?,
        )
    };
    let needed = positions.len().saturating_mul(handle.model.config().vocab_size);
    // SAFETY: `n_out` is not NULL (`args::out`), and so valid by the contract.
    unsafe { args::check_room(needed, numbers, capacity, n_out, "numbers")? };
    // SAFETY: the contract says that there is room for `capacity` numbers, and any bytes are an f32.
    let numbers = unsafe { args::room(numbers, capacity, needed)? };
    let numbers = numbers.unwrap_or_default();
    let done = handle.with(|state| how(&mut state.context, at.sequence as usize, positions, numbers));
    if done.is_err() {
        // SAFETY: as above.
        unsafe { n_out.write(0) };
    }
    done
}
