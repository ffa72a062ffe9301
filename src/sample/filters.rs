//! Filters of the sampler but top-p: top-n-sigma, top-k, locally typical sampling and min-p, as llama.cpp defines them. Each
//! sets the weights of the tokens that it leaves out to 0, and leaves at least one.

use super::logits::without_mask;

/// Top-n-sigma (arXiv 2411.07641): keeps the tokens whose logit is at most `n` standard deviations of all logits below the
/// largest. Tokens that are ruled out count neither for the deviation nor for the largest.
pub(super) fn keep_top_n_sigma(weights: &mut [f32], logits: &[f32], mask: u32, n: f32) {
    let possible = || {
        let all = without_mask(logits, mask).into_iter().flatten();
        all.filter(|logit| logit.is_finite()).map(|&logit| f64::from(logit))
    };
    let (count, sum) = possible().fold((0.0, 0.0), |(count, sum), logit| (count + 1.0, sum + logit));
    let mean = sum / count;
    let variance = possible().map(|logit| (logit - mean).powi(2)).sum::<f64>() / count;
    let least = possible().fold(f64::NEG_INFINITY, f64::max) - f64::from(n) * variance.sqrt();
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        if f64::from(logit) < least {
            *weight = 0.0;
        }
    }
}

/// Top-k: keeps the `k` largest weights and what ties with the last (reference: `logits < topk(logits, k)[-1]`). `sorted` is
/// memory for that.
pub(super) fn keep_top_k(weights: &mut [f32], sorted: &mut Vec<f32>, k: usize) {
    if !(1..weights.len()).contains(&k) {
        return;
    }
    sorted.clear();
    sorted.extend_from_slice(weights);
    let (_, &mut smallest, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    for weight in weights {
        if *weight < smallest {
            *weight = 0.0;
        }
    }
}

/// Locally typical sampling (arXiv 2202.00666): of the tokens ordered by how far their information content -log p is from
/// its mean, the entropy, keeps the first whose probabilities sum to more than `p`. `order` is memory for that.
pub(super) fn keep_typical(weights: &mut [f32], order: &mut Vec<(f32, u32)>, p: f32) {
    let kept = || weights.iter().filter(|&&weight| weight > 0.0).map(|&weight| f64::from(weight));
    let total: f64 = kept().sum();
    // With p = w / total, -log p - entropy is the mean of log w minus log w.
    let mean = kept().map(|weight| weight * weight.ln()).sum::<f64>() / total;
    order.clear();
    let possible = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    order.extend(possible.map(|(t, &weight)| ((mean - f64::from(weight).ln()).abs() as f32, t as u32)));
    let limit = f64::from(p) * total;
    let mass = |tokens: &[(f32, u32)]| {
        let weight = |&(_, token): &(f32, u32)| weights.get(token as usize).map_or(0.0, |&w| f64::from(w));
        tokens.iter().map(weight).sum::<f64>()
    };
    // Instead of sorting: halves the tokens among which the sum passes the limit, until one is left, which is kept.
    let (mut before, mut first, mut count) = (0.0, 0, order.len());
    while count > 1 {
        let Some(rest) = order.get_mut(first..first + count) else { return };
        let half = count / 2;
        let (nearer, ..) = rest.select_nth_unstable_by(half, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let nearer = before + mass(nearer);
        if nearer > limit {
            count = half;
        } else {
            (before, first, count) = (nearer, first + half, count - half);
        }
    }
    for &(_, token) in order.iter().skip(first + 1) {
        if let Some(weight) = weights.get_mut(token as usize) {
            *weight = 0.0;
        }
    }
}

/// Min-p (arXiv 2407.01082): keeps the tokens whose probability is at least `p` times that of the most likely one.
pub(super) fn keep_min_p(weights: &mut [f32], p: f32) {
    let least = weights.iter().fold(0.0, |most: f32, &weight| most.max(weight)) * p;
    for weight in weights {
        if *weight < least {
            *weight = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::SamplingParams;
    use super::super::sampler::Sampler;
    use crate::rng::{Purpose, Rng};

    const VOCAB: usize = 997;
    const MASK: usize = 400;

    /// The tokens that the definitions keep: a sorted list, in f64. `near` is how close to a limit a token was.
    struct Definition {
        kept: Vec<usize>,
        near: f64,
    }

    fn probabilities(logits: &[f32], among: &[usize]) -> Vec<f64> {
        let most = among.iter().map(|&t| f64::from(logits[t])).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = among.iter().map(|&t| (f64::from(logits[t]) - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    fn min_p(logits: &[f32], among: &[usize], p: f64) -> Definition {
        let all = probabilities(logits, among);
        let most = all.iter().cloned().fold(0.0, f64::max);
        let kept = among.iter().zip(&all).filter(|(_, q)| **q >= p * most).map(|(&t, _)| t).collect();
        let near = all.iter().map(|q| (q / (p * most) - 1.0).abs()).fold(f64::MAX, f64::min);
        Definition { kept, near }
    }

    fn typical(logits: &[f32], among: &[usize], p: f64) -> Definition {
        let all = probabilities(logits, among);
        let entropy: f64 = -all.iter().filter(|q| **q > 0.0).map(|q| q * q.ln()).sum::<f64>();
        let mut order: Vec<(f64, usize, f64)> =
            among.iter().zip(&all).map(|(&t, &q)| ((-q.ln() - entropy).abs(), t, q)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (mut sum, mut near, mut kept) = (0.0, f64::MAX, vec![]);
        for (i, &(distance, token, q)) in order.iter().enumerate() {
            kept.push(token);
            sum += q;
            near = f64::min(near, (sum - p).abs());
            if sum > p {
                // The next one may be as near.
                near = near.min(order.get(i + 1).map_or(f64::MAX, |next| next.0 - distance));
                break;
            }
        }
        kept.sort_unstable();
        Definition { kept, near }
    }

    fn top_n_sigma(logits: &[f32], n: f64) -> Definition {
        let all: Vec<f64> = (0..VOCAB)
            .filter(|&t| t != MASK && logits[t] > f32::NEG_INFINITY)
            .map(|t| f64::from(logits[t]))
            .collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        let least = all.iter().cloned().fold(f64::MIN, f64::max) - n * deviation;
        let near = all.iter().map(|x| (x - least).abs()).fold(f64::MAX, f64::min);
        Definition {
            kept: (0..VOCAB).filter(|&t| t != MASK && f64::from(logits[t]) >= least).collect(),
            near,
        }
    }

    fn kept(sampler: &mut Sampler, logits: &[f32], sampling: SamplingParams) -> Vec<usize> {
        let weights = sampler.filter(logits, &sampling).unwrap();
        (0..weights.len()).filter(|&t| weights[t] > 0.0).collect()
    }

    /// Random logits of one of several spreads, some of them ruled out.
    fn logits(rng: &mut Rng, case: usize) -> Vec<f32> {
        let spread = [0.5, 2.0, 6.0, 20.0][case % 4];
        let mut logit = || match rng.uniform() {
            u if u < 0.05 => f32::NEG_INFINITY,
            u => (u * spread) as f32,
        };
        (0..VOCAB).map(|_| logit()).collect()
    }

    #[test]
    fn filters_keep_the_tokens_of_their_definitions() {
        let mut rng = Rng::new(11, 0, Purpose::Token);
        let mut sampler = Sampler::new(VOCAB, MASK as u32).unwrap();
        let mut compared = [0; 3];
        let cases = if cfg!(miri) { 4 } else { 300 };
        for case in 0..cases {
            let logits = logits(&mut rng, case);
            let all: Vec<usize> =
                (0..VOCAB).filter(|&t| t != MASK && logits[t] > f32::NEG_INFINITY).collect();
            let x = (0.02 + 0.96 * rng.uniform()) as f32;
            let one = SamplingParams::FULL;
            let filters = [
                (SamplingParams { min_p: x, ..one }, min_p(&logits, &all, x.into())),
                (SamplingParams { typical_p: x, ..one }, typical(&logits, &all, x.into())),
                (SamplingParams { top_n_sigma: 3.0 * x, ..one }, top_n_sigma(&logits, (3.0 * x).into())),
            ];
            for (i, (sampling, definition)) in filters.into_iter().enumerate() {
                // Rounding decides where a token lies on the limit.
                if definition.near > 1e-5 {
                    assert_eq!(
                        kept(&mut sampler, &logits, sampling),
                        definition.kept,
                        "case {case}: {sampling:?}"
                    );
                    compared[i] += 1;
                }
            }
        }
        assert!(compared.iter().all(|&n| n > cases / 3), "{compared:?}");
    }

    #[test]
    fn filters_follow_each_other_in_the_documented_order() {
        let mut rng = Rng::new(12, 0, Purpose::Token);
        let mut sampler = Sampler::new(VOCAB, MASK as u32).unwrap();
        let mut compared = 0;
        let cases = if cfg!(miri) { 4 } else { 200 };
        for case in 0..cases {
            let logits = logits(&mut rng, case);
            let temperature = 0.5 + rng.uniform() as f32;
            let scaled: Vec<f32> = logits.iter().map(|logit| logit / temperature).collect();
            let first = top_n_sigma(&logits, 1.5);
            let mut among = first.kept.clone();
            among.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            among.truncate(60);
            let second = typical(&scaled, &among, 0.8);
            let third = min_p(&scaled, &second.kept, 0.3);
            let sampling = SamplingParams {
                temperature,
                top_n_sigma: 1.5,
                top_k: 60,
                typical_p: 0.8,
                min_p: 0.3,
                ..SamplingParams::FULL
            };
            if [first.near, second.near, third.near].into_iter().all(|near| near > 1e-5) {
                assert_eq!(kept(&mut sampler, &logits, sampling), third.kept, "case {case}");
                compared += 1;
            }
        }
        assert!(compared > cases / 4, "{compared}");
    }

    #[test]
    fn draws_follow_the_filtered_distribution() {
        // Chi-square with 2 degrees of freedom; 13.82 is its 99.9th percentile, and the seed is fixed.
        let logits = [2.0f32, 1.5, 1.0, -2.0, -3.0, 9.0];
        let mut sampler = Sampler::new(6, 5).unwrap();
        let mut rng = Rng::new(3, 0, Purpose::Token);
        let sampling = SamplingParams { min_p: 0.2, ..SamplingParams::FULL };
        let n = 50_000;
        let mut counts = [0usize; 6];
        for _ in 0..n {
            counts[sampler.draw(&logits, &sampling, rng.uniform()).unwrap() as usize] += 1;
        }
        assert_eq!(counts[3..], [0, 0, 0]);
        let expected = probabilities(&logits, &[0, 1, 2]).into_iter().map(|p| p * f64::from(n));
        let chi: f64 =
            expected.zip(&counts).map(|(expected, &c)| (c as f64 - expected).powi(2) / expected).sum();
        assert!(chi < 13.82, "chi-square {chi}");
    }

    #[test]
    fn filters_leave_a_token() {
        let mut sampler = Sampler::new(4, 3).unwrap();
        for logits in
            [[0.0, 0.0, 0.0, 5.0], [1.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0], [50.0, -50.0, 0.0, 1.0]]
        {
            let tight = SamplingParams {
                min_p: 1.0,
                typical_p: f32::MIN_POSITIVE,
                top_n_sigma: f32::MIN_POSITIVE,
                ..SamplingParams::FULL
            };
            assert!(!kept(&mut sampler, &logits, tight).is_empty(), "{logits:?}");
        }
    }
}
