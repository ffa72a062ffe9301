//! The number of tokens that each step writes.

use crate::error::{Error, Result};
use crate::rng::Rng;

/// `eps` of the log-linear noise schedule (reference: `noise.eps`).
pub(crate) const EPS: f64 = 1e-3;

/// The number of tokens that each step of the diffusion phase writes. The sequential phase writes one per step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule<'a> {
    /// As in the reference: random counts drawn from the noise schedule for each sequence, or one row per step with
    /// [`Order::Strided`](crate::Order).
    #[default]
    Reference,
    /// Explicit counts. The last one repeats, so a single number is the count of every step; the final step takes what
    /// is left. The diffusion phase writes alpha_0 of the tokens, rounded down.
    Custom(&'a [u32]),
}

impl Schedule<'_> {
    /// One token in each step.
    pub(crate) const ONE: Self = Self::Custom(&[1]);

    /// Checks that every step writes a token.
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Custom([]) => Err(Error::invalid("a schedule without steps")),
            Self::Custom(counts) => match counts.iter().position(|&count| count == 0) {
                Some(step) => Err(Error::invalid(format!("step {step} of the schedule writes nothing"))),
                None => Ok(()),
            },
            Self::Reference => Ok(()),
        }
    }

    /// Whether an autoregressive model, which has no diffusion phase, can follow the schedule.
    pub(crate) fn is_one_by_one(self) -> bool {
        match self {
            Self::Reference => true,
            Self::Custom(counts) => counts.iter().all(|&count| count == 1),
        }
    }
}

/// The counts, then the last one repeated without end.
pub(crate) fn repeat_last(given: &[u32]) -> impl Iterator<Item = u32> {
    given.iter().chain(given.last().into_iter().cycle()).copied()
}

/// Appends `given` counts until they sum to `diffusion` tokens, the last one cut to fit, and then a 1 for each token
/// of the sequential phase.
pub(crate) fn take(
    given: &mut impl Iterator<Item = u32>,
    diffusion: usize,
    unknown: usize,
    counts: &mut Vec<u32>,
) {
    let mut left = diffusion;
    while left > 0 {
        let count = given.next().unwrap_or(1).min(left as u32);
        counts.push(count);
        left -= count as usize;
    }
    counts.extend(std::iter::repeat_n(1, unknown - diffusion));
}

/// Appends the lengths of the first `steps` rows of a strided order, and then a 1 for each of the other positions.
/// Returns the number of positions in those rows. `positions` is sorted by rows.
///
/// Source: the reference's schedule for `subcontext_len`, where the diffusion phase is whole rows.
pub(crate) fn rows(positions: &[u32], stride: usize, steps: usize, counts: &mut Vec<u32>) -> usize {
    let row = |&position: &u32| position as usize % stride;
    let mut diffusion = 0;
    for row in positions.chunk_by(|a, b| row(a) == row(b)).take(steps) {
        counts.push(row.len() as u32);
        diffusion += row.len();
    }
    counts.extend(std::iter::repeat_n(1, positions.len() - diffusion));
    diffusion
}

/// Draws the number of tokens of each of `steps` (at least one) diffusion steps over `unknown` tokens. Appends the
/// counts that are not zero to `counts`, and then a 1 for each token of the sequential phase: `unknown` numbers at
/// most. Returns the number of tokens that the diffusion phase writes.
///
/// With alpha_t = alpha_0 * (1 - (1 - eps) t), the reference (`_tokens_unmasked_per_step`) draws
/// n ~ Binomial(remaining, (alpha_s - alpha_t) / (1 - alpha_t)) for s = t - 1/T from t = 1 on. Equivalently,
/// each token independently becomes known in step i with probability (alpha_s - alpha_t) / (1 - alpha_1), which is the
/// same for every step since alpha is linear in t, and in no step with the remaining probability. So one uniform
/// number per token gives the same distribution.
pub(crate) fn draw(
    alpha_0: f64,
    steps: usize,
    unknown: usize,
    rng: &mut Rng,
    counts: &mut Vec<u32>,
) -> usize {
    let per_step = alpha_0 * (1.0 - EPS) / steps as f64 / (1.0 - alpha_0 * EPS);
    // `counts` first holds the step of each diffused token, and then, in place, the number of tokens of each step.
    let first = counts.len();
    if per_step > 0.0 {
        for _ in 0..unknown {
            let step = (rng.uniform() / per_step) as usize;
            // At alpha_0 = 1 every token is diffused; without this, rounding could leave one over.
            let step = if alpha_0 == 1.0 { step.min(steps - 1) } else { step };
            if step < steps {
                counts.push(step as u32);
            }
        }
    }
    if let Some(drawn) = counts.get_mut(first..) {
        drawn.sort_unstable();
    }
    let diffusion = counts.len() - first;
    let (mut kept, mut i) = (first, first);
    while let Some(&step) = counts.get(i) {
        let run = counts.iter().skip(i).take_while(|&&s| s == step).count();
        if let Some(slot) = counts.get_mut(kept) {
            *slot = run as u32;
        }
        (kept, i) = (kept + 1, i + run);
    }
    counts.truncate(kept);
    counts.resize(kept + unknown - diffusion, 1);
    diffusion
}

