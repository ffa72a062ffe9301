//! Lookahead: a pass writes several tokens of a sequence, which have the distribution of one token per pass.
//!
//! A pass feeds tokens that were proposed for the next places of the order, and asks for each of these places what it would ask
//! if the tokens before it were written: a mask that attends to them, and not to what follows. So the distributions of the
//! proposed tokens are known, and each stays or is drawn anew ([`Sampler::settle`](crate::sample::Sampler)), up to the first
//! that is drawn anew; if all stay, the next token is drawn from the first mask behind them. What the same pass says of the
//! places from there on is a guess, as it has seen refused tokens, or masks instead of tokens: the next proposals are drawn
//! from it. Any guess will do, as long as it is known what was drawn from.
//!
//! In WeDLM the row of a token says what stands behind it, so that each proposed token is checked by the row of the one before it,
//! and no masks stand for proposed tokens. The masks behind them begin at the place that the last proposed token's row tells of: a
//! model that was trained with masks in a row sees one there.
//!
//! In the cache the proposed tokens take their own slots, so that those that stay are final; the masks behind them take the
//! next slots, as in a step of several tokens, and the masks that stand for proposed tokens take slots behind those. The next
//! step overwrites what is not final.

use std::ops::Range;

use super::draw::{Draw, DrawState, measure};
use super::proposals::{Pass, Use, WrittenToken};
use super::rules::StepWants;
use super::sequence::Sequence;
use super::update::Update;
use crate::error::{Error, Result};
use crate::forward::Row;
use crate::model::{Config, Tokenizer, Variant};
use crate::sample::LogitsRow;

impl Sequence {
    /// Works out what the coming step feeds. `alone`: whether nobody but the sampler takes part in its draws.
    pub(super) fn plan_pass(&mut self, config: &Config, alone: bool) {
        self.ahead.undo();
        let causal = match config.variant {
            Variant::EsoB => true,
            Variant::EsoA => self.revealed >= self.diffused,
            Variant::WeDlm => self.predicts_next(config),
            Variant::Mdlm | Variant::Ar | Variant::Bd3Lm => false,
        };
        // A long prompt may take several steps before the first token is written.
        let fed = self.fed == self.slots(config, 1).len();
        if !(self.in_use && alone && causal && fed && self.window == 0) {
            self.ahead.count = 0;
            return;
        }
        let depth = self.ahead.depth.next();
        // Steps of one token, from the coming one on.
        let steps = self.counts.get(self.steps_done..).unwrap_or_default();
        let left = steps.iter().take(2 * depth + 1).take_while(|&&count| count == 1).count();
        let proposed = self.ahead.count.min(depth).min(left);
        let masks = (depth + 1).min(left - proposed);
        self.ahead.count = proposed;
        if proposed > 0 || masks > 1 {
            let tokens_check = self.predicts_next(config);
            self.ahead.pass = Some(Pass { tokens_check, proposed, masks, ..Pass::default() });
        }
    }

    /// The slots that the coming step feeds, of which the last ones are not places in the order: those of the masks that stand
    /// for proposed tokens.
    pub(super) fn slots_due(&self, config: &Config, count: usize) -> Range<usize> {
        let slots = self.slots(config, count);
        match &self.ahead.pass {
            Some(pass) => slots.start..self.revealed + pass.rows(),
            None => slots.start..slots.start + self.fed,
        }
    }

    /// The row that a slot is fed as in the coming step.
    ///
    /// # Errors
    /// [`Error::Internal`] for a slot that is not due.
    pub(super) fn row_due(&self, slot: usize, count: usize, config: &Config) -> Result<Row> {
        let (Some(pass), Some(behind)) = (&self.ahead.pass, slot.checked_sub(self.revealed)) else {
            return self.row(slot, count, config);
        };
        let check = behind.checked_sub(pass.places());
        let (token, output) = match check {
            None if behind < pass.proposed => (self.ahead.proposal(behind)?.token, pass.tokens_check),
            _ => (config.mask_token_id, true),
        };
        let position = self.position(self.revealed + check.unwrap_or(behind))?;
        let visible_slots = check.map_or(slot + 1, |check| self.revealed + check) as u32;
        Ok(Row { token, position, output, visible_slots, sees_itself: check.is_some() })
    }

