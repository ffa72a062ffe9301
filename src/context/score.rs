//! Scoring a given text.

use std::ops::ControlFlow;

use super::Context;
use crate::error::Result;
use crate::score::{ScoreParams, Scorer, TextScore};

/// Scoring a given text.
impl Context {
    /// Scores a text of any length. It is cut into consecutive windows of the context's length (the last may be
    /// shorter), each scored independently, as in training. `progress` is called with the number of windows done and
    /// of all windows; breaking cancels. Ends the current generation.
    ///
    /// A window of W tokens costs about 2 W rows per order (tokens and masks), and per draw W rows of diffusion and,
    /// if alpha_0 < 1, 2 W rows of the sequential phase. Orders and draws depend on the parameters and the length
    /// only, so they are the same for all models of one vocabulary.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for an empty text, tokens outside the vocabulary, neither orders nor draws, several orders
    /// left to right, more than 2^20 orders or draws, or an alpha_0 outside 0 to 1; [`crate::Error::Unsupported`] for orders
    /// or alpha_0 < 1 with MDLM, and for random orders or diffusion with an autoregressive model;
    /// [`crate::Error::Cancelled`]; those of [`Context::step`].
    pub fn score_text(
        &mut self,
        tokens: &[u32],
        params: &ScoreParams,
        progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<TextScore> {
        self.scorer().text(tokens, params, progress)
    }

    /// Log-probabilities (natural) of the tokens at `order[known..]`, each given those before it in the order, as in a
    /// generation of one token per step. `tokens` is the text by position; the first `known` positions of `order` are
    /// given. Ends the current generation.
    ///
    /// For Eso-LM (A) this is the sequential phase: the given tokens attend to each other both ways. The probability of
    /// a token of its diffusion phase is the first result of [`Context::score_masked`] with the same known tokens.
    ///
    /// Source: the reference's `_any_order_ar_loss` and `_reconstruction_loss`, which run all tokens and all masks in
    /// one forward pass. So does this if a batch has room for them; otherwise it takes several, with the same result.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if the order is not a permutation of the text's positions, or not left to
    /// right with an autoregressive model; [`crate::Error::Unsupported`] for MDLM, which defines none; those of
    /// [`Context::step`].
    pub fn score_order(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        self.scorer().order(tokens, order, known)
    }

    /// Log-probabilities (natural) of the tokens at `order[known..]`, all masked at once, given the first `known`:
    /// one step of diffusion. Ends the current generation.
    ///
    /// # Errors
    /// As [`Context::score_order`]; [`crate::Error::Unsupported`] for an autoregressive model.
    pub fn score_masked(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        self.scorer().masked(tokens, order, known)
    }

    fn scorer(&mut self) -> Scorer<'_> {
        Scorer { runner: &mut self.runner, session: &mut self.session }
    }
}
