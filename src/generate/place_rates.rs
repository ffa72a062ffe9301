//! How often what is tried at each place of a pass comes to something, by what was seen so far.

/// Trials count half when there are so many of them.
pub(super) const MEMORY: u32 = 64;

/// Of each of N places: how often something was tried there, and how often it came to something.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceRates<const N: usize> {
    pub(super) tried: [u32; N],
    pub(super) good: [u32; N],
}

impl<const N: usize> Default for PlaceRates<N> {
    fn default() -> Self {
        Self { tried: [0; N], good: [0; N] }
    }
}

impl<const N: usize> PlaceRates<N> {
    /// Notes that something was tried at the first `count` places, and came to something at those in `good`, which are among them.
    pub(super) fn note(&mut self, count: usize, good: impl Iterator<Item = usize>) {
        for place in good {
            if let Some(good) = self.good.get_mut(place) {
                *good += 1;
            }
        }
        for (tried, good) in self.tried.iter_mut().zip(&mut self.good).take(count) {
            *tried += 1;
            if *tried == MEMORY {
                (*tried, *good) = (*tried / 2, *good / 2);
            }
        }
    }

    /// The rate of each place, as it is expected. Before there are trials, a place is as good as the one before it, nearly.
    pub(super) fn expected(&self) -> impl Iterator<Item = f64> {
        let mut rate = 0.8;
        self.tried.iter().zip(&self.good).map(move |(&tried, &good)| {
            rate = (f64::from(good) + 4.0 * 0.95 * rate) / (f64::from(tried) + 4.0);
            rate
        })
    }
}
