//! The axes of a plot: what lies where, and the ticks.

/// Narrowest room for the label of a tick, in pixels for each letter, and beside it.
const LETTER: f64 = 7.5;
const BESIDE: f64 = 10.0;
/// Most different values that have a tick each.
const MEASURED: usize = 9;

/// Maps values to coordinates on the page.
pub struct Scale {
    log: bool,
    /// The ends, as logarithms on a logarithmic axis.
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    ticks: Vec<f64>,
}

impl Scale {
    /// An axis for `values` from `start` to `end` on the page. A linear one begins at zero, unless the values are too near
    /// each other for that.
    pub fn new(log: bool, values: &[f64], (start, end): (f64, f64)) -> Self {
        let value = |v: &f64| if log { v.log10() } else { *v };
        let ends = |(a, b): (f64, f64), v: f64| (a.min(v), b.max(v));
        let (low, high) = values.iter().map(value).fold((f64::INFINITY, f64::NEG_INFINITY), ends);
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let room = if high > low { (high - low) * 0.08 } else { 0.5 * high.abs().max(1.0) };
        let from = if !log && low >= 0.0 && low <= 0.8 * high { 0.0 } else { low - room };
        let mut scale = Self { log, from, to: high + room, start, end, ticks: vec![] };
        // Between counts there is nothing.
        let least = if values.iter().all(|value| value.fract() == 0.0) { 1.0 } else { 0.0 };
        scale.ticks = scale.measured_ticks(values).unwrap_or_else(|| scale.round_ticks(least));
        scale
    }

    pub fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// What a reader must know of the axis beside its label.
    pub fn remark(&self) -> &'static str {
        match (self.log, self.from) {
            (true, _) => ", logarithmic",
            (false, from) if from > 0.0 => ", not from 0",
            _ => "",
        }
    }

    /// The values themselves, and where a linear axis begins, if they are few, and their labels have room beside each other.
    /// Only for the horizontal axis, where what was varied is.
    fn measured_ticks(&self, values: &[f64]) -> Option<Vec<f64>> {
        let mut values = values.to_vec();
        if !self.log && self.from == 0.0 {
            values.push(0.0);
        }
        values.sort_by(f64::total_cmp);
        values.dedup();
        let is_level = self.end > self.start;
        let half = |v: f64| number(v).len() as f64 * LETTER / 2.0;
        let apart = values.windows(2).all(|pair| match *pair {
            [a, b] => self.place(b) - self.place(a) >= half(a) + half(b) + BESIDE,
            _ => true,
        });
        let few = (2..=MEASURED).contains(&values.len());
        let short = values.iter().all(|&v| number(v).len() <= 6);
        (is_level && few && apart && short).then_some(values)
    }

    /// About six round values, at least `least` apart.
    fn round_ticks(&self, least: f64) -> Vec<f64> {
        let span = self.to - self.from;
        if self.log && span > 0.7 {
            let steps: &[f64] = match span {
                ..1.5 => &[1.0, 2.0, 3.0, 5.0],
                ..3.0 => &[1.0, 3.0],
                _ => &[1.0],
            };
            let decades = self.from.floor() as i32..=self.to.ceil() as i32;
            let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
            return all.filter(|v| (self.from..=self.to).contains(&v.log10())).collect();
        }
        // A logarithmic axis of less than a decade has the ticks of a linear one.
        let (from, to) =
            if self.log { (10f64.powf(self.from), 10f64.powf(self.to)) } else { (self.from, self.to) };
        let rough = (to - from) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * power).find(|&s| s >= rough).unwrap_or(rough);
        let step = step.max(least);
        let first = (from / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|&v| v <= to).collect()
    }
}

/// The label of a tick.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        1e-4..1e6 => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').into()
        }
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL: (f64, f64) = (84.0, 736.0);
    const UPRIGHT: (f64, f64) = (420.0, 64.0);

    #[test]
    fn ticks_are_round_and_on_the_page() {
        for (log, values, remark, expected) in [
            (false, vec![0.3, 9.0], "", "0 2 4 6 8"),
            (false, vec![4.0, 9.0], "", "0 2 4 6 8"),
            (false, vec![100.5, 101.0], ", not from 0", "100.5 100.6 100.7 100.8 100.9 101"),
            (false, vec![100.0, 101.0], ", not from 0", "100 101"),
            (false, vec![1.0, 2.0, 1.0], "", "0 1 2"),
            (false, vec![1.0], ", not from 0", "1"),
            (false, vec![-2.0, 9.0], "", "0 5"),
            (true, vec![1e-5, 0.5], ", logarithmic", "1e-5 0.0001 0.001 0.01 0.1 1"),
            (true, vec![3.0, 90.0], ", logarithmic", "3 10 30 100"),
            (true, vec![4.0, 9.0], ", logarithmic", "4 5 6 7 8 9"),
            (true, vec![1.0, 2.0], ", logarithmic", "1 2"),
        ] {
            let scale = Scale::new(log, &values, UPRIGHT);
            let ticks = scale.ticks();
            assert_eq!(ticks.iter().copied().map(number).collect::<Vec<_>>().join(" "), expected);
            assert!(ticks.iter().all(|&t| (UPRIGHT.1..=UPRIGHT.0).contains(&scale.place(t))));
            assert_eq!(scale.remark(), remark);
        }
    }

    #[test]
    fn values_that_were_chosen_have_ticks_where_there_is_room() {
        let steps = [16.0, 32.0, 64.0, 1024.0, 128.0, 32.0];
        assert_eq!(Scale::new(true, &steps, LEVEL).ticks(), [16.0, 32.0, 64.0, 128.0, 1024.0]);
        // That the axis begins at zero is seen.
        assert_eq!(Scale::new(false, &[4.5, 8.8], LEVEL).ticks(), [0.0, 4.5, 8.8]);
        // Too many, too near, too long.
        let many: Vec<f64> = (1..30).map(f64::from).collect();
        for values in [&many[..], &[16.0, 17.0, 1024.0], &[0.123456, 0.9]] {
            assert_ne!(Scale::new(true, values, LEVEL).ticks(), values);
        }
    }
}
