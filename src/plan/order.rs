//! The order in which positions become known.

use crate::error::{Error, Result};
use crate::memory::filled;
use crate::rng::Rng;

/// The order in which unknown positions become known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order<'a> {
    /// Random positions in the diffusion phase, then the rest left to right: as the models are trained.
    #[default]
    Random,
    /// Left to right, in both phases.
    LeftToRight,
    /// Step j writes the positions j, j + stride, j + 2 stride and so on, so that the tokens of a step are far apart;
    /// then the rest left to right. Source: the reference's `subcontext_len` and `subcontext_shuffle`.
    Strided {
        /// Distance between the tokens of a step, which is also the number of steps; 1 to the length.
        stride: usize,
        /// Shuffles the steps, and the tokens within each.
        shuffle: bool,
    },
    /// Blocks of consecutive positions, left to right, each finished before the next begins (semi-autoregressive, as in
    /// block diffusion). Within a block the order is random. The steps are divided among the blocks.
    Blocks {
        /// Number of positions in a block, at least 1.
        size: usize,
    },
    /// Any order: every position of the text once. Also used for the sequential phase.
    Custom(&'a [u32]),
}

impl Order<'_> {
    /// Checks the order against a text of `length` tokens.
    pub(crate) fn validate(self, length: usize) -> Result<()> {
        match self {
            Self::Strided { stride, .. } if stride == 0 || stride > length => {
                Err(Error::invalid(format!("a stride of {stride}, not 1 to the length of {length}")))
            }
            Self::Blocks { size: 0 } => Err(Error::invalid("a block of no positions")),
            Self::Custom(order) => check_permutation(order, length),
            _ => Ok(()),
        }
    }

    /// Whether an autoregressive model, which has no diffusion phase, can follow the order.
    pub(crate) fn is_left_to_right(self) -> bool {
        match self {
            Self::Random | Self::LeftToRight => true,
            Self::Strided { .. } | Self::Blocks { .. } => false,
            Self::Custom(order) => order.is_sorted(),
        }
    }
}

/// Checks that `order` is a permutation of the positions below `length`.
pub(crate) fn check_permutation(order: &[u32], length: usize) -> Result<()> {
    if order.len() != length {
        let given = order.len();
        return Err(Error::invalid(format!("an order of {given} positions for a text of {length} tokens")));
    }
    check_distinct(order, length)
}

/// Checks that the positions of `order` are below `length`, and none occurs twice.
pub(crate) fn check_distinct(order: &[u32], length: usize) -> Result<()> {
    let mut found = filled(length, false)?;
    for (place, &position) in order.iter().enumerate() {
        match found.get_mut(position as usize) {
            Some(found) if !*found => *found = true,
            Some(_) => return Err(Error::invalid(format!("an order has position {position} twice"))),
            None => {
                return Err(Error::invalid(format!("an order has {position} at {place}, beyond the text")));
            }
        }
    }
    Ok(())
}

/// Shuffles the unknown positions `tail`. The first `diffusion` entries are the diffusion phase; the others, the
/// sequential phase, are sorted left to right.
///
/// Source: the reference's `_sample_order` / `sort_idx` for random orders.
pub(crate) fn random(tail: &mut [u32], diffusion: usize, rng: &mut Rng) {
    shuffle(tail, diffusion, rng);
    sequential(tail, diffusion);
}

/// Sorts the positions of the sequential phase left to right.
pub(crate) fn sequential(tail: &mut [u32], diffusion: usize) {
    if let Some(rest) = tail.get_mut(diffusion..) {
        rest.sort_unstable();
    }
}

/// Sorts `tail` into rows of positions that are `stride` apart. `places` is scratch memory for `stride` numbers.
pub(crate) fn strided(tail: &mut [u32], stride: usize, shuffled: bool, rng: &mut Rng, places: &mut Vec<u32>) {
    places.clear();
    places.extend(0..stride as u32);
    if shuffled {
        shuffle(places, stride, rng);
    }
    let row = |position: u32| position as usize % stride;
    tail.sort_unstable_by_key(|&p| (places.get(row(p)).copied(), p));
    if shuffled {
        for row in tail.chunk_by_mut(|&a, &b| row(a) == row(b)) {
            shuffle(row, row.len(), rng);
        }
    }
    places.clear();
}

/// A Fisher-Yates shuffle that stops after the first `first` items.
fn shuffle(items: &mut [u32], first: usize, rng: &mut Rng) {
    let len = items.len();
    for i in 0..first.min(len.saturating_sub(1)) {
        items.swap(i, i + rng.below(len - i));
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
    fn random_order_has_each_position_equally_likely_at_each_place() {
        for diffusion in [10, 4] {
            let mut counts = [[0; 10]; 10];
            for order in orders(10, diffusion, 20_000) {
                order.iter().enumerate().for_each(|(slot, &position)| counts[slot][position as usize] += 1);
            }
            counts.iter().take(diffusion).for_each(|counts| check_uniform(counts));
        }
    }

    #[test]
    fn random_order_has_all_permutations_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        for order in orders(4, 4, 20_000) {
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        check_uniform(&counts.into_values().collect::<Vec<usize>>());
    }

    #[test]
    fn sequential_phase_goes_left_to_right() {
        let draws = if cfg!(miri) { 4 } else { 200 };
        for diffusion in 0..=12 {
            for order in orders(12, diffusion, draws) {
                assert!(order[diffusion..].is_sorted());
                let mut all = order;
                all.sort_unstable();
                assert!(all.into_iter().eq(0..12));
            }
        }
        // A diffusion phase longer than the text is the whole text; an empty text has one order.
        for (len, diffusion) in [(3, 9), (0, 0), (1, 1), (0, 4)] {
            let mut order = orders(len, diffusion, 1).next().unwrap();
            order.sort_unstable();
            assert!(order.into_iter().eq(0..len));
        }
    }
}
