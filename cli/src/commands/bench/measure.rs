//! Times of generations, and statistics of them.

use std::collections::HashMap;
use std::time::Instant;

use esolm::{Context, GenerateParams, Profile, Prompt, Result};
use serde_json::{Value, json};

/// Times of the generations of one case.
#[derive(Default)]
pub struct Times {
    /// Seconds of each generation.
    seconds: Vec<f64>,
    /// Seconds of every step of every generation.
    step_seconds: Vec<f64>,
    /// Steps of all generations, those whose time was calculated among them.
    steps: usize,
    /// Tokens that each step of the last generation wrote.
    pub written: Vec<usize>,
    /// How the last generation spent its time.
    pub profile: Option<Profile>,
}

impl Times {
    /// Runs a generation of `batch` sequences without a prompt, sampling included: all of it, or its first `most` steps, from
    /// which the time of the others is calculated.
    pub fn run(
        &mut self,
        context: &mut Context,
        batch: usize,
        params: &GenerateParams,
        most: Option<usize>,
    ) -> Result<()> {
        // Some models have to be given the first token.
        let given = vec![0; context.model().config().given_tokens()];
        let prompts = vec![Prompt::prefix(&given)?; batch];
        self.written.clear();
        let started = Instant::now();
        context.begin(&prompts, params)?;
        let (mut before, mut total) = (started, 0);
        while most.is_none_or(|most| self.written.len() < most)
            && let Some(step) = context.step()?
        {
            self.written.push(step.updates.len());
            total = step.total;
            let now = Instant::now();
            self.step_seconds.push((now - before).as_secs_f64());
            before = now;
        }
        let (elapsed, measured) = (started.elapsed().as_secs_f64(), self.written.len());
        let calculated = if most.is_some() { total.saturating_sub(measured) } else { 0 };
        // What they would write, the same in each.
        let length: usize = (0..batch).map(|sequence| context.tokens(sequence).map_or(0, <[u32]>::len)).sum();
        let left = length.saturating_sub(self.tokens() + batch * given.len());
        self.written
            .extend((0..calculated).map(|step| left * (step + 1) / calculated - left * step / calculated));
        self.seconds.push(elapsed * self.written.len() as f64 / measured.max(1) as f64);
        self.steps += self.written.len();
        self.profile = context.profile();
        Ok(())
    }

    /// Tokens that a generation writes.
    pub fn tokens(&self) -> usize {
        self.written.iter().sum()
    }

    /// Seconds of the median generation.
    pub fn median(&self) -> f64 {
        quantile(&self.seconds, 0.5)
    }

    /// Tokens per second of the median generation.
    pub fn speed(&self) -> f64 {
        self.tokens() as f64 / self.median()
    }

    /// Steps of one generation.
    pub fn steps(&self) -> usize {
        self.steps / self.seconds.len().max(1)
    }

    /// Whether the time of some steps was calculated.
    pub fn is_calculated(&self) -> bool {
        self.steps > self.step_seconds.len()
    }

    /// Seconds of a step: the quantile `q` of all steps.
    pub fn step_seconds(&self, q: f64) -> f64 {
        quantile(&self.step_seconds, q)
    }

    /// Milliseconds per step of the parts of a step, in the last generation.
    pub fn parts(&self) -> Option<[(&'static str, f64); 5]> {
        let profile = self.profile?;
        let steps = (self.step_seconds.len() / self.seconds.len().max(1)).max(1) as f64;
        let Profile { blocks, attention, vocabulary, sampling, rest } = profile;
        let parts = [
            ("blocks", blocks),
            ("attention", attention),
            ("vocabulary", vocabulary),
            ("sampling", sampling),
            ("rest", rest),
        ];
        Some(parts.map(|(name, time)| (name, time.as_secs_f64() * 1e3 / steps)))
    }

    pub fn json(&self) -> Value {
        json!({
            "tokens": self.tokens(),
            "steps": self.steps(),
            "seconds": self.seconds,
            "tokens_per_second": self.speed(),
            "profile_ms_per_step": self.parts().map(|parts| parts.into_iter().collect::<HashMap<_, _>>()),
            "step_seconds": { "median": self.step_seconds(0.5), "p99": self.step_seconds(0.99) },
        })
    }
}

/// The smallest of `values` that a fraction `q` of them does not exceed; NaN if there are none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.5, 0.75, 0.99, 1.0].map(|q| quantile(&values, q)), [1.0, 2.0, 3.0, 4.0, 4.0]);
        assert!(quantile(&[], 0.5).is_nan(), "no time is not a time of 0");
    }
}
