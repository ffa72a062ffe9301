//! Bounds on the likelihood of a text, as means over random orders and times.

use std::ops::{Add, ControlFlow};

use super::likelihood::Scorer;
use crate::error::{Error, Result};
use crate::memory::{collected, filled, reserve, with_room};
use crate::plan::{EPS, order};
use crate::rng::{Purpose, Rng};
use crate::simd::DefaultFloats;

/// Most orders, or draws, of a window.
const MAX_SAMPLES: usize = 1 << 20;

/// A mean over random draws, with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error; NaN for a single draw.
    pub standard_error: f64,
}

impl Estimate {
    /// The mean of independent numbers.
    pub(crate) fn of(sample: &[f64]) -> Self {
        let mean = sample.iter().sum::<f64>() / sample.len() as f64;
        Self::with_squares(mean, sample.iter().map(|v| (v - mean).powi(2)).sum(), sample.len())
    }

    /// The mean of numbers for evenly spaced times, in their order. A trend over time is no error, so the standard
    /// error is computed from the differences of neighbours.
    fn over_times(sample: &[f64]) -> Self {
        let mean = sample.iter().sum::<f64>() / sample.len() as f64;
        let differences = sample.iter().zip(sample.iter().skip(1)).map(|(a, b)| b - a);
        let squares = differences.map(|d| d.powi(2) / 2.0).sum();
        Self::with_squares(mean, squares, sample.len())
    }

    /// `squares` is n - 1 times the variance of one number.
    fn with_squares(mean: f64, squares: f64, n: usize) -> Self {
        let n = n as f64;
        Self { mean, standard_error: (squares / (n - 1.0) / n).sqrt() }
    }
}

impl Add for Estimate {
    type Output = Self;

    /// The sum of two independent estimates.
    fn add(self, other: Self) -> Self {
        let standard_error = self.standard_error.hypot(other.standard_error);
        Self { mean: self.mean + other.mean, standard_error }
    }
}

/// Parameters of [`Context::score_text`](crate::Context::score_text).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreParams {
    /// Number of orders to score each window in; 0 skips this. Without draws there must be one.
    pub orders: usize,
    /// Whether the orders are random; otherwise there is one, left to right.
    pub random_order: bool,
    /// Number of diffusion times to draw for each window's bound; 0 skips this.
    pub draws: usize,
    /// Fraction of diffusion in that bound, 0 to 1. 1 is the diffusion bound (NELBO) alone, the only one of MDLM.
    pub alpha_0: f64,
    /// Seed for orders, times and masks.
    pub seed: u64,
}

impl Default for ScoreParams {
    /// One order, left to right; no diffusion bound.
    fn default() -> Self {
        Self { orders: 1, random_order: false, draws: 0, alpha_0: 1.0, seed: 0 }
    }
}

/// The likelihood of a text: natural logarithms (nats), for the whole text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextScore {
    /// The log-probability of each token, by position, given the tokens that come before it in the first order of its
    /// window; 0 for a token that has to be given ([`Config::given_tokens`](crate::Config::given_tokens)). Empty
    /// without orders.
    pub tokens: Vec<f64>,
    /// The bound -log p(text) <= -log mean over orders of p(text | order), the importance-weighted bound: the
    /// tighter, the more orders. For one order it is the negative sum of `tokens`. Zero without orders.
    pub nll: f64,
    /// The two parts of the bound at alpha_0, -log p(text) <= their sum. Zero without draws.
    pub bound: Bound,
    /// How many tokens have a probability, and so what `nll` is divided by for a mean: all but the first of each window that
    /// have to be given.
    pub scored_tokens: usize,
}

/// A bound on -log p(text), the loss that Eso-LMs are trained on (paper, section 4.1; the reference's `_loss`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bound {
    /// The mean over times t of -alpha'_t / (1 - alpha_t) * sum of -log p(token | those known at t) over the
    /// tokens not known, each known with probability alpha_t = alpha_0 (1 - (1 - eps) t).
    pub diffusion: Estimate,
    /// The mean of -log p(the others, left to right | those known), each token known with probability alpha_0.
    pub sequential: Estimate,
}

