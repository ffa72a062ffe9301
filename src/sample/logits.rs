//! A row of logits: its largest entry, log-probabilities, and the check for NaN and infinity. Only that check includes the
//! mask token.

use crate::error::{Error, Result};
use crate::simd::wide;

/// A row of logits that a token is about to be sampled from.
#[derive(Debug, Clone, Copy)]
pub struct LogitsRow<'a> {
    /// The sequence, by index.
    pub sequence: usize,
    /// The slot: place in generation order.
    pub slot: usize,
    /// Position in the text.
    pub position: u32,
    /// The network's logits, `[V]`. Minus infinity (a model's output bias may hold it) excludes a token; NaN and infinity
    /// end the step with [`Error::NotFinite`] when the token is sampled.
    pub logits: &'a [f32],
}

/// A token and its log-probability (natural).
#[repr(C)] // The C boundary hands these out as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogProb {
    /// The token.
    pub token: u32,
    /// log softmax of the network's logits without the mask token's.
    pub log_prob: f32,
}

/// All logits but the mask's: those before it and those after it.
pub(crate) fn without_mask(logits: &[f32], mask: u32) -> [&[f32]; 2] {
    let (before, rest) = logits.split_at(logits.len().min(mask as usize));
    [before, rest.get(1..).unwrap_or_default()]
}

/// The most likely token but the mask, the first of them if several are.
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::Internal`] if there are no logits.
pub(crate) fn argmax(logits: &[f32], mask: u32) -> Result<u32> {
    if has_nan_or_infinity(logits) {
        return Err(Error::logits_not_finite());
    }
    let max = largest(logits, mask);
    let [before, after] = without_mask(logits, mask);
    let token = first_place(before, max).or_else(|| Some(before.len() + 1 + first_place(after, max)?));
    token.map(|token| token as u32).ok_or_else(|| Error::internal("no logits"))
}

/// The largest logit but the mask's; minus infinity if there is none. NaN is passed over.
pub(crate) fn largest(logits: &[f32], mask: u32) -> f32 {
    let [before, after] = without_mask(logits, mask);
    largest_of(before).max(largest_of(after))
}

/// Logits that `first_place` compares per branch.
const STRIDE: usize = 64;

wide! {
    fn largest_of<V>(values: &[f32]) -> f32 {
        let (eights, rest) = values.as_chunks();
        let all = eights.iter().fold(V::splat(f32::NEG_INFINITY), |m, x| V::load(x).max(m));
        rest.iter().fold(all.largest(), |m, &x| if x > m { x } else { m })
    }
}

/// The index of the first number that equals `value`.
fn first_place(values: &[f32], value: f32) -> Option<usize> {
    let run = values.chunks(STRIDE).position(|run| run.iter().fold(false, |any, &x| any | (x == value)))?;
    let within = values.iter().skip(run * STRIDE).position(|&x| x == value)?;
    Some(run * STRIDE + within)
}

/// Whether any logit is NaN or infinity. (Minus infinity is a token that is ruled out.) Without a branch per number, so
/// that it takes vectors.
pub(crate) fn has_nan_or_infinity(logits: &[f32]) -> bool {
    const INFINITY: i32 = f32::INFINITY.to_bits() as i32;
    // Compared as integers: valgrind takes vector comparisons that NaN fails for others, however they are written.
    let is_bad = |x: f32| (x.abs().to_bits() as i32 > INFINITY) | (x.to_bits() as i32 == INFINITY);
    logits.iter().fold(false, |any, &x| any | is_bad(x))
}

/// log softmax(logits)[token] without the mask.
///
/// # Errors
/// [`Error::InvalidArgument`] for the mask or a token outside the vocabulary; [`Error::NotFinite`].
pub(crate) fn log_probability(logits: &[f32], token: u32, mask: u32) -> Result<f64> {
    match logits.get(token as usize) {
        Some(&logit) if token != mask => Ok(f64::from(logit) - log_sum(logits, mask)?),
        _ => Err(Error::invalid(format!("there is no token {token}"))),
    }
}

/// Appends the `count` most likely tokens but the mask to `to`, the likeliest first. `log_sum` is [`log_sum`] of the logits,
/// `order` is memory for one entry per token.
pub(crate) fn most_likely(
    logits: &[f32],
    mask: u32,
    log_sum: f64,
    count: usize,
    order: &mut Vec<(f32, u32)>,
    to: &mut Vec<TokenLogProb>,
) {
    let likelier = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    order.clear();
    order.extend(
        logits.iter().zip(0..).filter(|&(_, token)| token != mask).map(|(&logit, token)| (logit, token)),
    );
    if count < order.len() {
        order.select_nth_unstable_by(count, likelier);
        order.truncate(count);
    }
    order.sort_unstable_by(likelier);
    let log_prob = |logit: f32| (f64::from(logit) - log_sum) as f32;
    to.extend(order.iter().map(|&(logit, token)| TokenLogProb { token, log_prob: log_prob(logit) }));
}

/// log sum exp(logits) without the mask's.
///
/// # Errors
/// [`Error::NotFinite`].
pub(crate) fn log_sum(logits: &[f32], mask: u32) -> Result<f64> {
    let others = without_mask(logits, mask).into_iter().flatten().map(|&l| f64::from(l));
    let most = others.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others.map(|l| (l - most).exp()).sum();
    if sum.is_finite() { Ok(most + sum.ln()) } else { Err(Error::logits_not_finite()) }
}
