//! Sequences that come and go.

use super::Context;
use crate::error::Result;
use crate::generate::{GenerateParams, Prompt};

/// Sequences that come and go.
impl Context {
    /// Adds a sequence to the generation, between two steps or in a new context, and returns its number; see
    /// [`Context::sequences`]. The others are not disturbed: a step runs the next step of each in one pass of the network
    /// (continuous batching). The text is the one that the prompt would get alone, in a generation with these parameters.
    ///
    /// If the prompt begins as a sequence of this context, also one that has been removed, its keys and values there are copied
    /// instead of computed, with the same result; where another one that joined before is still reading at least half of the
    /// prompt, this one waits for it (with the library's own kernels).
    /// (Models that keep keys and values; of BD3-LM whole blocks.) Steps report the
    /// log-probabilities of all sequences if one wants them, and as many of the most likely tokens as it wants. A long prompt
    /// takes several steps, which write nothing of it yet ([`ContextParams::prompt_rows`](crate::ContextParams)). Allocates for
    /// constraints, stop rules and new text only.
    ///
    /// # Errors
    /// As [`Context::begin`], also if all sequences are in use.
    pub fn add_sequence(&mut self, prompt: &Prompt, params: &GenerateParams<'_>) -> Result<usize> {
        self.session.add(&mut self.runner, prompt, params)
    }

    /// As [`Context::extend`] for one sequence of a generation; the others are not disturbed.
    ///
    /// # Errors
    /// As [`Context::extend`], also if there is no such sequence.
    pub fn extend_sequence(
        &mut self,
        sequence: usize,
        prompt: &Prompt,
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        self.session.extend_one(&mut self.runner, sequence, prompt, params)
    }

    /// Goes on behind the text of a sequence, such as a model's answer, with a prompt whose positions count from there; the
    /// other sequences are not disturbed. The text ends at its first gap or with the token that ended it, or earlier: at most
    /// its first `keep` tokens stay, if that is given. The keys and values of what stays are kept, so the steps feed the new
    /// tokens only, and those of the last step. [`GenerateParams::max_tokens`] counts behind the prompt.
    ///
    /// The result is the one of a text that has these tokens in this order: of an autoregressive model the one of a new
    /// prompt, of Eso-LM (B) the one of the order in which the tokens became known.
    ///
    /// # Errors
    /// As [`Context::extend`], also if there is no such sequence.
    pub fn append_sequence(
        &mut self,
        sequence: usize,
        keep: Option<usize>,
        prompt: &Prompt,
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        self.session.append(&mut self.runner, sequence, keep, prompt, params)
    }

    /// Removes a sequence, finished or not; its number may then be another's.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn remove_sequence(&mut self, sequence: usize) -> Result<()> {
        self.session.remove(&self.runner, sequence)
    }

    /// Whether there is a sequence with this number.
    pub fn has_sequence(&self, sequence: usize) -> bool {
        self.session.has(sequence)
    }

    /// How many tokens of a sequence have keys and values in the cache that the next steps need not compute. Before the first
    /// step of one that was added: those that came from another sequence.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn cached_tokens(&self, sequence: usize) -> Result<usize> {
        self.session.cached_tokens(sequence)
    }
}
