//! What is passed between requests and the thread that computes.

use std::sync::Arc;
use std::time::Instant;

use esolm::{Constraints, GenerateParams, Prompt, Result, SamplingParams, StopReason};
use tokio::sync::mpsc::UnboundedSender;

use super::failure::Failure;
use super::held::Held;
use crate::allocation::push;

/// One text that a request wants.
pub struct Job {
    /// Its number among the texts of the request.
    pub choice: usize,
    pub prompt: Vec<u32>,
    pub wanted: Arc<Wanted>,
    /// Its own.
    pub seed: u64,
    /// When it has to be complete.
    pub deadline: Instant,
    /// To the request. Closed when its client has left.
    pub events: UnboundedSender<(usize, Event)>,
}

/// How the texts of a request are written.
pub struct Wanted {
    /// 0 is no limit but the context.
    pub max_tokens: usize,
    pub sampling: SamplingParams,
    pub stop_tokens: Vec<u32>,
    /// What stands behind the text, which then fills a gap of `max_tokens` tokens.
    pub suffix: Option<Suffix>,
    /// Whether the answer begins with the prompt.
    pub echo: bool,
    /// Whether tokens that end a text are tokens like others.
    pub ignore_eos: bool,
    pub stop_strings: Vec<String>,
    /// Of the first text.
    pub seed: u64,
    pub constraints: Vec<Constraints>,
    /// Whether the tokens' log-probabilities are wanted, and those of how many other likely tokens.
    pub log_probs: Option<usize>,
}

/// What stands behind a gap.
pub struct Suffix {
    pub tokens: Vec<u32>,
    pub text: String,
}

impl Wanted {
    pub fn has_grammar(&self) -> bool {
        self.constraints.iter().any(|constraints| constraints.grammar.is_some())
    }
}

impl Job {
    /// The tokens that are given.
    pub fn given_tokens(&self) -> usize {
        self.prompt.len() + self.wanted.suffix.as_ref().map_or(0, |suffix| suffix.tokens.len())
    }

    /// Calls `f` with the prompt and what is wanted in the library's words. `params` are the server's.
    pub fn with_params<T>(
        &self,
        params: &GenerateParams<'static>,
        f: impl FnOnce(&Prompt, &GenerateParams<'_>) -> Result<T>,
    ) -> Result<T> {
        let Wanted { max_tokens, stop_tokens, stop_strings, constraints, log_probs, .. } = &*self.wanted;
        let stop_strings: Vec<&str> = stop_strings.iter().map(String::as_str).collect();
        let mut prompt = Prompt::prefix(&self.prompt)?;
        let (mut length, mut most) = (params.length, *max_tokens);
        if let Some(suffix) = &self.wanted.suffix {
            let start = self.prompt.len() + max_tokens;
            for (position, &token) in (start as u32..).zip(&suffix.tokens) {
                push(&mut prompt.known, (position, token))?;
            }
            (length, most) = (start + suffix.tokens.len(), 0);
        }
        let mut params: GenerateParams<'_> = *params;
        if self.wanted.has_grammar() {
            // The library writes it token by token, unless something else is asked for.
            (params.alpha_0, params.steps, params.adaptive) = (GenerateParams::ALPHA_0_AUTO, 0, None);
        }
        let params = GenerateParams {
            length,
            max_tokens: most,
            stop_tokens,
            stop_strings: &stop_strings,
            sampling: self.wanted.sampling,
            ignore_eos: self.wanted.ignore_eos,
            constraints,
            log_probs: log_probs.is_some(),
            top_log_probs: log_probs.unwrap_or(0),
            seed: self.seed,
            ..params
        };
        f(&prompt, &params)
    }
}

/// What happens to a text.
pub enum Event {
    Piece(Piece),
    End(End),
    Failed(Failure),
}

/// What follows.
pub struct Piece {
    pub text: String,
    /// The tokens that became final, if their log-probabilities are wanted.
    pub tokens: Vec<TokenReport>,
    /// What it takes.
    pub held: Held,
}

/// How a text ended.
pub struct End {
    pub reason: StopReason,
    pub prompt_tokens: usize,
    pub written_tokens: usize,
    /// Tokens of the prompt that were not computed, as another text began with them.
    pub cached_tokens: usize,
}

/// A token and its log-probability.
#[derive(Clone)]
pub struct TokenReport {
    pub bytes: Vec<u8>,
    pub log_prob: f64,
    /// The most likely tokens in its place.
    pub top: Vec<(Vec<u8>, f64)>,
}

impl TokenReport {
    /// About the bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        // Bytes of a token, and what an allocation takes at least.
        let one = |bytes: &Vec<u8>| bytes.len().max(24) + size_of::<(Vec<u8>, f64)>() + 8;
        one(&self.bytes) + self.top.iter().map(|(bytes, _)| one(bytes)).sum::<usize>()
    }
}
