//! A step's tokens, drawn on the device that computed the logits.

use super::sequence::Sequence;
use super::session::{Session, StepBuffers};
use super::update::Update;
use crate::error::{Error, Result};
use crate::forward::ModelRunner;
use crate::ggml::DrawRow;
use crate::model::Config;

impl Session {
    /// Whether nothing but tokens is wanted of the logits, and the device can draw them.
    pub(super) fn draws_on(&self, runner: &ModelRunner) -> bool {
        let mut in_use = self.sequences.iter().filter(|sequence| sequence.in_use);
        runner.draws() && in_use.all(|sequence| sequence.rules.are_basic(runner.model.config()))
    }

    /// Runs the batch and has the device draw its tokens.
    pub(super) fn draw_on_device(&mut self, runner: &mut ModelRunner, config: &Config) -> Result<()> {
        self.list_draws(config)?;
        let Self { sequences, buffers, failed, .. } = self;
        let StepBuffers { batch, draws, draw_rows, drawn, banned, updates, .. } = buffers;
        for sequence in sequences.iter_mut().filter(|sequence| sequence.in_use && !sequence.is_banned_there) {
            if let Some(constraints) = &sequence.rules.constraints {
                banned.clear();
                banned.resize(config.vocab_size.div_ceil(u32::BITS as usize), 0);
                constraints.mark_banned(banned);
                runner.ban(sequence.number, banned)?;
            }
            sequence.is_banned_there = true;
        }
        draw_rows.clear();
        for draw in draws.iter() {
            let sequence = sequences.get(draw.update.sequence as usize);
            let Sequence { rules, number, .. } =
                sequence.ok_or_else(|| Error::internal("a draw without a sequence"))?;
            let banned = match rules.constraints {
                Some(_) => *number as i32,
                None => DrawRow::NOTHING_BANNED,
            };
            let sampling = &rules.sampling;
            draw_rows.push(DrawRow {
                uniform: draw.uniform,
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
                banned,
                unused: 0,
            });
        }
        drawn.clear();
        drawn.resize(draws.len(), 0);
        let result = runner.run_and_draw(batch, draw_rows, drawn);
        if result.is_err() {
            // Whose logits are not finite gets no token.
            let without = draws.iter().zip(&*drawn).find(|&(_, &token)| token < 0);
            *failed = without.map(|(draw, _)| draw.update.sequence as usize);
        }
        result?;
        for (draw, &token) in draws.drain(..).zip(&*drawn) {
            updates.push(Update { token: token as u32, ..draw.update });
        }
        Ok(())
    }
}
