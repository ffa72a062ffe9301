//! How much quality a quantized model file loses, compared with the file that it was made from.
//!
//! All models are given the same text, order and schedule, and each step writes the text's own tokens. So every model
//! computes the distribution of each token from the same known tokens, and the differences do not contain the noise of
//! orders and texts. The steps are those of generation: what is measured includes its kernels and K/V cache, and the
//! negative log-likelihood is the one of a generation with these steps.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::windows::{spread, window_length};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{ContextParams, KvType, ThreadPool};
use crate::generate::{GenerateParams, Prompt};
use crate::memory::{collected, extend, push, try_collected};
use crate::model::{Model, Variant};
use crate::sample::{LogitsRow, argmax, log_sum};
use crate::score::Estimate;
use crate::simd::DefaultFloats;

/// How models are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityOptions {
    /// Tokens of a window; 0 uses the first model's context length.
    pub length: usize,
    /// Most windows to use, spread evenly over the text; 0 uses all.
    pub windows: usize,
    /// As [`GenerateParams::alpha_0`]; `None` is what the first model was trained with, or 1 if its file does not say. WeDLM is compared
    /// one by one, and has 0.
    pub alpha_0: Option<f64>,
    /// As [`GenerateParams::steps`].
    pub steps: usize,
    /// Seed of orders and schedules.
    pub seed: u64,
    /// CPU threads; 0 uses one per core.
    pub threads: usize,
    /// Type of the K/V cache.
    pub kv_type: KvType,
}

impl Default for QualityOptions {
    /// 64 windows, with 32 steps of diffusion each.
    fn default() -> Self {
        let (seed, threads, kv_type) = (0, 0, KvType::default());
        Self { length: 0, windows: 64, alpha_0: None, steps: 32, seed, threads, kv_type }
    }
}

/// One model's results, compared with the first model's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Number of tokens.
    pub tokens: usize,
    /// Negative log-likelihood in nats per token.
    pub nll: f64,
    /// The mean over windows of `nll` less the first model's, in nats per token. The standard error takes the windows as
    /// a sample of text.
    pub difference: Estimate,
    /// The mean over tokens of the Kullback-Leibler divergence D(P || Q), in nats: P is the first model's distribution, Q
    /// this model's.
    pub divergence: f64,
    /// The 99.9th percentile of the divergence, in nats.
    pub divergence_999: f64,
    /// The fraction of tokens, 0 to 1, for which both models' most likely token is the same.
    pub same_top: f64,
    /// Tokens per second of the steps alone, without the comparison.
    pub tokens_per_second: f64,
}

