//! What a generation has done, and the lines of --json.

use std::time::Duration;

use esolm::{Context, Model, Result, Step, StopReason, TokenLogProb, Update};
use serde_json::{Value, json};

use crate::input::tokenizer;
use crate::memory;
use crate::plot::Series;

/// What a generation has done.
pub struct Generated {
    pub tokens: usize,
    pub steps: usize,
    /// Tokens that --lookahead proposed, and those of them that were written.
    pub proposed: usize,
    pub accepted: usize,
    /// Time of the steps, without that of showing them.
    pub seconds: f64,
    /// A series of points per text; none without --plot.
    pub points: Vec<Series>,
    /// Whether the text was printed as it grew.
    pub streamed: bool,
    /// Whether what was printed meanwhile could be printed.
    pub printed: Result<()>,
    /// Whether Ctrl-C has ended it.
    pub interrupted: bool,
}

impl Generated {
    /// Tokens written per second of the steps.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

/// A token. One that is no whole character has bytes instead of a text.
fn token_line(model: &Model, token: u32, log_prob: Value) -> Result<Value> {
    let mut line = json!({ "token": token, "text": null, "log_prob": log_prob });
    if let Some(tokenizer) = tokenizer(model)?
        && let Some(bytes) = tokenizer.token_piece(token)?
    {
        match String::from_utf8(bytes) {
            Ok(text) => line["text"] = text.into(),
            Err(part) => line["bytes"] = part.into_bytes().into(),
        }
    }
    Ok(line)
}

/// A step, with the `top` most likely tokens at each position.
pub fn step(model: &Model, step: &Step<'_>, top: usize) -> Result<Value> {
    let entry = |entry: &TokenLogProb| token_line(model, entry.token, entry.log_prob.into());
    let mut tops = step.top_log_probs.chunks_exact(top.max(1));
    let update = |(update, log_prob): (&Update, &f64)| {
        let Update { sequence, position, token } = *update;
        let mut line = token_line(model, token, (*log_prob).into())?;
        line["sequence"] = sequence.into();
        line["position"] = position.into();
        if let Some(entries) = tops.next() {
            line["top_log_probs"] = entries.iter().map(entry).collect::<Result<Vec<_>>>()?.into();
        }
        Ok(line)
    };
    let updates = step.updates.iter().zip(step.log_probs).map(update).collect::<Result<Vec<_>>>()?;
    let texts: Vec<&str> = (0..step.sequences()).map(|sequence| step.text(sequence)).collect();
    Ok(json!({ "step": step.index, "of": step.total, "updates": updates, "texts": texts,
        "proposed": step.proposed, "accepted": step.accepted }))
}

/// The whole generation.
pub fn whole(
    context: &Context,
    texts: &[Option<String>],
    generated: &Generated,
    ready: Duration,
    seed: u64,
) -> Result<Value> {
    let tokens = (0..texts.len()).map(|i| context.tokens(i)).collect::<Result<Vec<_>>>()?;
    let orders = (0..texts.len()).map(|i| context.order(i)).collect::<Result<Vec<_>>>()?;
    let stop_reasons = (0..texts.len()).map(|i| Ok(context.stop_reason(i)?.map(StopReason::name)));
    let stop_reasons = stop_reasons.collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "texts": texts,
        "tokens": tokens,
        "orders": orders,
        "stop_reasons": stop_reasons,
        "seed": seed,
        "steps": generated.steps,
        "proposed": generated.proposed,
        "accepted": generated.accepted,
        "tokens_written": generated.tokens,
        "ready_seconds": ready.as_secs_f64(),
        "seconds": generated.seconds,
        "tokens_per_second": generated.tokens_per_second(),
        "device": context.model().device(),
        "threads": context.threads(),
        "resident_bytes": memory::resident(),
    }))
}
