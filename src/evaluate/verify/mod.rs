//! Replaying the reference's outputs: the same tokens, order, schedule and noise, compared logit by logit.
//!
//! `golden` reads a file of outputs of the authors' implementation, `cases` makes cases of it, and this module runs them.

mod cases;
mod golden;

use std::path::Path;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{ContextParams, ThreadPool};
use crate::memory::{FileBytes, push};
use crate::model::{Model, Variant};
use cases::Case;
use golden::Golden;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The name of the outputs in the file.
    pub name: String,
    /// Whether tokens are sampled with the reference's noise; otherwise they are the most likely ones.
    pub sampled: bool,
    /// Steps run.
    pub steps: usize,
    /// Rows of logits compared.
    pub rows: usize,
    /// Largest absolute difference between a logit and the reference's; NaN if one is NaN.
    pub largest_difference: f32,
    /// Tokens compared.
    pub tokens: usize,
    /// Tokens that differ from the reference's.
    pub differing: usize,
}

/// Replays what the golden file at `path` has for models of this variant. Each step continues from the reference's tokens,
/// so that one difference does not cause others.
///
/// A golden file is a safetensors file of outputs of the authors' implementation, for B texts of L tokens with a vocabulary
/// of V. The logits may be those of the first slots only, S of them:
///
/// * A trajectory `NAME` has `NAME.logits` \[B, S, V\], in generation order, and `NAME.tokens` \[B, L\], in text order.
///   `NAME.sort_idx` \[B, L\] is the order (default: left to right), `NAME.sched` the tokens per step (default: one), and
///   `NAME.u` \[B, S, V\] the uniform numbers of Gumbel-max sampling (default: greedy); with these the logits may be
///   missing. `golden.json` beside the file has of a sampled one the nucleus (top-p) limit as `NAME.p_nucleus`, where the
///   first tokens are given their number as `NAME.prompt_len`, and for Eso-LM (A) `NAME.num_diffusion_tokens`. The tokens of
///   an autoregressive model may begin with the one before the text.
/// * Eso-LM: `NAME.logits`, `NAME.zt`, `NAME.sort_idx` and `NAME.num_clean` \[B\] are a diffusion step of texts whose first
///   `num_clean` slots are known; with `NAME.x0` the sequential phase that writes it.
/// * MDLM: `logits` of the texts `x`. AR: `logits` or `logits_cached` of the texts `prefix`, `logits_mask` of `prefix_mask`.
///
/// `params` say how it is computed (threads, kernels, K/V type; the file says how many texts of which length), by the threads
/// of `pool` if there is one.
///
/// # Errors
/// [`Error::Io`]; [`Error::BadFile`] if the file is damaged, has nothing for this variant, or something that does not fit the
/// model; [`Error::Unsupported`] for WeDLM and BD3-LM; those of [`Context::step`].
pub fn verify(
    model: &Model,
    path: &Path,
    params: &ContextParams,
    pool: Option<&ThreadPool>,
) -> Result<Vec<Outcome>> {
    if let variant @ (Variant::WeDlm | Variant::Bd3Lm) = model.config().variant {
        let name = variant.name();
        return Err(Error::Unsupported(format!(
            "variant '{name}': outputs of its authors' code are not replayed (the library's tests compare them)"
        )));
    }
    let bytes = FileBytes::read(path, &|_| Ok(()))?;
    let golden = Golden::parse(bytes.bytes(), path)?;
    let mut outcomes = Vec::new();
    for name in golden.names(model.config())? {
        let case = golden.case(&name, model.config())?;
        push(&mut outcomes, replay(&case, model, params, pool)?)?;
    }
    if outcomes.iter().all(|outcome| outcome.rows + outcome.tokens == 0) {
        return Err(Error::bad_file(
            path.display().to_string(),
            "there is no row of logits and no token to compare",
        ));
    }
    Ok(outcomes)
}

/// The names of outputs in the golden file at `path` that [`verify`] does not replay with this model: such as steps of MDLM with noise of
/// their own, scores, and what is of other variants.
///
/// # Errors
/// Those of [`verify`] that the file causes.
pub fn left_out(model: &Model, path: &Path) -> Result<Vec<String>> {
    let bytes = FileBytes::read(path, &|_| Ok(()))?;
    Golden::parse(bytes.bytes(), path)?.left_out(model.config())
}

/// Runs a case and compares.
fn replay(case: &Case, model: &Model, params: &ContextParams, pool: Option<&ThreadPool>) -> Result<Outcome> {
    let vocab = model.config().vocab_size;
    let length = case.plans.first().map_or(0, |plan| plan.order.len());
    let mut outcome = Outcome {
        name: case.name.clone(),
        sampled: case.noise.is_some(),
        steps: 0,
        rows: 0,
        largest_difference: 0.0,
        tokens: 0,
        differing: 0,
    };
    let sequences = if case.together { case.plans.len() } else { 1 };
    let params = ContextParams { sequences, length, ..*params };
    let mut context = Context::in_pool(model, &params, pool)?;
    for (group, plans) in case.plans.chunks(sequences).enumerate() {
        context.begin_with_plans(plans, case.sampling, 0)?;
        while context
            .step_with_tokens(|sampler, choice| {
                let missing = || Error::internal(format!("{} has no such row", case.name));
                let text = group * sequences + choice.sequence;
                let place = case.place(text, choice.position).ok_or_else(missing)?;
                if let Some(expected) = case.logits.row(text, place, vocab) {
                    outcome.rows += 1;
                    for (a, b) in choice.logits.iter().zip(expected) {
                        let difference = (a - b).abs();
                        if difference > outcome.largest_difference || difference.is_nan() {
                            outcome.largest_difference = difference;
                        }
                    }
                }
                let reference = case.token(text, choice.position).ok_or_else(missing)?;
                let own = match &case.noise {
                    _ if place < case.given => return Ok(reference),
                    Some(noise) => match noise.row(text, place, vocab) {
                        Some(uniforms) => sampler.draw_gumbel(choice.logits, &case.sampling, uniforms)?,
                        None => return Ok(reference),
                    },
                    None => sampler.draw(choice.logits, &case.sampling, 0.0)?,
                };
                outcome.tokens += 1;
                outcome.differing += usize::from(own != reference);
                Ok(reference)
            })?
            .is_some()
        {
            outcome.steps += 1;
        }
    }
    Ok(outcome)
}