/// Compares `models` with the first of them on the text `tokens`. The text is cut into windows, each generated without a
/// prompt; an incomplete last window is dropped, unless it is the only one. The models compute in turns, with the threads of
/// `pool` if there is one. `progress` is called with the windows done and the number of windows; `Break` cancels. Memory: a
/// context of each model, and two f32 values for each entry of the vocabulary and each token of the largest step.
///
/// # Errors
/// [`Error::InvalidArgument`] if `models` is empty, their vocabularies or variants differ, or options or tokens do not
/// fit them; [`Error::Cancelled`]; those of [`Context::step`].
pub fn compare(
    models: &[Model],
    tokens: &[u32],
    options: &QualityOptions,
    pool: Option<&ThreadPool>,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Quality>> {
    let _floats = DefaultFloats::set();
    let config = models.first().ok_or_else(|| Error::invalid("there is no model to compare"))?.config();
    for model in models {
        let other = model.config();
        let first = |c: &crate::model::Config| (c.needs_first_token, c.prepend_token_id);
        let kind = |c: &crate::model::Config| (c.variant, c.vocab_size, c.mask_token_id, first(c));
        if kind(other) != kind(config) {
            return Err(Error::invalid(
                "the models cannot be compared: variant, vocabulary, mask or what stands before a text differ",
            ));
        }
    }
    let length = window_length(options.length, config)?.min(tokens.len());
    if length <= config.given_tokens() {
        return Err(Error::invalid("the text has no tokens that the model writes"));
    }
    let windows = spread(tokens, length, options.windows);
    let count = windows.len();
    let (threads, kv_type) = (options.threads, options.kv_type);
    let params = ContextParams { length, threads, kv_type, ..ContextParams::default() };
    let runs = models.iter().map(|model| Context::in_pool(model, &params, pool).map(Run::new));
    let mut runs: Vec<Run> = try_collected(runs)?;
    let trained = config.train_alpha_0.filter(|_| config.has_sequential_phase());
    // What a window proposes and does not keep is no part of the text: one by one.
    let (alpha_0, steps) = match config.variant {
        Variant::WeDlm if options.alpha_0.is_some_and(|alpha_0| alpha_0 != 0.0) => {
            return Err(Error::invalid("models of variant WeDLM are compared one by one: alpha_0 is 0"));
        }
        Variant::WeDlm => (0.0, 0),
        _ => (options.alpha_0.unwrap_or(f64::from(trained.unwrap_or(1.0))), options.steps),
    };
    let mut reference = Rows::default();
    for (window, text) in windows.enumerate() {
        let seed = options.seed.wrapping_add(window as u64);
        let params =
            GenerateParams { length, alpha_0, steps, seed, ignore_eos: true, ..GenerateParams::default() };
        let given = text.get(..config.given_tokens()).ok_or_else(|| Error::internal("an empty window"))?;
        for run in &mut runs {
            run.context.begin(&[Prompt::prefix(given)?], &params)?;
            push(&mut run.nlls, 0.0)?;
        }
        loop {
            reference.clear();
            let mut wrote = false;
            for run in &mut runs {
                wrote = run.step(text, &mut reference)?;
            }
            if !wrote {
                break;
            }
        }
        if progress(window + 1, count).is_break() {
            return Err(Error::Cancelled);
        }
    }
    let base = runs.first().ok_or_else(|| Error::internal("no model"))?;
    let base: Vec<f64> = collected(base.nlls.iter().copied())?;
    let written = length - config.given_tokens();
    try_collected(runs.into_iter().map(|run| run.quality(&base, written)))
}

/// The first model's distributions in one step, one row per token.
#[derive(Debug, Default)]
struct Rows {
    /// [rows, V]
    logits: Vec<f32>,
    /// [rows, V]
    probabilities: Vec<f32>,
    /// log sum exp of each row.
    log_sums: Vec<f64>,
    /// The most likely token of each row.
    tops: Vec<u32>,
}

impl Rows {
    fn clear(&mut self) {
        self.logits.clear();
        self.probabilities.clear();
        self.log_sums.clear();
        self.tops.clear();
    }

    /// Adds a row of logits.
    fn push(&mut self, logits: &[f32], log_sum: f64, top: u32) -> Result<()> {
        extend(&mut self.logits, logits)?;
        let start = self.probabilities.len();
        extend(&mut self.probabilities, logits)?;
        let probability = |logit: &mut f32| *logit = (f64::from(*logit) - log_sum).exp() as f32;
        self.probabilities.iter_mut().skip(start).for_each(probability);
        push(&mut self.log_sums, log_sum)?;
        push(&mut self.tops, top)
    }

    /// The sum over tokens t of p(t) log(p(t) / q(t)): p is the distribution of row `row`, q that of `logits`, both
    /// without the mask. `None` if there is no such row.
    fn divergence(&self, row: usize, logits: &[f32], log_sum: f64, mask: u32) -> Option<f64> {
        let range = row * logits.len()..(row + 1) * logits.len();
        let (p, theirs) = (self.probabilities.get(range.clone())?, self.logits.get(range)?);
        // A term with p(t) = 0 is zero, also where logits are minus infinity.
        let counts = |&(t, ((&p, _), _)): &(usize, ((&f32, _), _))| t != mask as usize && p > 0.0;
        let terms = p.iter().zip(theirs).zip(logits).enumerate().filter(counts);
        let sum: f64 = terms.map(|(_, ((&p, &a), &b))| f64::from(p) * (f64::from(a) - f64::from(b))).sum();
        // Rounding may give a negative number if the two are the same.
        Some((sum - (self.log_sums.get(row)? - log_sum)).max(0.0))
    }
}

/// One model's run and its sums so far.
struct Run {
    context: Context,
    /// Negative log-likelihood of each window, in nats.
    nlls: Vec<f64>,
    /// Divergence of each token, in nats.
    divergences: Vec<f64>,
    /// Tokens whose most likely token is the first model's.
    same: usize,
    /// Time of the steps.
    time: Duration,
}

impl Run {
    fn new(context: Context) -> Self {
        Self { context, nlls: vec![], divergences: vec![], same: 0, time: Duration::ZERO }
    }

    /// Runs one step with the text's tokens and compares their distributions with `reference`, or fills it if it is empty
    /// (the first model). Returns false if the text is complete.
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
                let top = argmax(logits, mask)?;
                if first {
                    reference.push(logits, log_sum, top)?;
                }
                let chosen =
                    logits.get(token as usize).ok_or_else(|| Error::invalid(format!("no token {token}")))?;
                *nlls.last_mut().ok_or_else(missing)? += log_sum - f64::from(*chosen);
                push(divergences, reference.divergence(row, logits, log_sum, mask).ok_or_else(missing)?)?;
                *same += usize::from(reference.tops.get(row) == Some(&top));
                row += 1;
                comparing += started.elapsed();
                Ok(token)
            })?
            .is_some();
        *time += started.elapsed().saturating_sub(comparing);
        Ok(wrote)
    }

    /// The results. `base` is the first model's negative log-likelihood of each window, `written` how many tokens of one are written.
    fn quality(mut self, base: &[f64], written: usize) -> Result<Quality> {
        let tokens = self.divergences.len();
        let nll = self.nlls.iter().sum::<f64>() / tokens as f64;
        let differences: Vec<f64> =
            collected(self.nlls.iter().zip(base).map(|(a, b)| (a - b) / written as f64))?;
        let divergence = self.divergences.iter().sum::<f64>() / tokens as f64;
        let place = (tokens * 999).div_ceil(1000).saturating_sub(1);
        let (_, divergence_999, _) = self.divergences.select_nth_unstable_by(place, f64::total_cmp);
        Ok(Quality {
            tokens,
            nll,
            difference: Estimate::of(&differences),
            divergence,
            divergence_999: *divergence_999,
            same_top: self.same as f64 / tokens as f64,
            tokens_per_second: tokens as f64 / self.time.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_both_models_exclude_does_not_hide_the_divergence() {
        let p = [0.0, 1.0, f32::NEG_INFINITY, 9.0];
        let q = [1.0, 0.0, f32::NEG_INFINITY, 0.0];
        let mut rows = Rows::default();
        rows.push(&p, log_sum(&p, 3).unwrap(), 1).unwrap();
        let divergence = |q: &[f32]| rows.divergence(0, q, log_sum(q, 3).unwrap(), 3).unwrap();
        let expected = (1.0 - 1.0 / 1.0f64.exp()) / (1.0 + 1.0 / 1.0f64.exp());
        assert!((divergence(&q) - expected).abs() < 1e-6, "{}", divergence(&q));
        assert!(divergence(&p) < 1e-6);
        assert_eq!(rows.divergence(1, &q, 0.0, 3), None);
    }
}
