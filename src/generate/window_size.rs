//! How large a window that slides is: as the caller says, or as pays, by what was filled so far.

use super::place_rates::PlaceRates;
use crate::model::Model;
use crate::plan::Adaptive;

const MOST_AUTO: usize = Adaptive::MOST_AUTO_WINDOW;

/// The size of a window, in positions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WindowSize {
    given: usize,
    auto: bool,
    /// A pass takes as long as its rows and so many more.
    overhead: f64,
    /// For each place of the window: in how many passes it was there, and in how many of them it was filled.
    places: PlaceRates<MOST_AUTO>,
}

impl WindowSize {
    /// What `adaptive` says, where a pass takes as long as its rows and `overhead` more; 0 without adaptive steps.
    pub(super) fn new(adaptive: Option<Adaptive>, model: &Model, overhead: f64) -> Self {
        let asked = adaptive.map_or(0, |adaptive| adaptive.window);
        // No text has more positions; so sums of sizes do not overflow.
        let given = asked.min(model.config().context_length);
        Self { given, auto: asked == Adaptive::WINDOW_AUTO, overhead, ..Self::default() }
    }

    /// The largest one that there will be.
    pub(super) fn most(&self) -> usize {
        if self.auto { MOST_AUTO } else { self.given }
    }

    /// That of the coming pass.
    pub(super) fn next(&self) -> usize {
        if self.auto { self.best() } else { self.given }
    }

    /// Notes a pass over the first `size` places, of which it has filled those in `filled`.
    pub(super) fn note(&mut self, size: usize, filled: impl Iterator<Item = usize>) {
        if self.auto {
            self.places.note(size, filled);
        }
    }

    /// The size that fills the most positions for the time. A pass has a row for each place of the window, and one for each
    /// token that has become final since; its time is taken to be that of these and of a number of rows more.
    fn best(&self) -> usize {
        let mut tokens = 0.0;
        let mut best = (1, 0.0);
        for (size, rate) in (1..).zip(self.places.expected()) {
            tokens += rate;
            // A pass fills one at least.
            let most = f64::max(tokens, 1.0);
            let speed = most / (self.overhead + size as f64 + most);
            if speed > best.1 {
                best = (size, speed);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::place_rates::MEMORY;

    /// The best size after many passes in which place p was filled with a probability of `first` times `factor` to the p.
    fn best(overhead: f64, first: f64, factor: f64) -> usize {
        let good = std::array::from_fn(|place| (1000.0 * first * factor.powi(place as i32)) as u32);
        let places = PlaceRates { tried: [1000; MOST_AUTO], good };
        WindowSize { auto: true, overhead, places, ..WindowSize::default() }.best()
    }

    #[test]
    fn a_window_is_the_larger_the_more_is_filled_and_the_longer_weights_take_to_read() {
        assert_eq!([1.0, 0.95, 0.8, 0.5, 0.1].map(|factor| best(10.0, 1.0, factor)), [32, 17, 7, 3, 2]);
        assert_eq!([1.0, 0.95, 0.8, 0.5, 0.1].map(|factor| best(2.0, 1.0, factor)), [32, 8, 4, 2, 1]);
    }

    #[test]
    fn what_was_seen_long_ago_counts_less() {
        let mut size = WindowSize { auto: true, overhead: 10.0, ..WindowSize::default() };
        let before = size.next();
        for _ in 0..200 {
            size.note(MOST_AUTO, 0..MOST_AUTO);
        }
        let all = size.next();
        for _ in 0..200 {
            size.note(all, 0..1);
        }
        assert_eq!((all, size.next()), (MOST_AUTO, 1), "{before} before");
        assert!(size.places.tried.iter().all(|&seen| seen < MEMORY));
        // A size that is given stays.
        let mut given = WindowSize { given: 7, ..WindowSize::default() };
        given.note(7, 0..1);
        assert_eq!((given.next(), given.most()), (7, 7));
    }
}
