//! One generation under the clock, and what many of them say together.

use std::time::Instant;

use esolm::{Context, GenerateParams, Prompt, Result};
use serde_json::{Value, json};

/// Times of the generations of one case.
#[derive(Default)]
pub struct Times {
    /// Tokens that one generation writes.
    pub tokens: usize,
    /// Seconds of each generation.
    seconds: Vec<f64>,
    /// Seconds of every step of every generation.
    steps: Vec<f64>,
}

impl Times {
    /// Runs a generation of `batch` sequences without a prompt, sampling included.
    pub fn run(&mut self, context: &mut Context, batch: usize, params: &GenerateParams) -> Result<()> {
        let prompts = vec![Prompt::default(); batch];
        self.tokens = 0;
        let started = Instant::now();
        context.begin(&prompts, params)?;
        let mut before = started;
        while let Some(step) = context.step()? {
            self.tokens += step.updates.len();
            let now = Instant::now();
            self.steps.push((now - before).as_secs_f64());
            before = now;
        }
        self.seconds.push(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Seconds of the median generation.
    pub fn median(&self) -> f64 {
        quantile(&self.seconds, 0.5)
    }

    /// Tokens per second of the median generation.
    pub fn speed(&self) -> f64 {
        self.tokens as f64 / self.median()
    }

    /// Steps of one generation.
    pub fn passes(&self) -> usize {
        self.steps.len() / self.seconds.len().max(1)
    }

    /// Seconds of a step: the given quantile over all.
    pub fn step(&self, q: f64) -> f64 {
        quantile(&self.steps, q)
    }

    pub fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "steps": self.passes(),
            "seconds": self.seconds,
            "tokens_per_second": self.speed(),
            "step_seconds": { "median": self.step(0.5), "p99": self.step(0.99) },
        })
    }
}

/// The smallest of `values` that a share `q` of them does not exceed; 0 of none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.5, 0.75, 0.99, 1.0].map(|q| quantile(&values, q)), [1.0, 2.0, 3.0, 4.0, 4.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