    /// Whether a slot is the first of the masks that stand for proposed tokens, which are a segment of their own.
    pub(super) fn begins_checks(&self, slot: usize) -> bool {
        self.ahead.pass.is_some_and(|pass| slot == self.revealed + pass.places())
    }

    /// How many rows, from that of `slot` on, must go through the network together. `slots` are those that are due.
    pub(super) fn rows_together(&self, slot: usize, slots: &Range<usize>, config: &Config) -> usize {
        let first = self.revealed - self.given_tokens(config);
        let ahead = self.ahead.pass.is_some() && slot >= first;
        if self.block > 0 {
            return self.block_of(slot).end.min(slots.end).saturating_sub(slot).max(1);
        }
        if ahead || !config.variant.is_causal() { slots.end.saturating_sub(slot) } else { 1 }
    }

    /// Notes the row of logits that is about a slot. Returns whether it is for [`Sequence::look_ahead`].
    pub(super) fn notes_logits(&mut self, slot: usize, row: usize) -> bool {
        let Some(pass) = &mut self.ahead.pass else { return false };
        pass.due = true;
        let behind = slot.saturating_sub(self.revealed);
        if behind == if pass.tokens_check { 0 } else { pass.places() } {
            pass.checks_row = row;
        } else if behind == pass.proposed {
            pass.masks_row = row;
        }
        true
    }

    /// Whether there are logits for [`Sequence::look_ahead`].
    pub(super) fn has_logits_ahead(&self) -> bool {
        self.ahead.pass.is_some_and(|pass| pass.due)
    }

    /// Settles the proposed tokens by the logits of the batch, if they are there, and proposes the next ones. What is written,
    /// or the error, is in `ahead`.
    pub(super) fn look_ahead(
        &mut self,
        logits: &[f32],
        state: &mut DrawState,
        config: &Config,
        wants: StepWants,
    ) {
        let Some(mut pass) = self.ahead.pass.filter(|pass| pass.due) else { return };
        pass.due = false;
        state.text.clear();
        state.text.extend_from_slice(&self.tokens);
        let settled = self.settle(logits, state, config, wants, &mut pass);
        let proposed = settled.and_then(|()| self.propose(logits, state, config, &pass));
        if let Some(grammar) = &mut self.rules.grammar {
            grammar.back();
        }
        self.ahead.error = proposed.err();
        self.ahead.pass = Some(pass);
    }

    /// Decides which of the proposed tokens stay, and draws the one behind them.
    fn settle(
        &mut self,
        logits: &[f32],
        state: &mut DrawState,
        config: &Config,
        wants: StepWants,
        pass: &mut Pass,
    ) -> Result<()> {
        self.ahead.written.clear();
        for index in 0..pass.proposed + pass.masks.min(1) {
            let settled = self.settle_one(logits, state, config, wants, pass, index);
            let (written, accepted) = match settled {
                Ok(settled) => settled,
                // The next step finds it again, with the tokens before it written.
                Err(_) if index > 0 => break,
                Err(error) => return Err(error),
            };
            let token = written.token;
            write(&mut state.text, written.position, token)?;
            self.ahead.written.push(written);
            if let Some(grammar) = &mut self.rules.grammar
                && grammar.look(token).is_err()
            {
                pass.accepted += usize::from(accepted);
                break;
            }
            if !accepted {
                break;
            }
            pass.accepted += 1;
        }
        Ok(())
    }

