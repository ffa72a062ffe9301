//! How much of its prompt a sequence is fed in a step (chunked prefill): a long one takes several, so that the sequences that are
//! being written do not wait for one that joins, and a caller hears of one that begins, and can end it.

use super::sequence::Sequence;
use super::session::Session;
use crate::forward::ModelRunner;
use crate::model::Config;

impl Session {
    /// Works out how many slots of each sequence the coming step feeds: all that it needs, but of the prompts of those that join
    /// `prompt_rows` rows in all, first come, first served. Those that began together write together.
    pub(super) fn share_prompt_rows(&mut self, runner: &ModelRunner) {
        let config = runner.model.config();
        self.find_lenders(config);
        let group_reads = self.prompts_left(config) > 0;
        let some_write = self.feed_writers(config, group_reads);
        self.feed_readers(config, if some_write { runner.prompt_rows } else { self.most_prompt_rows });
        if group_reads {
            self.hold_group_together(config);
        }
    }

    /// Gives those that write all rows that they need, and the others none yet. Returns whether any write.
    fn feed_writers(&mut self, config: &Config, group_reads: bool) -> bool {
        let together = self.together;
        let mut any = false;
        for sequence in &mut self.sequences {
            let (needed, prompt) = sequence.rows_left(config);
            let copies = sequence.lender.is_some();
            let reads = prompt > 0 || copies || group_reads && sequence.began_together(together);
            sequence.fed = if reads { 0 } else { needed };
            any |= sequence.fed > 0;
        }
        any
    }

    /// Divides `most` rows of prompts among those that read. One that copies waits until its lender has read, and takes the rows
    /// behind what it copies, of which there may be none.
    fn feed_readers(&mut self, config: &Config, most: usize) {
        let any_copy = self.sequences.iter().any(|sequence| sequence.lender.is_some());
        let (mut left, mut last) = (most, 0);
        while let Some(sequence) = self.next_to_read(last)
            && (left > 0 || any_copy)
        {
            last = sequence.joining;
            let (needed, prompt) = sequence.rows_left(config);
            let is_ready = sequence.lender.is_none_or(|lender| self.lender_is_ready(lender));
            if !is_ready || prompt == 0 && sequence.lender.is_none() {
                continue;
            }
            // Whole blocks of BD3-LM, and at least one in a step.
            let block = sequence.block.max(1);
            let room = if left == most { left.max(block) } else { left };
            let fed = if prompt <= room { needed } else { room - room % block };
            let number = sequence.number;
            if let Some(sequence) = self.sequences.get_mut(number) {
                sequence.fed = fed;
            }
            left = left.saturating_sub(prompt);
        }
    }

    /// Has those that began together feed their prompts alone while one of them has some left, and then write.
    fn hold_group_together(&mut self, config: &Config) {
        let together = self.together;
        let group = |sequence: &Sequence| sequence.began_together(together);
        let has_more = |sequence: &Sequence| group(sequence) && sequence.fed < sequence.rows_left(config).1;
        let unread = self.sequences.iter().any(has_more);
        for sequence in self.sequences.iter_mut().filter(|sequence| group(sequence)) {
            let (needed, prompt) = sequence.rows_left(config);
            sequence.fed = if unread { sequence.fed.min(prompt) } else { needed };
        }
    }

    /// How many rows of their prompts those that began together have left, but for those that are copied.
    fn prompts_left(&self, config: &Config) -> usize {
        let group = self.sequences.iter().filter(|sequence| sequence.began_together(self.together));
        group.map(|sequence| sequence.rows_left(config).1).sum()
    }

    /// How many steps feed nothing but their prompts, while nothing else is written.
    pub(super) fn reading_steps(&self, config: &Config) -> usize {
        self.prompts_left(config).div_ceil(self.most_prompt_rows).saturating_sub(1)
    }

    /// Counts the rows of prompts that a step has fed: their keys and values are final. (Those of sequences that wrote tokens
    /// are counted already.)
    pub(super) fn advance_prompts(&mut self) {
        for sequence in self.sequences.iter_mut().filter(|sequence| sequence.joining > 0) {
            sequence.committed += sequence.fed;
        }
    }
}

impl Sequence {
    /// The first slots that hold its prompt once that is read; all that it has, if it is.
    pub(super) fn prompt_slots(&self, config: &Config) -> usize {
        self.committed + self.all_rows_left(config).1
    }

    /// As [`Sequence::all_rows_left`], without those that are copied.
    fn rows_left(&self, config: &Config) -> (usize, usize) {
        let (needed, prompt) = self.all_rows_left(config);
        let copied = self.lender.map_or(0, |lender| lender.count.saturating_sub(self.committed));
        (needed.saturating_sub(copied), prompt.saturating_sub(copied))
    }

    /// The rows that its next step needs, and how many of them are of a prompt, which earlier steps may feed.
    fn all_rows_left(&self, config: &Config) -> (usize, usize) {
        let Some(count) = self.tokens_due() else { return (0, 0) };
        let needed = self.slots(config, count).len();
        let prompt = match self.block {
            0 => needed.saturating_sub(count),
            // The block that it writes in is fed whole.
            _ => self.current_start().saturating_sub(self.committed),
        };
        (needed, if self.joining > 0 { prompt } else { 0 })
    }

    /// Whether it is one of those up to number `last` of the arrivals, which write nothing before all of their prompts are fed.
    fn began_together(&self, last: u64) -> bool {
        (1..=last).contains(&self.joining)
    }
}
