//! What the model makes of positions that are not written yet, without writing them.

use super::draw::DrawState;
use super::rules::SequenceRules;
use super::sequence::Sequence;
use super::session::Session;
use crate::error::{Error, Result};
use crate::forward::{Batch, ModelRunner, Row, Segment};
use crate::model::{Config, Variant};
#[cfg(feature = "capi")]
use crate::sample::TokenLogProb;
use crate::sample::{LogitsRow, has_nan_or_infinity};
use crate::simd::DefaultFloats;

impl Session {
    /// How many of the most likely tokens steps report for each update, those of the last step, and the most that a step may
    /// have.
    #[cfg(feature = "capi")]
    pub(crate) fn top_log_probs(&self) -> (usize, &[TokenLogProb], usize) {
        let per_update = self.wants.top_log_probs;
        let in_use = self.sequences.iter().filter(|sequence| sequence.in_use);
        let unknown = in_use.map(|sequence| sequence.order.len() - sequence.revealed);
        let written = self.buffers.top_log_probs.as_slice();
        (per_update, written, per_update * unknown.sum::<usize>() + written.len())
    }

    /// The network's logits at unknown positions, `[V]` for each; see [`Context::logits`](crate::Context::logits).
    pub(crate) fn logits(
        &mut self,
        runner: &mut ModelRunner,
        sequence: usize,
        positions: &[u32],
        out: &mut [f32],
    ) -> Result<()> {
        let _floats = DefaultFloats::set();
        let model = runner.model.clone();
        self.check_evaluated(model.config(), sequence, positions)?;
        let needed = positions.len().checked_mul(model.config().vocab_size);
        if needed != Some(out.len()) {
            let (given, positions) = (out.len(), positions.len());
            return Err(Error::invalid(format!("room for {given} logits at {positions} positions")));
        }
        let done = self.evaluate(runner, model.config(), sequence, positions, out);
        self.note_run(&done);
        done
    }

    /// The probabilities that tokens would be drawn with; see [`Context::probabilities`](crate::Context::probabilities).
    pub(crate) fn probabilities(
        &mut self,
        runner: &mut ModelRunner,
        sequence: usize,
        positions: &[u32],
        out: &mut [f32],
    ) -> Result<()> {
        self.logits(runner, sequence, positions, out)?;
        let _floats = DefaultFloats::set();
        let missing = || Error::internal("evaluating without a sequence or a state");
        let Self { sequences, buffers, .. } = self;
        let Sequence { order, revealed, tokens, rules, .. } =
            sequences.get_mut(sequence).ok_or_else(missing)?;
        let SequenceRules { sampling, constraints, grammar, .. } = rules;
        let next = order.get(*revealed).copied();
        let DrawState { processor, sampler, .. } = buffers.draw_states.first_mut().ok_or_else(missing)?;
        let vocab_size = runner.model.config().vocab_size;
        for (&position, out) in positions.iter().zip(out.chunks_exact_mut(vocab_size)) {
            let row = LogitsRow { sequence, slot: *revealed, position, logits: out };
            // The grammar says what comes next, and nothing of positions behind it.
            let grammar = grammar.as_mut().filter(|_| next == Some(position));
            let grammar = grammar.map(|grammar| grammar.prepare().map(|()| &*grammar)).transpose()?;
            let logits = processor.process(constraints.as_ref(), grammar, &row, tokens, None)?;
            if sampling.temperature == 0.0 {
                let most_likely = sampler.draw(logits, sampling, 0.0)?;
                out.fill(0.0);
                *out.get_mut(most_likely as usize).ok_or_else(missing)? = 1.0;
                continue;
            }
            let weights = sampler.filter(logits, sampling)?;
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (out, &weight) in out.iter_mut().zip(weights) {
                *out = (f64::from(weight) / total) as f32;
            }
        }
        Ok(())
    }

    /// Checks that the positions are unknown ones of the sequence, none twice, and that the model has logits there.
    fn check_evaluated(&mut self, config: &Config, sequence: usize, positions: &[u32]) -> Result<()> {
        let tokens = self.tokens(sequence)?;
        let first = tokens.iter().position(|&token| token == config.mask_token_id);
        let next_alone = self.sequence(sequence)?.predicts_next(config);
        if next_alone && positions.iter().any(|&position| Some(position as usize) != first) {
            let next = first.map_or("it is complete".into(), |first| format!("that is {first}"));
            return Err(Error::Unsupported(format!(
                "an autoregressive model has logits for the next position of a text alone ({next})"
            )));
        }
        let of = self.sequence(sequence)?;
        let current = of.block_of(of.order.get(of.revealed).map_or(0, |&next| next as usize));
        let outside = |&position: &u32| !current.contains(&(position as usize));
        if config.variant == Variant::Bd3Lm && positions.iter().any(outside) {
            return Err(Error::Unsupported(format!(
                "BD3-LM has logits for the block that is written ({} to {}) alone",
                current.start,
                current.end - 1
            )));
        }
        let Self { sequences, known, .. } = self;
        let missing = || Error::internal("evaluating without a sequence");
        // A window reaches beyond the text.
        let of = sequences.get(sequence).ok_or_else(missing)?;
        let tokens = of.tokens.get(..of.text_length).ok_or_else(missing)?;
        known.clear();
        known.extend_from_slice(tokens);
        for &position in positions {
            let bad = |what: &str| Err(Error::invalid(format!("position {position} {what}")));
            match known.get_mut(position as usize) {
                None => return bad("is beyond the text"),
                Some(token) if *token == config.mask_token_id => *token = 0,
                Some(_) if tokens.get(position as usize) == Some(&config.mask_token_id) => {
                    return bad("is given twice");
                }
                Some(_) => return bad("is written already"),
            }
        }
        Ok(())
    }

