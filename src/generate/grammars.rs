//! The grammars of a generation's sequences.

use super::request::GenerateParams;
use super::session::Session;
use crate::error::{Error, Result};
use crate::forward::ModelRunner;
use crate::sample::{Constraints, GrammarState};

impl Session {
    /// Adds the grammar of sequence `number` to `grammars`, if its constraints have one. Its prompt has been checked.
    ///
    /// # Errors
    /// Those of [`Grammar::check`](crate::sample::Grammar) and [`Grammars::compile`](crate::sample::Grammars).
    pub(super) fn add_grammar(
        &mut self,
        runner: &ModelRunner,
        (number, constraints): (usize, &Constraints),
        params: &GenerateParams<'_>,
        grammars: &mut Vec<Option<GrammarState>>,
    ) -> Result<()> {
        let Some(grammar) = &constraints.grammar else { return Ok(()) };
        let config = runner.model.config();
        let in_order = params.is_left_to_right(config);
        let to_the_end = grammar.check(&self.known, config.mask_token_id, in_order)?;
        let state = self.grammars.compile(grammar, &runner.model, to_the_end)?;
        grammars.resize_with(number, || None);
        grammars.push(Some(state));
        Ok(())
    }

    /// Finds the tokens that may come next in the sequences of the listed draws.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none.
    pub(super) fn prepare_grammars(&mut self) -> Result<()> {
        for draw in &self.buffers.draws {
            let (sequence, position) = (draw.update.sequence, draw.update.position);
            if let Some(Some(grammar)) = self.request.grammars.get_mut(sequence as usize) {
                let at = |error| Error::invalid(format!("sequence {sequence}, position {position}: {error}"));
                grammar.prepare().map_err(at)?;
            }
        }
        Ok(())
    }

    /// Advances past the tokens that the step writes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if that takes too much.
    pub(super) fn advance_grammars(&mut self) -> Result<()> {
        for update in &self.buffers.updates {
            if let Some(Some(grammar)) = self.request.grammars.get_mut(update.sequence as usize) {
                grammar.advance(update.token)?;
            }
        }
        Ok(())
    }
}