impl Bound {
    /// Both parts together.
    pub fn total(&self) -> Estimate {
        self.diffusion + self.sequential
    }
}

impl Scorer<'_> {
    /// See [`Context::score_text`](crate::Context::score_text).
    pub(crate) fn text(
        &mut self,
        tokens: &[u32],
        params: &ScoreParams,
        mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<TextScore> {
        let _floats = DefaultFloats::set();
        if tokens.is_empty() {
            return Err(Error::invalid("a text of no token has no probability"));
        }
        if params.orders == 0 && params.draws == 0 {
            return Err(Error::invalid("neither orders nor draws: nothing to score the text by"));
        }
        if !params.random_order && params.orders > 1 {
            return Err(Error::invalid(format!("{} orders; left to right there is one", params.orders)));
        }
        if !(0.0..=1.0).contains(&params.alpha_0) {
            return Err(Error::invalid(format!("alpha_0 is {}, not in 0..=1", params.alpha_0)));
        }
        if params.draws > 0 && params.alpha_0 != 1.0 && self.runner.model.config().diffusion_only {
            return Err(Error::invalid(format!(
                "alpha_0 is {}: this Eso-LM (A) was trained for the diffusion phase alone, so it has to be 1",
                params.alpha_0
            )));
        }
        if let Some(times) = [params.orders, params.draws].into_iter().find(|&times| times > MAX_SAMPLES) {
            return Err(Error::invalid(format!("{times} orders or draws; at most {MAX_SAMPLES}")));
        }
        self.session.reset();
        let length = self.runner.length;
        let given = self.runner.model.config().given_tokens();
        let all = tokens.len().div_ceil(length);
        let mut score = TextScore::default();
        for (number, window) in tokens.chunks(length).enumerate() {
            score.scored_tokens += window.len().saturating_sub(given);
            if params.orders > 0 {
                score.nll += self.orders(window, params, number, &mut score.tokens)?;
            }
            if params.draws > 0 {
                let Bound { diffusion, sequential } = self.draws(window, params, number)?;
                score.bound.diffusion = score.bound.diffusion + diffusion;
                score.bound.sequential = score.bound.sequential + sequential;
            }
            if progress(number + 1, all).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(score)
    }

    /// The importance-weighted bound of window `number`. Appends the first order's log-probabilities to `by_position`.
    fn orders(
        &mut self,
        window: &[u32],
        params: &ScoreParams,
        number: usize,
        by_position: &mut Vec<f64>,
    ) -> Result<f64> {
        let first = by_position.len();
        reserve(by_position, window.len())?;
        let given = self.runner.model.config().given_tokens().min(window.len());
        by_position.resize(first + window.len(), 0.0);
        let mut sums = with_room(params.orders)?;
        for i in 0..params.orders {
            let mut order = collected(0..window.len() as u32)?;
            if params.random_order {
                let mut rng = Rng::new(params.seed, number * params.orders + i, Purpose::Order);
                order::random(&mut order, window.len(), &mut rng);
            }
            let scores = self.order(window, &order, given)?;
            sums.push(scores.iter().sum::<f64>());
            if i == 0 {
                for (&position, score) in order.iter().skip(given).zip(scores) {
                    let missing = || Error::internal("an order beyond its window");
                    *by_position.get_mut(first + position as usize).ok_or_else(missing)? = score;
                }
            }
        }
        let max = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = sums.iter().map(|s| (s - max).exp()).sum::<f64>() / sums.len() as f64;
        Ok(-(max + mean.ln()))
    }

    /// The bound at alpha_0 of window `number`: evenly spaced times with one random offset.
    fn draws(&mut self, window: &[u32], params: &ScoreParams, number: usize) -> Result<Bound> {
        let &ScoreParams { draws, alpha_0, seed, .. } = params;
        let shift = Rng::new(seed, number, Purpose::Schedule).uniform();
        let (mut diffusion, mut sequential) = (filled(draws, 0.0)?, filled(draws, 0.0)?);
        for (i, (diffusion, sequential)) in diffusion.iter_mut().zip(&mut sequential).enumerate() {
            let stream = 2 * (number * draws + i);
            if alpha_0 > 0.0 {
                let t = (i as f64 + shift) / draws as f64;
                let alpha = alpha_0 * (1.0 - (1.0 - EPS) * t);
                let (order, known) = split(window.len(), alpha, seed, stream);
                let weight = alpha_0 * (1.0 - EPS) / (1.0 - alpha);
                *diffusion = -weight * self.masked(window, &order, known)?.iter().sum::<f64>();
            }
            if alpha_0 < 1.0 {
                let (mut order, known) = split(window.len(), alpha_0, seed, stream + 1);
                if let Some(rest) = order.get_mut(known..) {
                    rest.sort_unstable();
                }
                *sequential = -self.order(window, &order, known)?.iter().sum::<f64>();
            }
        }
        Ok(Bound { diffusion: Estimate::over_times(&diffusion), sequential: Estimate::of(&sequential) })
    }
}

/// Each position is known with probability `alpha`: the known ones in random order, then the others in random order.
fn split(length: usize, alpha: f64, seed: u64, stream: usize) -> (Vec<u32>, usize) {
    let mut rng = Rng::new(seed, stream, Purpose::Order);
    let (mut order, mut rest): (Vec<u32>, Vec<u32>) = (0..length as u32).partition(|_| rng.uniform() < alpha);
    let (known, unknown) = (order.len(), rest.len());
    order::random(&mut order, known, &mut rng);
    order::random(&mut rest, unknown, &mut rng);
    order.append(&mut rest);
    (order, known)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn known_positions_and_orders_are_uniformly_random() {
        // Of 3 tokens, k known ones in any order, then the others in any: 6 ways for each k.
        const DRAWS: usize = 40_000;
        let alpha: f64 = 0.3;
        let mut times: BTreeMap<(Vec<u32>, usize), u32> = BTreeMap::new();
        for stream in 0..DRAWS {
            *times.entry(split(3, alpha, 9, stream)).or_default() += 1;
        }
        assert_eq!(times.len(), 24, "{times:?}");
        for ((order, known), times) in times {
            let orders = [6.0, 2.0, 2.0, 6.0][known];
            let probability = alpha.powi(known as i32) * (1.0 - alpha).powi(3 - known as i32) / orders;
            let expected = probability * DRAWS as f64;
            let deviation = (expected * (1.0 - probability)).sqrt();
            assert!(
                (f64::from(times) - expected).abs() < 5.0 * deviation,
                "{order:?}, {known}: {times}, not {expected}"
            );
        }
    }

    #[test]
    fn standard_error_matches_the_variance_of_draws() {
        // Of independent draws the mean of many estimates' variances is the variance of their means: here of
        // uniform numbers, 1/12/n. Over 4000 estimates 3 % is more than 6 deviations.
        let mut rng = Rng::new(5, 0, Purpose::Token);
        let draws: Vec<[f64; 20]> = (0..4000).map(|_| std::array::from_fn(|_| rng.uniform())).collect();
        for estimate in [Estimate::of, Estimate::over_times] {
            let variance = draws.iter().map(|d| estimate(d).standard_error.powi(2)).sum::<f64>() / 4000.0;
            assert!((variance * 12.0 * 20.0 - 1.0).abs() < 0.03, "{variance}");
            assert!(estimate(&[1.0]).standard_error.is_nan());
        }
        let trend: Vec<f64> = (0..100).map(f64::from).collect();
        assert!(
            Estimate::over_times(&trend).standard_error < 0.1,
            "what changes evenly with time is no error"
        );
        let sum = Estimate { mean: 1.0, standard_error: 3.0 } + Estimate { mean: 2.0, standard_error: 4.0 };
        assert_eq!(sum, Estimate { mean: 3.0, standard_error: 5.0 });
    }
}
