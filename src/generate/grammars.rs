//! The grammars of a generation's sequences.

use super::request::GenerateParams;
use super::session::Session;
use crate::error::{Error, Result};
use crate::forward::ModelRunner;
use crate::sample::{Constraints, GrammarState};

impl Session {
    /// The grammar of a sequence, if its constraints have one. Its prompt has just been checked.
    ///
    /// # Errors
    /// Those of [`Grammar::check`](crate::sample::Grammar) and [`Grammars::compile`](crate::sample::Grammars).
    pub(super) fn grammar(
        &mut self,
        runner: &ModelRunner,
        constraints: &Constraints,
        params: &GenerateParams<'_>,
    ) -> Result<Option<GrammarState>> {
        let Some(grammar) = &constraints.grammar else { return Ok(None) };
        let config = runner.model.config();
        let in_order = params.is_left_to_right(config);
        let to_the_end = grammar.check(&self.known, config.mask_token_id, in_order)?;
        self.grammars.compile(grammar, &runner.model, to_the_end).map(Some)
    }

    /// Finds the tokens that may come next in the sequences of the listed draws.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none, or if that takes too much.
    pub(super) fn prepare_grammars(&mut self) -> Result<()> {
        for draw in &self.buffers.draws {
            let (number, position) = (draw.update.sequence as usize, draw.update.position);
            let sequence = self.sequences.get_mut(number);
            if let Some(grammar) = sequence.and_then(|sequence| sequence.rules.grammar.as_mut()) {
                grammar.prepare().map_err(|error| {
                    self.failed = Some(number);
                    Error::invalid(format!("sequence {number}, position {position}: {error}"))
                })?;
            }
        }
        Ok(())
    }
}
