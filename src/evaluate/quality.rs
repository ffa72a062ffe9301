//! What a smaller model file loses, measured beside the one that it was made from.
//!
//! Every model writes the same text, in the same steps, side by side. So each token that one of them gives a
//! probability to, all others do from the same known tokens, and the differences carry none of the noise
//! of orders and texts. The steps are those of generation, so it is generation's kernels and cache that are
//! measured, and the text's negative log-likelihood is the bound that a generation with these steps has.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::windows::spread;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{ContextParams, KvType};
use crate::generate::{GenerateParams, Prompt};
use crate::model::Model;
use crate::sample::{LogitsRow, log_sum};
use crate::score::Estimate;

/// How models are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityOptions {
    /// Tokens of a window; 0 takes the first model's context length.
    pub length: usize,
    /// Most windows of the text, spread over it; 0 takes all.
    pub windows: usize,
    /// As [`GenerateParams::alpha_0`]; `None` is what the first model was trained with.
    pub alpha_0: Option<f64>,
    /// As [`GenerateParams::steps`].
    pub steps: usize,
    /// Chooses orders and schedules.
    pub seed: u64,
    /// CPU threads; 0 takes one per core.
    pub threads: usize,
    /// Precision of the K/V cache.
    pub kv_type: KvType,
}

impl Default for QualityOptions {
    /// 64 windows, whose diffusion takes 32 steps.
    fn default() -> Self {
        let (seed, threads, kv_type) = (0, 0, KvType::default());
        Self { length: 0, windows: 64, alpha_0: None, steps: 32, seed, threads, kv_type }
    }
}

/// How one model writes the text, beside the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Tokens that were written.
    pub tokens: usize,
    /// Negative log-likelihood in nats per token.
    pub nll: f64,
    /// By how much it is above the first model's. The error is that of the windows as a sample of text.
    pub difference: Estimate,
    /// The mean over tokens of the Kullback-Leibler divergence, in nats, of this model's distribution from the first
    /// model's.
    pub divergence: f64,
    /// The divergence that one token in a thousand exceeds.
    pub divergence_999: f64,
    /// The share of tokens where both models' most likely token is the same.
    pub same_top: f64,
    /// Tokens per second of the steps, without that of comparing.
    pub tokens_per_second: f64,
}

