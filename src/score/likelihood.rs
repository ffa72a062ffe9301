//! Log-probabilities of a text's tokens.
//!
//! An any-order model gives a text a probability for each order of its tokens. [`Scorer::order`] computes it, one token
//! at a time; [`Scorer::masked`] is one step of diffusion, all unknown tokens at once. `bound` makes bounds of them.

use crate::error::{Error, Result};
use crate::forward::{Batch, ModelRunner, Row, Segment};
use crate::generate::{Session, TokenChoice};
use crate::memory::{collected, filled, reserve, try_collected, with_room};
use crate::model::{Config, Variant};
use crate::plan::Plan;
use crate::sample::{LogitsRow, SamplingParams, log_probability};
use crate::simd::DefaultFloats;

/// Scores texts with a model and the cache of a session, whose generation it ends.
pub(crate) struct Scorer<'a> {
    pub(crate) runner: &'a mut ModelRunner,
    pub(crate) session: &'a mut Session,
}

impl Scorer<'_> {
    /// See [`Context::score_order`](crate::Context::score_order).
    pub(crate) fn order(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        let _floats = DefaultFloats::set();
        let Self { runner, session } = self;
        let model = runner.model.clone();
        let config = model.config();
        if matches!(config.variant, Variant::Mdlm | Variant::Bd3Lm) {
            let name = if config.variant == Variant::Mdlm { "MDLM" } else { "BD3-LM" };
            return Err(Error::Unsupported(format!(
                "{name} writes in no order; it has a bound (NELBO) only"
            )));
        }
        if config.diffusion_only {
            return Err(Error::Unsupported(
                "this Eso-LM (A) was trained for the diffusion phase alone; it has a bound (NELBO) only"
                    .into(),
            ));
        }
        let text = OrderedText { config, tokens, order, known };
        let unknown = order.len().saturating_sub(known);
        let plan = text.plan(filled(unknown, 1)?, 0)?;
        session.begin_with_plans(runner, &[plan], SamplingParams::FULL, 0)?;
        if runner.capacity.rows < 2 {
            return self.steps(&text, order);
        }
        session.reset();
        let scores = self.at_once(&text, unknown);
        self.session.note_run(&scores);
        scores
    }

    /// Log-probabilities of the last `unknown` tokens of the order, of as many in a batch as have room.
    fn at_once(&mut self, text: &OrderedText<'_>, unknown: usize) -> Result<Vec<f64>> {
        let OrderedText { config, known, .. } = *text;
        let runner = &mut *self.runner;
        let rows = runner.capacity.rows;
        let mut scores = with_room(unknown)?;
        let mut batch = Batch::with_capacity(rows, 2)?;
        // The slots before this one have keys and values in the cache.
        let mut committed = 0;
        while scores.len() < unknown {
            // A place whose token is given has no row in an autoregressive model.
            let first = known + scores.len() - config.given_tokens();
            let masks = runner.max_scored_masks().min(unknown - scores.len());
            batch.clear();
            committed = match config.variant {
                // A long prefix is fed first. (Where it attends both ways, a batch has room for it.)
                Variant::EsoB if first - committed + 2 * masks > rows => {
                    text.fill_blocks(&mut batch, committed, first.min(committed + rows), 0)?
                }
                Variant::Ar | Variant::WeDlm if first - committed + masks > rows => {
                    text.fill_next(&mut batch, committed, first.min(committed + rows), 0)?
                }
                Variant::Ar | Variant::WeDlm => {
                    text.fill_next(&mut batch, committed, first + masks, masks)?
                }
                _ => text.fill_blocks(&mut batch, committed, first, masks)?,
            };
            let logits = runner.run(&batch)?.rows;
            for (i, logits) in logits.chunks_exact(config.vocab_size).enumerate() {
                let (_, token) = text.at(first + config.given_tokens() + i)?;
                scores.push(log_probability(logits, token, config.mask_token_id)?);
            }
        }
        Ok(scores)
    }

    /// See [`Context::score_masked`](crate::Context::score_masked).
    pub(crate) fn masked(&mut self, tokens: &[u32], order: &[u32], known: usize) -> Result<Vec<f64>> {
        let _floats = DefaultFloats::set();
        let Self { runner, session } = self;
        let model = runner.model.clone();
        let config = model.config();
        if matches!(config.variant, Variant::Ar | Variant::WeDlm) {
            return Err(Error::Unsupported("an autoregressive model does not diffuse".into()));
        }
        let unknown = order.len().saturating_sub(known);
        let mut sorted = collected(order.iter().copied())?;
        let mut counts = collected(Some(unknown as u32).filter(|&count| count > 0).into_iter())?;
        if config.block_length > 0 {
            // Block by block, each behind the tokens before it.
            let rest = sorted.get_mut(known..).unwrap_or_default();
            rest.sort_unstable();
            let block = |position: &u32| *position as usize / config.block_length;
            let blocks = rest.chunk_by(|a, b| block(a) == block(b));
            counts.clear();
            reserve(&mut counts, rest.len())?;
            counts.extend(blocks.map(|block| block.len() as u32));
        }
        let text = OrderedText { config, tokens, order: &sorted, known };
        let plan = text.plan(counts, unknown)?;
        session.begin_with_plans(runner, &[plan], SamplingParams::FULL, 0)?;
        self.steps(&text, order)
    }

    /// Runs the steps of the plan that was begun, which write the text's tokens, and ends the generation. Returns the log-probabilities in
    /// `order`, from the first unknown position on.
    fn steps(&mut self, text: &OrderedText<'_>, order: &[u32]) -> Result<Vec<f64>> {
        let Self { runner, session } = self;
        let mask = text.config.mask_token_id;
        let missing = || Error::internal("a step wrote a token beyond the text");
        let mut by_position = filled(text.tokens.len(), 0.0)?;
        let mut choose = |_: &mut _, row: &LogitsRow<'_>| {
            let position = row.position as usize;
            let token = *text.tokens.get(position).ok_or_else(missing)?;
            *by_position.get_mut(position).ok_or_else(missing)? = log_probability(row.logits, token, mask)?;
            Ok(token)
        };
        let outcome = loop {
            match session.step(runner, TokenChoice::Token(&mut choose)) {
                Ok(Some(_)) => (),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        session.reset();
        outcome?;
        let score = |&position: &u32| by_position.get(position as usize).copied().ok_or_else(missing);
        try_collected(order.iter().skip(text.known).map(score))
    }
}

