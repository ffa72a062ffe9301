//! How many tokens each step writes.

use crate::rng::Rng;

/// Noise that is left at the end of training time, `eps` of the log-linear schedule (reference: `noise.eps`).
const EPS: f64 = 1e-3;

/// Draws the number of tokens for each of `steps` (at least one) diffusion steps over `unknown` tokens. Puts the
/// counts that are not zero into `counts`, and then a 1 for each token of the sequential phase. Returns how many
/// tokens the diffusion phase writes. `counts` never holds more than `unknown` numbers.
///
/// With alpha_t = alpha_0 * (1 - (1 - eps) t), the reference (`_tokens_unmasked_per_step`) draws
/// n ~ Binomial(remaining, (alpha_s - alpha_t) / (1 - alpha_t)) for s = t - 1/T from t = 1 on. That is, each
/// token by itself becomes known in step i with probability (alpha_s - alpha_t) / (1 - alpha_1), the same for
/// every step since alpha is linear in t, and in none with the rest. So one uniform number per token gives the
/// same distribution.
pub(crate) fn draw(
    alpha_0: f64,
    steps: usize,
    unknown: usize,
    rng: &mut Rng,
    counts: &mut Vec<u32>,
) -> usize {
    let per_step = alpha_0 * (1.0 - EPS) / steps as f64 / (1.0 - alpha_0 * EPS);
    // First the number of each diffused token's step, then, in the same memory, how many there are of each.
    counts.clear();
    if per_step > 0.0 {
        for _ in 0..unknown {
            let step = (rng.uniform() / per_step) as usize;
            // At alpha_0 = 1 nothing is left over; only rounding could say otherwise.
            let step = if alpha_0 == 1.0 { step.min(steps - 1) } else { step };
            if step < steps {
                counts.push(step as u32);
            }
        }
    }
    counts.sort_unstable();
    let diffusion = counts.len();
    let mut kept = 0;
    let mut i = 0;
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
