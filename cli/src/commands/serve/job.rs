//! What is passed between requests and the thread that computes.

use std::sync::Arc;
use std::time::Instant;

use esolm::{Constraints, SamplingParams, StopReason};
use tokio::sync::mpsc::UnboundedSender;

use super::failure::Failure;
use super::held::Held;

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
    /// Whether tokens that end a text are tokens like others.
    pub ignore_eos: bool,
    pub stop_strings: Vec<String>,
    /// Of the first text.
    pub seed: u64,
    pub constraints: Vec<Constraints>,
    /// Whether the tokens' log-probabilities are wanted, and those of how many other likely tokens.
    pub log_probs: Option<usize>,
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
