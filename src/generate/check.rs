//! Checks prompts: whether they fit the model, the context, and what is known already.

use super::request::{GenerateParams, Prompt};
use super::session::Session;
use super::start::Start;
use crate::error::{Error, Result};
use crate::forward::ModelRunner;

impl Session {
    /// The length of a sequence, of which `total` is the most: with [`GenerateParams::max_tokens`] that of the prompt, or of
    /// what is written already, and that many tokens.
    pub(super) fn length_of(
        &self,
        number: usize,
        prompt: &Prompt,
        params: &GenerateParams<'_>,
        total: usize,
        start: Start,
    ) -> usize {
        if params.max_tokens == 0 {
            return total;
        }
        let sequence = self.sequences.get(number).filter(|_| start.resume);
        let current = sequence.map_or(0, |sequence| sequence.written_end(self.mask, start.keep));
        let prompt = prompt.known.iter().map(|&(position, _)| position as usize + 1).max().unwrap_or(0);
        // A prompt that does not fit is refused, whatever is to be written behind it.
        current.max(prompt).saturating_add(params.max_tokens).min(total)
    }

    /// Checks that the tokens and positions of prompt `index`, for sequence `number`, are the model's and the text's, and puts
    /// all known tokens by position into `known`.
    pub(super) fn check_prompt(
        &mut self,
        runner: &ModelRunner,
        (number, index): (usize, usize),
        prompt: &Prompt,
        length: usize,
        start: Start,
        prefix_only: bool,
    ) -> Result<()> {
        let config = runner.model.config();
        let Self { known, sequences, mask, .. } = self;
        let mask = *mask;
        let tokens = prompt.known.len();
        if tokens > length {
            return Err(Error::invalid(format!("prompt {index}: {tokens} tokens; at most {length} fit")));
        }
        known.clear();
        known.resize(length, mask);
        if start.resume {
            let missing = || Error::internal("a prompt without a sequence");
            let sequence = sequences.get(number).ok_or_else(missing)?;
            // What was to be written behind these is given up.
            let end = sequence.written_end(mask, start.keep);
            let too_short = || Error::invalid(format!("length {length}, but there are {end} tokens"));
            let current = sequence.tokens.get(..end).unwrap_or_default();
            known.get_mut(..end).ok_or_else(too_short)?.copy_from_slice(current);
            for &position in sequence.provisional() {
                if let Some(known) = known.get_mut(position as usize) {
                    *known = mask;
                }
            }
            let there = known.iter().filter(|&&token| token != mask).count();
            if there + tokens > length {
                return Err(Error::invalid(format!(
                    "prompt {index}: {tokens} tokens behind {there}; at most {length} fit"
                )));
            }
        }
        for &(position, token) in &prompt.known {
            let bad = |what: &str| {
                Err(Error::invalid(format!("prompt {index}: token {token} at {position}: {what}")))
            };
            if token == mask {
                return bad("the mask stands for what is not known: leave its position out");
            }
            if !config.is_writable(token) {
                return bad("no such token");
            }
            match known.get_mut(position as usize) {
                None => return bad("beyond the length"),
                Some(known) if *known != mask => return bad("the position is given twice"),
                Some(known) => *known = token,
            }
        }
        if known.iter().take(config.given_tokens()).any(|&token| token == mask) {
            return Err(Error::invalid(format!(
                "prompt {index}: this model was trained without a token before the text, so the token at position 0 has to \
                 be given: a token that begins a text, or a prompt"
            )));
        }
        if prefix_only && !known.is_sorted_by_key(|&token| token == mask) {
            return Err(Error::invalid(format!(
                "prompt {index}: an autoregressive model, and WeDLM one by one, take a prefix only"
            )));
        }
        Ok(())
    }
}