/// A text and the order that it is scored in.
struct OrderedText<'a> {
    config: &'a Config,
    /// By position.
    tokens: &'a [u32],
    order: &'a [u32],
    /// How many of the first positions of the order are given.
    known: usize,
}

impl OrderedText<'_> {
    /// The plan of a generation that writes the text in so many steps.
    fn plan(&self, counts: Vec<u32>, diffusion: usize) -> Result<Plan> {
        let &Self { config, tokens, order, known } = self;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            let size = config.vocab_size;
            return Err(Error::invalid(format!("token {token} is outside the vocabulary of {size}")));
        }
        if order.len() != tokens.len() || known > order.len() {
            return Err(Error::invalid("an order must name every position once"));
        }
        let token = |&p: &u32| {
            let token = tokens.get(p as usize).copied();
            token.ok_or_else(|| Error::invalid(format!("the order names position {p}, beyond the text")))
        };
        let known = try_collected(order.iter().take(known).map(token))?;
        Ok(Plan { known, order: collected(order.iter().copied())?, counts, diffusion })
    }

    /// The position at a place of the order, and its token.
    fn at(&self, place: usize) -> Result<(u32, u32)> {
        let position = self.order.get(place).copied();
        let found = position.and_then(|p| Some((p, *self.tokens.get(p as usize)?)));
        found.ok_or_else(|| Error::internal(format!("place {place} is outside the text")))
    }

    /// Fills a batch with the tokens from slot `committed` on, up to those that the masks stand for, and then with the
    /// masks for the slots from `first` on. Each mask attends to the slots before its own and to itself. Returns the
    /// slot up to which keys and values are final after the batch.
    fn fill_blocks(&self, batch: &mut Batch, committed: usize, first: usize, masks: usize) -> Result<usize> {
        // No mask of this batch attends to the last one's token, but those of the next batch do.
        let end = first + masks;
        let segment =
            |first_row, first_slot| Segment { sequence: 0, first_row, rows: 0, first_slot, outputs: 0 };
        batch.segments.push(segment(0, committed));
        for slot in committed..end {
            let both_ways = self.config.variant == Variant::EsoA && slot < self.known;
            let visible_slots = if both_ways { self.known } else { slot + 1 } as u32;
            let (position, token) = self.at(slot)?;
            batch.push(Row { token, position, output: false, visible_slots, sees_itself: false });
        }
        if masks > 0 {
            batch.segments.push(segment(batch.tokens.len(), end));
        }
        for slot in first..end {
            let (position, _) = self.at(slot)?;
            let token = self.config.mask_token_id;
            batch.push(Row { token, position, output: true, visible_slots: slot as u32, sees_itself: true });
        }
        Ok(end)
    }

    /// Fills a batch for an autoregressive model: the row of a slot is the token before it. The last `outputs` rows
    /// want logits. Returns the slot up to which keys and values are final after the batch.
    fn fill_next(&self, batch: &mut Batch, committed: usize, end: usize, outputs: usize) -> Result<usize> {
        batch.segments.push(Segment {
            sequence: 0,
            first_row: 0,
            rows: 0,
            first_slot: committed,
            outputs: 0,
        });
        for slot in committed..end {
            batch.push(Row::before(self.config, slot, slot + outputs >= end, |place| self.at(place))?);
        }
        Ok(end)
    }
}
