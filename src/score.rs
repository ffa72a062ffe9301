//! Log-probabilities of a text's tokens.
//!
//! An any-order model gives a text a probability for each order of its tokens. [`Context::score_order`] is that, one
//! token at a time; [`Context::score_masked`] is one step of diffusion, all unknown tokens at once. `bound` makes of
//! them what a text is worth.

use crate::config::{Config, Variant};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{Row, Segment};
use crate::plan::Plan;
use crate::sampler::Sampling;

impl Context {
    /// Log-probabilities (natural) of the tokens at `order[known..]`, each given those before it in the order, as
    /// generation one token at a time would have it. `tokens` is the text by position; the first `known` positions of
    /// `order` are given. Ends the context's generation.
    ///
    /// Of Eso-LM (A) that is the sequential phase: what is given sees itself both ways, and what its diffusion phase wrote
    /// one by one is the first of [`Context::score_masked`] for each number of known tokens.
    ///
    /// Source: the reference's `_any_order_ar_loss` and `_reconstruction_loss`, which run all tokens and all masks
    /// in one pass. So does this if the context has as many rows; otherwise some go through at a time, with the same
    /// result.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the order is no permutation of the text's positions, or not left to right in an
    /// autoregressive model; [`Error::Unsupported`] for MDLM, which has no such order; those of [`Context::step`].
    pub fn score_order(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        let model = self.engine.model.clone();
        let config = model.config();
        if config.variant == Variant::Mdlm {
            return Err(Error::Unsupported("MDLM writes in no order; it has a bound (NELBO) only".into()));
        }
        let unknown = order.len().saturating_sub(known);
        let plan = plan(tokens, order, known, vec![1; unknown], 0)?;
        self.begin_planned(&[plan], Sampling::default(), 0)?;
        let rows = self.engine.capacity.rows;
        if rows < 2 || !self.engine.sees_any_slots() {
            return self.score_steps(tokens, order, known);
        }
        self.forget_generation();
        let mut scores = Vec::with_capacity(unknown);
        let text = |slot: usize| order.get(slot).and_then(|&p| Some((p, *tokens.get(p as usize)?)));
        let mut committed = 0;
        let mut pass = std::mem::take(&mut self.session.pass);
        let outcome = (|| {
            while scores.len() < unknown {
                let first = known + scores.len();
                let masks = self.engine.scored_at_once().min(order.len() - first);
                pass.clear();
                let end = match config.variant {
                    // A long beginning goes first. (Where it sees itself both ways, a pass has room for it.)
                    Variant::EsoB if first - committed + 2 * masks > rows => {
                        let end = first.min(committed + rows);
                        fill_blocks(&mut pass, config, &text, committed, known, end, 0)
                    }
                    Variant::Ar if first - committed + masks > rows => {
                        fill_next(&mut pass, config, &text, committed, first.min(committed + rows), 0)
                    }
                    Variant::Ar => fill_next(&mut pass, config, &text, committed, first + masks, masks),
                    _ => fill_blocks(&mut pass, config, &text, committed, known, first, masks),
                };
                let logits = self.engine.run(&pass)?.logits;
                for (i, logits) in logits.chunks_exact(config.vocab_size).enumerate() {
                    let (_, token) = text(first + i).ok_or_else(|| Error::internal("a token is missing"))?;
                    scores.push(log_probability(logits, token, config.mask_token_id)?);
                }
                committed = end;
            }
            Ok(())
        })();
        self.session.pass = pass;
        outcome.map(|()| scores)
    }

    /// Log-probabilities (natural) of the tokens at `order[known..]`, all unknown, given the first `known`: one step of
    /// diffusion. Ends the context's generation.
    ///
    /// # Errors
    /// As [`Context::score_order`]; [`Error::Unsupported`] for an autoregressive model.
    pub fn score_masked(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        if self.model().config().variant == Variant::Ar {
            return Err(Error::Unsupported("an autoregressive model does not diffuse".into()));
        }
        let unknown = order.len().saturating_sub(known);
        if unknown == 0 {
            return Ok(vec![]);
        }
        let plan = plan(tokens, order, known, vec![unknown as u32], unknown)?;
        self.begin_planned(&[plan], Sampling::default(), 0)?;
        self.score_steps(tokens, order, known)
    }