    /// Feeds the known tokens that have no final keys and values yet, as the next step would, and a mask for each position,
    /// and copies its logits. The next step feeds these tokens again.
    fn evaluate(
        &mut self,
        runner: &mut ModelRunner,
        config: &Config,
        sequence: usize,
        positions: &[u32],
        out: &mut [f32],
    ) -> Result<()> {
        let Self { sequences, buffers, .. } = self;
        let batch = &mut buffers.batch;
        let of = sequences.get(sequence).ok_or_else(|| Error::internal("evaluating without a sequence"))?;
        if positions.is_empty() {
            return Ok(());
        }
        let rows = runner.capacity.rows;
        // All rows of MDLM attend to each other; in an autoregressive model a token's row has the next one's logits.
        if config.variant == Variant::Mdlm || of.predicts_next(config) {
            let count = if config.variant == Variant::Mdlm { 0 } else { 1 };
            let mut slots = of.slots(config, count);
            if config.variant == Variant::Mdlm {
                fill_both_ways(batch, of, sequence, positions)?;
            } else {
                let row = |slot| of.row(slot, count, config);
                let end = slots.end;
                while slots.len() > rows {
                    feed(batch, sequence, slots.by_ref().take(rows), row)?;
                    runner.run(batch)?;
                }
                feed(batch, sequence, slots.start..end, row)?;
            }
            return copy(runner.run(batch)?.rows, out);
        }
        if config.variant == Variant::Bd3Lm {
            let row = |slot| of.block_row(slot, positions, config);
            let (mut slots, current) = (of.block_slots(), of.current_start());
            while slots.start < current {
                let whole = (rows / of.block.max(1) * of.block).min(current - slots.start);
                feed(batch, sequence, slots.by_ref().take(whole), row)?;
                runner.run(batch)?;
            }
            feed(batch, sequence, slots, row)?;
            return copy(runner.run(batch)?.rows, out);
        }
        let mut fed = of.slots(config, 0);
        let (mut positions, mut out) = (positions, out);
        while !positions.is_empty() {
            // Rows that attend to later ones are fed together.
            let together = if config.variant.is_causal() { fed.len().min(rows) } else { fed.len() };
            batch.clear();
            if together > 0 {
                feed(batch, sequence, fed.by_ref().take(together), |slot| of.row(slot, 0, config))?;
            }
            if !fed.is_empty() || together >= rows {
                runner.run(batch)?;
                continue;
            }
            let (now, later) = positions.split_at(positions.len().min(rows - together));
            fill_masks(batch, of, sequence, now, config.mask_token_id);
            let logits = runner.run(batch)?.rows;
            let (copied, rest) = out.split_at_mut(logits.len().min(out.len()));
            copy(logits, copied)?;
            (positions, out) = (later, rest);
        }
        Ok(())
    }
}

fn begin_segment(batch: &mut Batch, sequence: usize, first_slot: usize) {
    let first_row = batch.tokens.len();
    batch.segments.push(Segment { sequence, first_row, rows: 0, first_slot, outputs: 0 });
}

/// Fills a batch with the rows of `slots`, which `row` makes.
fn feed(
    batch: &mut Batch,
    sequence: usize,
    slots: impl Iterator<Item = usize>,
    row: impl Fn(usize) -> Result<Row>,
) -> Result<()> {
    batch.clear();
    for slot in slots {
        if batch.tokens.is_empty() {
            begin_segment(batch, sequence, slot);
        }
        batch.push(row(slot)?);
    }
    Ok(())
}

/// Adds a mask for each position, which attends to the known tokens and itself: as the next token alone.
fn fill_masks(batch: &mut Batch, of: &Sequence, sequence: usize, positions: &[u32], mask: u32) {
    let known = of.revealed + of.filled;
    begin_segment(batch, sequence, known);
    let visible_slots = known as u32;
    for &position in positions {
        batch.push(Row { token: mask, position, output: true, visible_slots, sees_itself: true });
    }
}

/// Fills a batch with all positions: the known ones, the other masks, and last those that are asked for.
fn fill_both_ways(batch: &mut Batch, of: &Sequence, sequence: usize, positions: &[u32]) -> Result<()> {
    let visible_slots = of.order.len() as u32;
    batch.clear();
    begin_segment(batch, sequence, 0);
    let (written, unwritten) = of.order.split_at(of.revealed);
    let others = unwritten.iter().filter(|position| !positions.contains(position));
    for (&position, output) in
        written.iter().chain(others).map(|p| (p, false)).chain(positions.iter().map(|p| (p, true)))
    {
        let token = of.token(position)?;
        batch.push(Row { token, position, output, visible_slots, sees_itself: false });
    }
    Ok(())
}

fn copy(logits: &[f32], out: &mut [f32]) -> Result<()> {
    if logits.len() != out.len() {
        return Err(Error::internal("other logits than those asked for"));
    }
    if has_nan_or_infinity(logits) {
        return Err(Error::logits_not_finite());
    }
    out.copy_from_slice(logits);
    Ok(())
}