    /// The token of the `index`th place behind the known ones, given those before it, and whether it is the proposed one.
    fn settle_one(
        &mut self,
        logits: &[f32],
        state: &mut DrawState,
        config: &Config,
        wants: StepWants,
        pass: &Pass,
        index: usize,
    ) -> Result<(WrittenToken, bool)> {
        let row = pass.row(index);
        let (slot, logits) = (self.revealed + index, logits_of(logits, row, config)?);
        let position = self.position(slot)?;
        let DrawState { processor, sampler, text } = state;
        let Self { rules, ahead, number, .. } = self;
        if let Some(grammar) = &mut rules.grammar {
            grammar.prepare().map_err(|error| {
                Error::invalid(format!("sequence {number}, position {position}: {error}"))
            })?;
        }
        let choice = LogitsRow { sequence: *number, slot, position, logits };
        let (constraints, grammar) = (rules.constraints.as_ref(), rules.grammar.as_ref());
        let processed = processor.process(constraints, grammar, &choice, text, None)?;
        let redraw = ahead.uniform(slot, Use::Draw);
        let (token, accepted) = if index < pass.proposed {
            let uniforms = [ahead.uniform(slot, Use::Accept), redraw];
            sampler.settle(processed, &rules.sampling, ahead.proposal(index)?, uniforms)?
        } else {
            (sampler.draw(processed, &rules.sampling, redraw)?, false)
        };
        let update = Update { sequence: *number as u32, position, token };
        let mut draw = Draw::new(row, slot, redraw, update);
        measure(config, wants, logits, rules, &mut draw)?;
        let Draw { log_prob, log_sum, .. } = draw;
        Ok((WrittenToken { row, slot, position, token, log_prob, log_sum }, accepted))
    }

    /// Proposes tokens behind those that were settled.
    fn propose(&mut self, logits: &[f32], state: &mut DrawState, config: &Config, pass: &Pass) -> Result<()> {
        let first = self.ahead.written.len();
        let most = (pass.proposed + pass.masks).saturating_sub(first).min(self.ahead.depth.most());
        self.ahead.next_count = 0;
        for index in first..first + most {
            let (slot, logits) = (self.revealed + index, logits_of(logits, pass.row(index), config)?);
            let position = self.position(slot)?;
            let DrawState { processor, sampler, text } = state;
            let Self { rules, ahead, number, .. } = self;
            let prepared = rules.grammar.as_mut().map_or(Ok(()), |grammar| grammar.prepare());
            let choice = LogitsRow { sequence: *number, slot, position, logits };
            let (constraints, grammar) = (rules.constraints.as_ref(), rules.grammar.as_ref());
            let uniform = ahead.uniform(slot, Use::Propose);
            let Some(proposal) = ahead.next.get_mut(ahead.next_count) else { break };
            let proposed = prepared
                .and_then(|()| processor.process(constraints, grammar, &choice, text, None))
                .and_then(|processed| sampler.propose(processed, &rules.sampling, uniform, proposal));
            match proposed {
                // The constraints may leave no token behind one that will not be written.
                Err(Error::InvalidArgument(_)) => break,
                proposed => proposed?,
            }
            let token = proposal.token;
            ahead.next_count += 1;
            write(text, position, token)?;
            if let Some(grammar) = &mut rules.grammar
                && grammar.look(token).is_err()
            {
                break;
            }
        }
        Ok(())
    }

    /// Writes the tokens of a pass, of which the first `accepted` had been proposed, up to one that ends the text. Returns their
    /// number.
    pub(super) fn write_run(
        &mut self,
        written: &[Update],
        accepted: usize,
        config: &Config,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<usize> {
        let (first, given) = (self.revealed, self.given_tokens(config));
        for update in written {
            write(&mut self.tokens, update.position, update.token)?;
            if let Some(grammar) = &mut self.rules.grammar {
                grammar.write(update.token);
            }
            self.revealed += 1;
            self.steps_done += 1;
            // A token that was proposed and fed has its final keys and values. The last one's row may have to tell of the next.
            self.committed = (self.revealed - given).min(first + accepted);
            if self.find_end(config.mask_token_id, tokenizer) {
                break;
            }
        }
        self.joining = 0;
        let kept = self.revealed.saturating_sub(first);
        self.end_text();
        Ok(kept)
    }
}

fn logits_of<'l>(logits: &'l [f32], row: usize, config: &Config) -> Result<&'l [f32]> {
    let found = logits.chunks_exact(config.vocab_size).nth(row);
    found.ok_or_else(|| Error::internal("a row of logits is missing"))
}

fn write(text: &mut [u32], position: u32, token: u32) -> Result<()> {
    let place = text.get_mut(position as usize);
    *place.ok_or_else(|| Error::internal("a token beyond the text"))? = token;
    Ok(())
}
