//! A row of logits to a token.

use super::rules::{SequenceRules, StepWants};
use super::sequence::Sequence;
use super::update::Update;
use crate::error::{Error, Result};
use crate::memory::with_room;
use crate::model::{Config, Variant};
use crate::sample::{LogitsFn, LogitsProcessor, LogitsRow, Sampler, log_sum, without_mask};

/// A row of logits, the random number that decides, and the token drawn.
#[derive(Debug)]
pub(super) struct Draw {
    /// The row among the rows of logits of the batch.
    pub(super) row: usize,
    /// The place in generation order.
    pub(super) slot: usize,
    pub(super) uniform: f64,
    pub(super) update: Update,
    pub(super) log_prob: f64,
    /// log sum exp of the logits.
    pub(super) log_sum: f64,
    pub(super) confidence: f32,
    pub(super) error: Option<Error>,
}

impl Draw {
    pub(super) fn new(row: usize, slot: usize, uniform: f64, update: Update) -> Self {
        Self { row, slot, uniform, update, log_prob: 0.0, log_sum: 0.0, confidence: 0.0, error: None }
    }
}

/// What a thread draws tokens with. Nothing is allocated after it is made.
#[derive(Debug)]
pub(super) struct DrawState {
    pub(super) processor: LogitsProcessor,
    pub(super) sampler: Sampler,
    /// A text with tokens that are not written yet.
    pub(super) text: Vec<u32>,
}

impl DrawState {
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn new(config: &Config, length: usize) -> Result<Self> {
        let sampler = Sampler::of_model(config)?;
        Ok(Self { processor: LogitsProcessor::new(config, length)?, sampler, text: with_room(length)? })
    }
}

/// Who chooses the tokens. A caller's function is called row by row, on the caller's thread.
pub(crate) enum TokenChoice<'a> {
    /// The sampler.
    Sample,
    /// The sampler, after a function of the caller's has changed the logits.
    Logits(LogitsFn<'a>),
    /// The same for the sequences that `of` names, the sampler for the others.
    #[cfg_attr(
        not(feature = "capi"),
        expect(dead_code, reason = "C alone has functions for a sequence each")
    )]
    LogitsOf { change: LogitsFn<'a>, of: &'a dyn Fn(usize) -> bool },
    /// A function of the caller's.
    Token(&'a mut dyn FnMut(&mut Sampler, &LogitsRow<'_>) -> Result<u32>),
}

impl TokenChoice<'_> {
    /// Whether the sampler alone draws for a sequence.
    pub(super) fn leaves_alone(&self, sequence: usize) -> bool {
        match self {
            Self::Sample => true,
            Self::Logits(_) | Self::Token(_) => false,
            Self::LogitsOf { of, .. } => !of(sequence),
        }
    }
}

/// What all draws of a step have in common.
pub(super) struct DrawRules<'a> {
    pub(super) config: &'a Config,
    /// Their tokens are those from before the step.
    pub(super) sequences: &'a [Sequence],
    pub(super) wants: StepWants,
}

impl DrawRules<'_> {
    /// Draws a token from its row of `logits`, which are those of all rows [V, rows].
    pub(super) fn draw(
        &self,
        logits: &[f32],
        state: &mut DrawState,
        draw: &mut Draw,
        choice: &mut TokenChoice<'_>,
    ) -> Result<()> {
        let missing = || Error::internal("a row of logits is missing");
        let logits = logits.chunks_exact(self.config.vocab_size).nth(draw.row).ok_or_else(missing)?;
        let Update { sequence: number, position, .. } = draw.update;
        let sequence = self.sequences.get(number as usize);
        let sequence = sequence.ok_or_else(|| Error::internal("a row of logits without a sequence"))?;
        let Sequence { tokens, rules, .. } = sequence;
        let row = LogitsRow { sequence: number as usize, slot: draw.slot, position, logits };
        let DrawState { processor, sampler, .. } = state;
        let change = match choice {
            TokenChoice::Sample => None,
            TokenChoice::Logits(change) => Some(&mut **change as LogitsFn<'_>),
            TokenChoice::LogitsOf { change, of } => of(row.sequence).then_some(&mut **change as LogitsFn<'_>),
            TokenChoice::Token(choose) => {
                let token = choose(sampler, &row)?;
                if !self.config.is_writable(token) {
                    return Err(Error::invalid(format!("token {token} cannot be chosen")));
                }
                if let Some(grammar) = &rules.grammar {
                    grammar.check(token, &row)?;
                }
                draw.update.token = token;
                return measure(self.config, self.wants, logits, rules, draw);
            }
        };
        let (constraints, grammar) = (rules.constraints.as_ref(), rules.grammar.as_ref());
        let processed = processor.process(constraints, grammar, &row, tokens, change)?;
        draw.update.token = sampler.draw(processed, &rules.sampling, draw.uniform)?;
        measure(self.config, self.wants, logits, rules, draw)
    }
}

/// Works out what the caller or the adaptive step wants to know of the token.
pub(super) fn measure(
    config: &Config,
    wants: StepWants,
    logits: &[f32],
    rules: &SequenceRules,
    draw: &mut Draw,
) -> Result<()> {
    let mask = config.mask_token_id;
    if wants.log_probs {
        draw.log_sum = log_sum(logits, mask)?;
        let missing = || Error::internal("a token without a logit");
        let logit = *logits.get(draw.update.token as usize).ok_or_else(missing)?;
        draw.log_prob = f64::from(logit) - draw.log_sum;
    }
    if let Some(adaptive) = rules.adaptive {
        // WeDLM's entropy is that of all tokens (`compute_entropy` of the authors' engine).
        let counted = match config.variant {
            Variant::WeDlm => [logits, &[]],
            _ => without_mask(logits, mask),
        };
        draw.confidence = adaptive.confidence(counted);
    }
    Ok(())
}