    /// Runs the steps of a plan, taking the text's tokens.
    fn score_steps(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        let mask = self.model().config().mask_token_id;
        let mut by_position = vec![0.0; tokens.len()];
        while self
            .step_choosing(|_, choice| {
                let position = choice.position as usize;
                let token = *tokens.get(position).ok_or_else(|| Error::internal("a token is missing"))?;
                if let Some(score) = by_position.get_mut(position) {
                    *score = log_probability(choice.logits, token, mask)?;
                }
                Ok(token)
            })?
            .is_some()
        {}
        Ok(order.iter().skip(known).filter_map(|&p| by_position.get(p as usize).copied()).collect())
    }
}

fn plan(tokens: &[u32], order: &[u32], known: usize, counts: Vec<u32>, diffusion: usize) -> Result<Plan> {
    if order.len() != tokens.len() || known > order.len() {
        return Err(Error::invalid("an order must name every position once"));
    }
    let token = |&p: &u32| {
        let token = tokens.get(p as usize).copied();
        token.ok_or_else(|| Error::invalid(format!("the order names position {p}, beyond the text")))
    };
    let known = order.iter().take(known).map(token).collect::<Result<_>>()?;
    Ok(Plan { known, order: order.to_vec(), counts, diffusion })
}

/// The known tokens and those that the masks stand for, and then the masks, each of which sees what is before it in the
/// order and itself. Returns the slot up to which keys and values are final then.
fn fill_blocks(
    pass: &mut crate::forward::Pass,
    config: &Config,
    text: &impl Fn(usize) -> Option<(u32, u32)>,
    committed: usize,
    known: usize,
    first: usize,
    masks: usize,
) -> usize {
    // The last mask's token is seen by none of these masks, but by the next ones.
    let end = first + masks;
    let segment = |first_row, first_slot| Segment { sequence: 0, first_row, rows: 0, first_slot, outputs: 0 };
    pass.segments.push(segment(0, committed));
    for slot in committed..end {
        let both_ways = config.variant == Variant::EsoA && slot < known;
        let sees = if both_ways { known } else { slot + 1 } as u32;
        let Some((position, token)) = text(slot) else { continue };
        pass.push(Row { token, position, output: false, sees, and_itself: false });
    }
    if masks > 0 {
        pass.segments.push(segment(pass.tokens.len(), end));
    }
    for slot in first..end {
        let Some((position, _)) = text(slot) else { continue };
        let token = config.mask_token_id;
        pass.push(Row { token, position, output: true, sees: slot as u32, and_itself: true });
    }
    end
}

/// Autoregression: each row is a token and says what the next one is.
fn fill_next(
    pass: &mut crate::forward::Pass,
    config: &Config,
    text: &impl Fn(usize) -> Option<(u32, u32)>,
    committed: usize,
    end: usize,
    outputs: usize,
) -> usize {
    pass.segments.push(Segment { sequence: 0, first_row: 0, rows: 0, first_slot: committed, outputs: 0 });
    for slot in committed..end {
        let before = slot.checked_sub(1).and_then(text).map(|(_, token)| token);
        let token = before.unwrap_or(config.first_token_id());
        let (position, output, sees) = (slot as u32, slot + outputs >= end, slot as u32 + 1);
        pass.push(Row { token, position, output, sees, and_itself: false });
    }
    end
}

/// log softmax(logits)[token] with the mask ruled out.
pub(crate) fn log_probability(logits: &[f32], token: u32, mask: u32) -> Result<f64> {
    match logits.get(token as usize) {
        Some(&logit) if token != mask => Ok(f64::from(logit) - log_sum(logits, mask)?),
        _ => Err(Error::invalid(format!("there is no token {token}"))),
    }
}

/// log sum exp(logits) without the mask's.
///
/// # Errors
/// [`Error::NotFinite`].
pub(crate) fn log_sum(logits: &[f32], mask: u32) -> Result<f64> {
    let others = logits.iter().enumerate().filter(|&(t, _)| t != mask as usize).map(|(_, &l)| f64::from(l));
    let most = others.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others.map(|l| (l - most).exp()).sum();
    match sum.is_finite() {
        true => Ok(most + sum.ln()),
        false => Err(Error::NotFinite("the network produced numbers that are not finite".into())),
    }
}
