//! How much of its prompt a sequence that joins is fed in a step: a long one takes several, so that the sequences that are being
//! written do not wait for it (chunked prefill).

use super::session::Session;
use crate::forward::ModelRunner;

impl Session {
    /// Works out how many slots of each sequence the coming step feeds: all that it needs, but of the prompts of those that join
    /// `prompt_rows` rows in all, first come, first served.
    pub(super) fn share_prompt_rows(&mut self, runner: &ModelRunner) {
        let config = runner.model.config();
        let mut running = false;
        for sequence in &mut self.sequences {
            let due = sequence.tokens_due();
            let needed = due.map_or(0, |count| sequence.slots(config, count).len());
            let waits = sequence.joining > 0 && due.is_some_and(|count| needed > count);
            running |= !waits && needed > 0;
            sequence.fed = if waits { 0 } else { needed };
        }
        let mut left =
            if running { runner.prompt_rows } else { runner.prompt_rows.max(runner.capacity.rows) };
        let mut last = 0;
        while left > 0 {
            let waiting =
                self.sequences.iter_mut().filter(|sequence| sequence.joining > last && sequence.fed == 0);
            let Some(sequence) = waiting.min_by_key(|sequence| sequence.joining) else { break };
            last = sequence.joining;
            let Some(count) = sequence.tokens_due() else { continue };
            let needed = sequence.slots(config, count).len();
            let prompt = needed.saturating_sub(count);
            sequence.fed = if prompt <= left { needed } else { left };
            left = left.saturating_sub(prompt);
        }
    }

    /// Counts the rows of prompts that a step has fed: their keys and values are final. (Those of sequences that wrote tokens
    /// are counted already.)
    pub(super) fn advance_prompts(&mut self) {
        for sequence in self.sequences.iter_mut().filter(|sequence| sequence.joining > 0) {
            sequence.committed += sequence.fed;
        }
    }
}
