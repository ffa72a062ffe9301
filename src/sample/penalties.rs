//! Penalties for tokens that repeat the text: for each token that is in it (repetition, frequency, presence), and for those
//! that would lengthen a repeated run (DRY). llama.cpp defines them over the last tokens of a text that grows to the right;
//! here they are defined over the known tokens, at any positions.

use crate::error::{Error, Result};
use crate::memory::{filled, with_room};

/// DRY ("don't repeat yourself"): makes tokens less likely that would continue a repetition. If the last n tokens before a
/// position, n at least `allowed_length`, occur earlier, too, the logit of the token that followed there is lowered by
/// `multiplier` * `base`^(n - `allowed_length`), for the longest such n.
///
/// The tokens before a position are the known ones directly left of it, without a gap: an unknown token ends them. (In a
/// generation from left to right they are the whole text.)
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// How strong it is; 0 is off, 0.8 is usual.
    pub multiplier: f32,
    /// How fast the penalty grows with the length of the repetition, at least 1.
    pub base: f32,
    /// A repetition of this many tokens, at least 1, is the shortest whose continuation is penalised.
    pub allowed_length: u32,
    /// How many tokens before a position are looked at; 0 is all of them.
    pub range: u32,
    /// Tokens that end a repetition (sequence breakers): no run reaches across one, and none is penalised itself.
    pub breakers: Vec<u32>,
}

impl Dry {
    /// llama.cpp's defaults, and so off; without breakers, as those depend on the vocabulary.
    pub const DEFAULT: Self =
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, range: 0, breakers: Vec::new() };

    /// Checks the ranges of the numbers.
    pub(super) fn validate(&self) -> Result<()> {
        let Self { multiplier, base, .. } = *self;
        if !(multiplier.is_finite() && multiplier >= 0.0) {
            return Err(Error::invalid(format!("a DRY multiplier of {multiplier} is not a number from 0")));
        }
        if !(base.is_finite() && base >= 1.0) {
            return Err(Error::invalid(format!("a DRY base of {base} is not a number from 1")));
        }
        if self.allowed_length == 0 {
            return Err(Error::invalid("a DRY allowed length of 0; it is at least 1"));
        }
        Ok(())
    }
}

impl Default for Dry {
    /// [`Dry::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How much a token that is in the text is penalised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalties {
    pub(super) repetition: f32,
    pub(super) frequency: f32,
    pub(super) presence: f32,
}

/// The memory that penalties are worked out in. Nothing is allocated after it is made.
#[derive(Debug)]
pub(super) struct Repeats {
    /// A number for each token of the vocabulary, 0 between two calls.
    by_token: Vec<u32>,
    /// For each token before a position, from the last on: how many tokens up to it are the same as the last ones.
    matches: Vec<u32>,
}

impl Repeats {
    /// For texts of at most `length` tokens.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn new(vocab_size: usize, length: usize) -> Result<Self> {
        Ok(Self { by_token: filled(vocab_size, 0)?, matches: with_room(length)? })
    }

    /// Penalises the tokens of `text`; logits stay finite.
    pub(super) fn penalise(&mut self, text: &[u32], row: &mut [f32], by: Penalties) {
        for &token in text {
            if let Some(count) = self.by_token.get_mut(token as usize) {
                *count += 1;
            }
        }
        for &token in text {
            let Some(count) = self.by_token.get_mut(token as usize).map(std::mem::take) else { continue };
            if let Some(logit) = row.get_mut(token as usize).filter(|logit| logit.is_finite())
                && count > 0
            {
                let repeated = if *logit > 0.0 { *logit / by.repetition } else { *logit * by.repetition };
                let penalised = repeated - (count as f32 * by.frequency + by.presence);
                // Infinity minus infinity.
                *logit = if penalised.is_nan() { *logit } else { penalised.clamp(f32::MIN, f32::MAX) };
            }
        }
    }

    /// Applies DRY for the position behind `before`, the known tokens directly left of it; logits stay finite.
    pub(super) fn dry(
        &mut self,
        rule: &Dry,
        before: &[u32],
        is_breaker: impl Fn(u32) -> bool,
        row: &mut [f32],
    ) {
        let Self { by_token, matches } = self;
        let range = if rule.range == 0 { usize::MAX } else { rule.range as usize };
        let before = before.get(before.len().saturating_sub(range)..).unwrap_or_default();
        // No run reaches across the last breaker.
        let longest = before.iter().rev().position(|&token| is_breaker(token)).unwrap_or(before.len());
        let allowed = rule.allowed_length as usize;
        if longest < allowed {
            return;
        }
        match_last_tokens(before, matches);
        // The token behind the end of a match would continue it.
        for (i, &length) in matches.iter().enumerate().skip(1) {
            let length = (length as usize).min(longest);
            let next = before.iter().rev().nth(i - 1).and_then(|&token| by_token.get_mut(token as usize));
            if let Some(most) = next.filter(|_| length >= allowed) {
                *most = (*most).max(length as u32);
            }
        }
        for &token in before {
            let Some(length) = by_token.get_mut(token as usize).map(std::mem::take) else { continue };
            if let Some(logit) = row.get_mut(token as usize).filter(|logit| logit.is_finite())
                && length > 0
                && !is_breaker(token)
            {
                let growth = f64::from(rule.base).powi((length as usize - allowed).min(1 << 20) as i32);
                let penalty = (f64::from(rule.multiplier) * growth).min(f64::from(f32::MAX)) as f32;
                *logit = (*logit - penalty).max(f32::MIN);
            }
        }
    }
}

