//! How many tokens a sequence looks ahead: as many as the caller says, or as many as pay, by what was accepted so far.

use super::place_rates::PlaceRates;
use super::request::GenerateParams;
use crate::error::{Error, Result};
use crate::forward::ModelRunner;
use crate::model::{Feature, Model, Variant};

/// Most tokens that a pass proposes.
pub(super) const MOST: usize = 16;
/// The same if the number is left to the library.
const MOST_AUTO: usize = 8;
/// Passes without lookahead before it is tried again.
const PATIENCE: u32 = 32;

/// How many tokens a sequence looks ahead.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Depth {
    most: usize,
    auto: bool,
    /// A pass takes as long as its rows and so many more.
    overhead: f64,
    /// Its rows: without lookahead; and with it two, and so many for each proposed token.
    plain_rows: f64,
    rows_each: f64,
    /// The depth of the coming pass.
    now: usize,
    /// For each place of a proposal: how many were tried, and how many of them stayed.
    places: PlaceRates<MOST_AUTO>,
    /// Passes without lookahead.
    waited: u32,
}

impl Depth {
    /// What `params` say, where a pass takes as long as its rows and `overhead` more.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; [`Error::Unsupported`].
    pub(super) fn new(params: &GenerateParams<'_>, model: &Model, overhead: f64) -> Result<Self> {
        let auto = params.lookahead == GenerateParams::LOOKAHEAD_AUTO;
        let most = if auto { MOST_AUTO } else { params.lookahead as usize };
        if most > MOST {
            return Err(Error::invalid(format!("lookahead of {most} tokens; at most {MOST}")));
        }
        let config = model.config();
        if most > 0 && !model.supports(Feature::Lookahead) {
            let name = config.variant.name();
            return Err(Error::Unsupported(format!(
                "variant '{name}': no lookahead; it takes a model that writes tokens one by one and can ask for places \
                 further on (Eso-LM, but for an (A) of diffusion alone; WeDLM)"
            )));
        }
        if most > 0 && config.variant == Variant::WeDlm && params.adaptive_for(config).is_some() {
            return Err(Error::invalid(
                "WeDLM looks ahead where it writes one by one (alpha_0 of 0), not with a window",
            ));
        }
        let (plain_rows, rows_each) = if config.variant == Variant::WeDlm { (1.0, 2.0) } else { (2.0, 3.0) };
        let now = if auto { 1 } else { most };
        Ok(Self { most, auto, overhead, plain_rows, rows_each, now, ..Self::default() })
    }

    /// Checks that the context has room for it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(super) fn check(&self, runner: &ModelRunner) -> Result<()> {
        // For all models what Eso-LM takes; WeDLM takes less.
        let rows = 3 * self.most + 1;
        if self.most > 0 && rows > runner.capacity.rows {
            let (most, there) = (self.most, runner.capacity.rows);
            return Err(Error::invalid(format!(
                "lookahead of {most} tokens takes batch_rows of {rows}; the context has {there}"
            )));
        }
        Ok(())
    }

    /// Most tokens that a pass proposes.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How many tokens the coming pass proposes, if they are there, and how many it looks for for the one after it.
    pub(super) fn next(&self) -> usize {
        self.now
    }

    /// Notes a pass that proposed some tokens, of which the first `accepted` stayed.
    pub(super) fn note(&mut self, proposed: usize, accepted: usize) {
        if !self.auto {
            return;
        }
        // Those behind the first that is refused are not tried.
        self.places.note(proposed.min(accepted + 1), 0..accepted);
        let best = self.best();
        self.waited = if best == 0 { self.waited + 1 } else { 0 };
        self.now = if self.waited > PATIENCE { 1 } else { best };
        if self.waited > PATIENCE + 1 {
            self.waited = 0;
        }
    }

    /// The depth that gives the most tokens for the time. The time of a pass is taken to be that of its rows and of a number of
    /// rows more, so that the text does not depend on a clock.
    fn best(&self) -> usize {
        let (mut all_stay, mut tokens) = (1.0, 1.0);
        let mut best = (0, 1.0 / (self.overhead + self.plain_rows));
        for (depth, rate) in (1..).zip(self.places.expected()) {
            all_stay *= rate;
            tokens += all_stay;
            let speed = tokens / (self.overhead + 2.0 + self.rows_each * depth as f64);
            if speed > best.1 {
                best = (depth, speed);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_proposed_the_more_stays_and_the_longer_weights_take_to_read() {
        let best = |overhead, stayed| {
            let places = PlaceRates { tried: [100; MOST_AUTO], good: [stayed; MOST_AUTO] };
            Depth { overhead, plain_rows: 2.0, rows_each: 3.0, places, ..Depth::default() }.best()
        };
        assert_eq!([100, 90, 40, 10].map(|stayed| best(10.0, stayed)), [8, 6, 1, 0]);
        assert_eq!([100, 90, 40, 10].map(|stayed| best(2.0, stayed)), [8, 1, 0, 0]);
        // WeDLM's passes have fewer rows, those without lookahead above all.
        let best = |overhead, stayed| {
            let places = PlaceRates { tried: [100; MOST_AUTO], good: [stayed; MOST_AUTO] };
            Depth { overhead, plain_rows: 1.0, rows_each: 2.0, places, ..Depth::default() }.best()
        };
        assert_eq!([100, 90, 40, 10].map(|stayed| best(10.0, stayed)), [8, 7, 1, 0]);
        assert_eq!([100, 90, 40, 10].map(|stayed| best(2.0, stayed)), [8, 3, 0, 0]);
    }
}
