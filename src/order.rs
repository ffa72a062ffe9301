//! Which positions become known, in which order.

use crate::rng::Rng;

/// Puts the unknown positions `tail` into generation order: a random permutation whose first `diffusion`
/// entries are the diffusion phase; the others, the sequential phase, go left to right.
///
/// Source: the reference's `_sample_order` / `sort_idx` for random orders.
pub(crate) fn random(tail: &mut [u32], diffusion: usize, rng: &mut Rng) {
    // Fisher-Yates from the front, only as far as the diffusion phase goes.
    let len = tail.len();
    for i in 0..diffusion.min(len.saturating_sub(1)) {
        tail.swap(i, i + rng.below(len - i));
    }
    if let Some(sequential) = tail.get_mut(diffusion..) {
        sequential.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    /// Checks that all `cells` are equally likely: chi-square at 6 standard deviations (1e-9 one-sided, by
    /// Wilson and Hilferty's approximation).
    fn check_uniform(counts: &[usize]) {
        let (n, cells) = (counts.iter().sum::<usize>() as f64, counts.len() as f64);
        let expected = n / cells;
        let chi: f64 = counts.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum();
        let freedom = cells - 1.0;
        let spread = 2.0 / (9.0 * freedom);
        let limit = freedom * (1.0 - spread + 6.0 * spread.sqrt()).powi(3);
        assert!(chi < limit, "chi-square {chi}, limit {limit}: {counts:?}");
    }

    /// Orders of 0..len with this many diffused, from a fixed seed.
    fn orders(len: u32, diffusion: usize, draws: usize) -> impl Iterator<Item = Vec<u32>> {
        (0..draws).map(move |number| {
            let mut tail: Vec<u32> = (0..len).collect();
            random(&mut tail, diffusion, &mut Rng::new(23, number, Purpose::Order));
            tail
        })
    }

    #[test]
    fn every_position_is_as_likely_at_every_place() {
        for diffusion in [10, 4] {
            let mut counts = [[0; 10]; 10];
            for order in orders(10, diffusion, 20_000) {
                order.iter().enumerate().for_each(|(slot, &position)| counts[slot][position as usize] += 1);
            }
            counts.iter().take(diffusion).for_each(|counts| check_uniform(counts));
        }
    }

    #[test]
    fn every_permutation_is_as_likely() {
        let mut counts = std::collections::HashMap::new();
        for order in orders(4, 4, 20_000) {
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        check_uniform(&counts.into_values().collect::<Vec<usize>>());
    }

    #[test]
    fn the_sequential_phase_goes_left_to_right() {
        for diffusion in 0..=12 {
            for order in orders(12, diffusion, 200) {
                assert!(order[diffusion..].is_sorted());
                let mut all = order;
                all.sort_unstable();
                assert!(all.into_iter().eq(0..12));
            }
        }
        // More than there are is all of them, and of nothing there is one order.
        for (len, diffusion) in [(3, 9), (0, 0), (1, 1), (0, 4)] {
            let mut order = orders(len, diffusion, 1).next().unwrap();
            order.sort_unstable();
            assert!(order.into_iter().eq(0..len));
        }
    }
}