/// For each token of `tokens`, counted from the last one, how many tokens up to it equal the last tokens: the Z-algorithm
/// from right to left, linear in their number. (The first number, of the last token itself, is 0.)
fn match_last_tokens(tokens: &[u32], matches: &mut Vec<u32>) {
    let at = |i: usize| tokens.len().checked_sub(i + 1).and_then(|place| tokens.get(place));
    matches.clear();
    matches.resize(tokens.len().min(1), 0);
    // The match that reaches furthest: tokens `from` to `to` equal the first `to - from`.
    let (mut from, mut to) = (0, 0);
    for i in 1..tokens.len() {
        let known = matches.get(i - from).map_or(0, |&length| length as usize).min(to.max(i) - i);
        let mut length = if i < to { known } else { 0 };
        while i + length < tokens.len() && at(length) == at(i + length) {
            length += 1;
        }
        if i + length > to {
            (from, to) = (i, i + length);
        }
        matches.push(length as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    const VOCAB: usize = 12;

    /// The definition of DRY: for every earlier place, compares token by token.
    fn dry_by_comparing(rule: &Dry, before: &[u32], logits: &[f32]) -> Vec<f64> {
        let range = if rule.range == 0 { before.len() } else { before.len().min(rule.range as usize) };
        let before = &before[before.len() - range..];
        let mut longest = [0; VOCAB];
        for next in 0..before.len() {
            let mut n = 0;
            while n < next && before[next - 1 - n] == before[before.len() - 1 - n] {
                if rule.breakers.contains(&before[next - 1 - n]) {
                    break;
                }
                n += 1;
            }
            let token = before[next] as usize;
            longest[token] = longest[token].max(n);
        }
        let penalised = (0..VOCAB as u32).map(|token| {
            let n = longest[token as usize];
            let applies = n >= rule.allowed_length as usize && !rule.breakers.contains(&token);
            let penalty =
                f64::from(rule.multiplier) * f64::from(rule.base).powi(n as i32 - rule.allowed_length as i32);
            f64::from(logits[token as usize]) - if applies { penalty } else { 0.0 }
        });
        penalised.collect()
    }

    #[test]
    fn dry_is_its_definition_on_random_texts() {
        let mut rng = Rng::new(21, 0, Purpose::Token);
        let mut repeats = Repeats::new(VOCAB, 64).unwrap();
        let mut penalised = 0;
        for case in 0..2000 {
            // Few tokens, so that runs repeat.
            let kinds = 2.0 + (case % 4) as f64 * 3.0;
            let length = (rng.uniform() * 64.0) as usize;
            let before: Vec<u32> = (0..length).map(|_| (rng.uniform() * kinds) as u32).collect();
            let rule = Dry {
                multiplier: 0.8,
                base: 1.1,
                allowed_length: 1 + case % 3,
                range: if case % 5 == 0 { 20 } else { 0 },
                breakers: if case % 2 == 0 { vec![1, 9] } else { vec![] },
            };
            let logits: Vec<f32> = (0..VOCAB).map(|_| rng.uniform() as f32).collect();
            let expected = dry_by_comparing(&rule, &before, &logits);
            let mut row = logits.clone();
            repeats.dry(&rule, &before, |token| rule.breakers.contains(&token), &mut row);
            for (token, (&got, &expected)) in row.iter().zip(&expected).enumerate() {
                let error = (f64::from(got) - expected).abs();
                assert!(
                    error < 1e-5 * expected.abs().max(1.0),
                    "case {case}, token {token}: {got}, {expected}"
                );
            }
            penalised += usize::from(row != logits);
            assert!(repeats.by_token.iter().all(|&n| n == 0), "case {case}");
        }
        assert!(penalised > 500, "{penalised}");
    }

    #[test]
    fn dry_of_a_long_repetition_stays_finite() {
        let mut repeats = Repeats::new(VOCAB, 4096).unwrap();
        let rule = Dry { multiplier: f32::MAX, base: 1e30, ..Dry::DEFAULT };
        let mut row = [1.0; VOCAB];
        repeats.dry(&rule, &[3; 4096], |_| false, &mut row);
        assert_eq!(row[3], f32::MIN);
        assert!(row.iter().enumerate().all(|(token, &logit)| token == 3 || logit == 1.0));
    }

    #[test]
    fn penalties_are_their_definition_on_random_texts() {
        let mut rng = Rng::new(22, 0, Purpose::Token);
        let mut repeats = Repeats::new(VOCAB, 0).unwrap();
        for case in 0..500 {
            let text: Vec<u32> =
                (0..case % 40).map(|_| (rng.uniform() * (VOCAB + 2) as f64) as u32).collect();
            let mut logit = || ((rng.uniform() - 0.5) * 20.0) as f32;
            let logits: Vec<f32> = (0..VOCAB).map(|_| logit()).collect();
            let by = Penalties { repetition: 1.3, frequency: 0.25, presence: -0.5 };
            let mut row = logits.clone();
            repeats.penalise(&text, &mut row, by);
            for (token, (&got, &logit)) in row.iter().zip(&logits).enumerate() {
                let count = text.iter().filter(|&&t| t as usize == token).count() as f64;
                let logit = f64::from(logit);
                let repeated = if logit > 0.0 { logit / 1.3 } else { logit * 1.3 };
                let expected = if count > 0.0 { repeated - (0.25 * count - 0.5) } else { logit };
                assert!((f64::from(got) - expected).abs() < 1e-4, "case {case}, token {token}");
            }
        }
    }
}
