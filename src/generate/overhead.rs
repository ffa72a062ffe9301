//! What a pass costs beside its rows. By it `auto` decides how far to look ahead and how large a window is. It is a number and not a
//! clock that decides, so that a seed gives the same text again.

use std::time::Duration;

use crate::model::Model;

/// Most bytes of weights that are taken to stay in a cache.
const CACHED: usize = 32 << 20;
/// The least and the most that it may be, in rows.
const LEAST: f64 = 0.1;
pub(super) const MOST: f64 = 256.0;

/// What is taken where the caller says nothing: a pass takes as long as its rows and so many more, in which the weights are read. Measured
/// on a Zen 4 (docs/lookahead.md) with the default model and with one whose weights come from memory.
pub(super) fn usual(model: &Model) -> f64 {
    if model.tensor_bytes() > CACHED { 10.0 } else { 2.0 }
}

/// By passes with so many rows and their times, in rows.
pub(super) fn of_times((few, time): (usize, Duration), (many, longer): (usize, Duration)) -> f32 {
    let each = (longer.as_secs_f64() - time.as_secs_f64()) / (many - few) as f64;
    let rows = time.as_secs_f64() / each - few as f64;
    // Rows that cost nothing make it infinite, or negative where the shorter pass took longer.
    let rows = if each > 0.0 { rows.clamp(LEAST, MOST) } else { MOST };
    // One that can be typed.
    (rows as f32 * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_where_the_line_through_two_times_meets_zero() {
        let ms = Duration::from_millis;
        assert_eq!(of_times((2, ms(12)), (16, ms(26))), 10.0);
        assert_eq!(of_times((2, ms(5)), (16, ms(26))), 1.3);
        // In proportion to the rows, and more than that.
        assert_eq!(of_times((2, ms(4)), (16, ms(32))), 0.1);
        assert_eq!(of_times((2, ms(4)), (16, ms(64))), 0.1);
        // Where rows cost nothing.
        assert_eq!(of_times((2, ms(9)), (16, ms(9))), 256.0);
        assert_eq!(of_times((2, ms(9)), (16, ms(8))), 256.0);
    }
}