#[cfg(test)]
#[cfg(feature = "convert")]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    /// Standard deviations that a statistic may be off. Two-sided 2e-9; with some 500 statistics the chance
    /// of a false alarm is 1e-6 (and the seeds are fixed).
    const BOUND: f64 = 6.0;
    const DRAWS: usize = 2000;
    /// The length that the reference's probabilities are for.
    const LENGTH: usize = 1024;

    /// The reference's exact mean count of each step.
    fn expected(alpha_0: f64, steps: usize) -> Vec<f64> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedule/schedule.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor(&format!("a{alpha_0}_T{steps}.expected")).unwrap();
        tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    /// The counts of the diffusion phase's steps, draw by draw.
    fn draws(alpha_0: f64, steps: usize) -> Vec<Vec<u32>> {
        let one = |number: usize| {
            let (mut rng, mut counts) = (Rng::new(17, number, Purpose::Schedule), Vec::new());
            let diffusion = draw(alpha_0, steps, LENGTH, &mut rng, &mut counts);
            let sequential = counts.split_off(counts.len() - (LENGTH - diffusion));
            assert!(sequential.iter().all(|&c| c == 1));
            assert_eq!(counts.iter().sum::<u32>() as usize, diffusion);
            assert!(counts.len() <= steps && !counts.contains(&0));
            counts
        };
        (0..DRAWS).map(one).collect()
    }

    /// Checks mean and variance of samples of Binomial(LENGTH, mean / LENGTH).
    fn check_binomial(samples: impl Iterator<Item = f64> + Clone, mean: f64, what: &str) {
        let n = DRAWS as f64;
        let p = mean / LENGTH as f64;
        let variance = mean * (1.0 - p);
        let found = samples.clone().sum::<f64>() / n;
        if variance < 1e-6 {
            assert!((found - mean).abs() < 1e-6, "{what}: {found}, not {mean}");
            return;
        }
        let z = (found - mean) / (variance / n).sqrt();
        assert!(z.abs() < BOUND, "{what}: mean {found}, not {mean}: {z} deviations");
        let spread = samples.map(|s| (s - found).powi(2)).sum::<f64>() / (n - 1.0);
        let excess = (1.0 - 6.0 * p * (1.0 - p)) / variance;
        let z = (spread / variance - 1.0) / (2.0 / (n - 1.0) + excess / n).sqrt();
        assert!(z.abs() < BOUND, "{what}: variance {spread}, not {variance}: {z} deviations");
    }

    /// The probability of `count` successes in [`LENGTH`] trials.
    fn binomial(count: usize, p: f64) -> f64 {
        let choose: f64 = (0..count).map(|i| ((LENGTH - i) as f64 / (i + 1) as f64).ln()).sum();
        (choose + count as f64 * p.ln() + (LENGTH - count) as f64 * (-p).ln_1p()).exp()
    }

    const CASES: [(f64, usize); 9] = [
        (1.0, 8),
        (1.0, 16),
        (1.0, 64),
        (0.5, 8),
        (0.5, 16),
        (0.5, 64),
        (0.125, 8),
        (0.125, 16),
        (0.125, 64),
    ];

    #[test]
    fn diffusion_phase_length_matches_reference_distribution() {
        for (alpha_0, steps) in CASES {
            let totals = draws(alpha_0, steps).into_iter().map(|c| f64::from(c.iter().sum::<u32>()));
            let totals: Vec<f64> = totals.collect();
            let mean = expected(alpha_0, steps).iter().sum();
            check_binomial(totals.iter().copied(), mean, &format!("alpha_0 {alpha_0}, {steps} steps"));
        }
    }

    #[test]
    fn step_sizes_have_reference_mean_and_binomial_variance() {
        let mut checked = 0;
        for (alpha_0, steps) in CASES {
            let expected = expected(alpha_0, steps);
            // Steps without tokens are left out, so steps can be told apart only where there are none.
            if expected.iter().any(|&mean| mean < 30.0) {
                continue;
            }
            let draws = draws(alpha_0, steps);
            assert!(draws.iter().all(|counts| counts.len() == steps));
            for (step, &mean) in expected.iter().enumerate() {
                let samples = draws.iter().map(|counts| f64::from(counts[step]));
                check_binomial(samples, mean, &format!("alpha_0 {alpha_0}, step {step} of {steps}"));
                checked += 1;
            }
        }
        assert_eq!(checked, 8 + 16 + 8 + 16);
    }

    #[test]
    fn step_size_frequencies_match_reference() {
        for (alpha_0, steps) in CASES {
            let expected = expected(alpha_0, steps);
            let draws = draws(alpha_0, steps);
            for size in 1..200 {
                let mean: f64 = expected.iter().map(|e| binomial(size, e / LENGTH as f64)).sum();
                // Enough of them for the normal approximation.
                if mean * (DRAWS as f64) < 50.0 {
                    continue;
                }
                let of_size = |c: &Vec<u32>| c.iter().filter(|&&c| c as usize == size).count() as f64;
                let found: Vec<f64> = draws.iter().map(of_size).collect();
                let n = DRAWS as f64;
                let average = found.iter().sum::<f64>() / n;
                let spread = found.iter().map(|f| (f - average).powi(2)).sum::<f64>() / (n - 1.0);
                let z = (average - mean) / (spread / n).sqrt();
                let what = format!("alpha_0 {alpha_0}, {steps} steps, {size} tokens");
                assert!(z.abs() < BOUND, "{what}: {average} a draw, not {mean}: {z} deviations");
            }
        }
    }
}
