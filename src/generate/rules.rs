//! What holds for all steps of a sequence, and what the steps of all report.

use super::depth::Depth;
use super::request::GenerateParams;
use super::stop::StopRules;
use crate::error::Result;
use crate::model::{Config, Model, Tokenizer, Variant};
use crate::plan::Adaptive;
use crate::sample::{Constraints, GrammarState, SamplingParams};

/// What the caller asked for of one sequence.
#[derive(Debug, Default)]
pub(super) struct SequenceRules {
    pub(super) sampling: SamplingParams,
    /// Sorted.
    pub(super) constraints: Option<Constraints>,
    /// How far its grammar is matched.
    pub(super) grammar: Option<GrammarState>,
    pub(super) adaptive: Option<Adaptive>,
    /// Whether WeDLM writes one by one, as an autoregressive model does.
    pub(super) one_by_one: bool,
    pub(super) wants_log_probs: bool,
    pub(super) top_log_probs: usize,
    pub(super) stop: StopRules,
    /// How far it looks ahead, at first.
    pub(super) depth: Depth,
}

impl SequenceRules {
    /// Those that `params` has for each sequence alike: all but constraints. A pass takes as long as its rows and `overhead` more.
    /// Allocates for stop tokens and strings only.
    ///
    /// # Errors
    /// Those of [`StopRules::new`].
    pub(super) fn new(params: &GenerateParams<'_>, model: &Model, overhead: f64) -> Result<Self> {
        Ok(Self {
            sampling: params.sampling.resolved(&model.config().generation_defaults()),
            wants_log_probs: params.log_probs || params.top_log_probs > 0,
            top_log_probs: params.top_log_probs,
            adaptive: params.adaptive_for(model.config()),
            one_by_one: params.is_left_to_right(model.config()),
            stop: StopRules::new(params, model)?,
            depth: Depth::new(params, model, overhead)?,
            ..Self::default()
        })
    }

    /// The tokenizer, if the bytes of the text are looked at.
    pub(super) fn tokenizer<'m>(&self, model: &'m Model) -> Result<Option<&'m Tokenizer>> {
        if self.stop.need_bytes() { model.tokenizer().map(Some) } else { Ok(None) }
    }

    /// Whether a device that draws tokens can draw these.
    pub(super) fn are_basic(&self, config: &Config) -> bool {
        let Self { sampling, constraints, grammar, adaptive, wants_log_probs, depth, .. } = self;
        let alone = depth.most() == 0 && grammar.is_none() && adaptive.is_none() && !wants_log_probs;
        // Devices have the temperature before the filters, and add the output's bias as they draw.
        let cools = config.variant == Variant::WeDlm && sampling.has_filters();
        let draws = config.architecture.output_bias && !cools;
        alone && draws && constraints.as_ref().is_none_or(Constraints::only_bans) && sampling.is_basic()
    }
}

/// What a sequence that is about to begin was checked to have.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// Its length in tokens; 0 for one that has left, and does not go on.
    pub(super) length: usize,
    pub(super) rules: SequenceRules,
}

/// What the steps report, as the sequences that are in use want it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StepWants {
    pub(super) log_probs: bool,
    /// How many of the most likely tokens: as many as the sequence that wants the most.
    pub(super) top_log_probs: usize,
    pub(super) confidences: bool,
}