/// Has all `models` write the text `tokens`, which is cut into windows that begin with nothing known, and compares
/// them with the first. The last, incomplete window is left out, unless it is the only one. `progress` gets the
/// windows done and all windows, and may stop. Memory: a context of each model, and two numbers for each entry of
/// the vocabulary and each token of the largest step.
///
/// # Errors
/// [`Error::InvalidArgument`] for no models, models of different vocabularies or variants, options and tokens that
/// are not theirs; [`Error::Cancelled`]; those of [`Context::step`].
pub fn compare(
    models: &[Model],
    tokens: &[u32],
    options: &QualityOptions,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Quality>> {
    let config = models.first().ok_or_else(|| Error::invalid("no model to measure"))?.config();
    for model in models {
        let other = model.config();
        let kind = |c: &crate::model::Config| (c.variant, c.vocab_size, c.mask_token_id);
        if kind(other) != kind(config) {
            return Err(Error::invalid(
                "the models are of different kinds: variant, vocabulary or mask differ",
            ));
        }
    }
    let longest = if options.length == 0 { config.context_length } else { options.length };
    let length = longest.min(tokens.len());
    if length == 0 {
        return Err(Error::invalid("a text of no token shows nothing"));
    }
    let windows = spread(tokens, length, options.windows);
    let count = windows.len();
    let (threads, kv_type) = (options.threads, options.kv_type);
    let params = ContextParams { length, threads, kv_type, ..ContextParams::default() };
    let mut writers = Vec::with_capacity(models.len());
    for model in models {
        writers.push(Writer::new(Context::new(model, &params)?));
    }
    let alpha_0 = options.alpha_0.unwrap_or(f64::from(config.train_alpha_0.unwrap_or(1.0)));
    let mut reference = Rows::default();
    for (window, text) in windows.enumerate() {
        let seed = options.seed.wrapping_add(window as u64);
        let params =
            GenerateParams { length, alpha_0, steps: options.steps, seed, ..GenerateParams::default() };
        for writer in &mut writers {
            writer.context.begin(&[Prompt::default()], &params)?;
            writer.nlls.push(0.0);
        }
        loop {
            reference.clear();
            let mut wrote = false;
            for writer in &mut writers {
                wrote = writer.step(text, &mut reference)?;
            }
            if !wrote {
                break;
            }
        }
        if progress(window + 1, count).is_break() {
            return Err(Error::Cancelled);
        }
    }
    let base = writers.first().map(|w| w.nlls.clone()).unwrap_or_default();
    Ok(writers.into_iter().map(|writer| writer.quality(&base, length)).collect())
}

/// The first model's distributions of one step, row by row.
#[derive(Debug, Default)]
struct Rows {
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    log_sums: Vec<f64>,
    tops: Vec<usize>,
}

impl Rows {
    fn clear(&mut self) {
        self.logits.clear();
        self.probabilities.clear();
        self.log_sums.clear();
        self.tops.clear();
    }

    /// Adds a row of logits.
    fn push(&mut self, logits: &[f32], log_sum: f64, top: usize) {
        self.logits.extend_from_slice(logits);
        self.probabilities.extend(logits.iter().map(|&l| (f64::from(l) - log_sum).exp() as f32));
        self.log_sums.push(log_sum);
        self.tops.push(top);
    }

    /// Sum over t of p(t) log(p(t) / q(t)) of row `row`, p, and `logits`, q. `mask` is ruled out in both.
    fn divergence(&self, row: usize, logits: &[f32], log_sum: f64, mask: usize) -> Option<f64> {
        let range = row * logits.len()..(row + 1) * logits.len();
        let (p, theirs) = (self.probabilities.get(range.clone())?, self.logits.get(range)?);
        let terms = p.iter().zip(theirs).zip(logits).enumerate().filter(|&(t, _)| t != mask);
        let sum: f64 = terms.map(|(_, ((&p, &a), &b))| f64::from(p) * (f64::from(a) - f64::from(b))).sum();
        // Rounding may leave something below zero where the two are the same.
        Some((sum - (self.log_sums.get(row)? - log_sum)).max(0.0))
    }
}

/// One model at work.
struct Writer {
    context: Context,
    /// Of each window.
    nlls: Vec<f64>,
    /// Of each token.
    divergences: Vec<f64>,
    same: usize,
    time: Duration,
}

impl Writer {
    fn new(context: Context) -> Self {
        Self { context, nlls: vec![], divergences: vec![], same: 0, time: Duration::ZERO }
    }

    /// Writes the text's tokens of the coming step, and compares what they are drawn from with `reference`, or
    /// fills it where it is empty. Returns false if the text is finished.
    fn step(&mut self, text: &[u32], reference: &mut Rows) -> Result<bool> {
        let Self { context, nlls, divergences, same, time } = self;
        let mask = context.model().config().mask_token_id;
        let first = reference.tops.is_empty();
        let (mut row, mut comparing) = (0, Duration::ZERO);
        let started = Instant::now();
        let wrote = context
            .step_with_tokens(|_, &LogitsRow { position, logits, .. }| {
                let started = Instant::now();
                let missing = || Error::internal("a row of the comparison is missing");
                let token = *text.get(position as usize).ok_or_else(missing)?;
                let log_sum = log_sum(logits, mask)?;
                let top = top(logits, mask as usize);
                if first {
                    reference.push(logits, log_sum, top);
                }
                let chosen =
                    logits.get(token as usize).ok_or_else(|| Error::invalid(format!("no token {token}")))?;
                if let Some(nll) = nlls.last_mut() {
                    *nll += log_sum - f64::from(*chosen);
                }
                divergences
                    .push(reference.divergence(row, logits, log_sum, mask as usize).ok_or_else(missing)?);
                *same += usize::from(reference.tops.get(row) == Some(&top));
                row += 1;
                comparing += started.elapsed();
                Ok(token)
            })?
            .is_some();
        *time += started.elapsed().saturating_sub(comparing);
        Ok(wrote)
    }

    /// What came of it, beside the first model's windows `base` of `length` tokens.
    fn quality(mut self, base: &[f64], length: usize) -> Quality {
        let tokens = self.divergences.len();
        let nll = self.nlls.iter().sum::<f64>() / tokens as f64;
        let differences: Vec<f64> =
            self.nlls.iter().zip(base).map(|(a, b)| (a - b) / length as f64).collect();
        let divergence = self.divergences.iter().sum::<f64>() / tokens as f64;
        let place = (tokens * 999).div_ceil(1000).saturating_sub(1);
        let (_, divergence_999, _) = self.divergences.select_nth_unstable_by(place, f64::total_cmp);
        Quality {
            tokens,
            nll,
            difference: Estimate::of(&differences),
            divergence,
            divergence_999: *divergence_999,
            same_top: self.same as f64 / tokens as f64,
            tokens_per_second: tokens as f64 / self.time.as_secs_f64(),
        }
    }
}

/// The most likely token.
fn top(logits: &[f32], mask: usize) -> usize {
    let others = logits.iter().enumerate().filter(|&(t, _)| t != mask);
    others.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(t, _)| t)
}
