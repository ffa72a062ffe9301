//! What a caller asks for: prompts and parameters.

use crate::error::{Error, Result};
use crate::memory::with_room;
use crate::model::{Config, Variant};
use crate::plan::{Adaptive, Order, PlanParams, Schedule};
use crate::sample::{Constraints, SamplingParams};

/// The known tokens of one sequence, at any positions. A model that has [`Config::needs_first_token`] needs the one at
/// position 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Pairs of position and token, in any order, no position twice.
    pub known: Vec<(u32, u32)>,
}

impl Prompt {
    /// `tokens` at the positions from 0 on.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn prefix(tokens: &[u32]) -> Result<Self> {
        let mut known = with_room(tokens.len())?;
        known.extend((0..).zip(tokens.iter().copied()));
        Ok(Self { known })
    }
}

/// Steps of the diffusion phase if their number is not given.
const DEFAULT_STEPS: usize = 128;

/// Parameters of a generation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateParams<'a> {
    /// Length of a sequence in tokens, prompt included; 0 is the context's length.
    pub length: usize,
    /// Most tokens of a sequence behind its prompt. 0 is no limit but the length; with both, the smaller one counts.
    pub max_tokens: usize,
    /// Tokens that end a text when the model writes them behind the prompt, as the end-of-text token does. (What is written
    /// before the prompt's last token, and at position 0, ends no text.)
    pub stop_tokens: &'a [u32],
    /// Texts that end a text when the model writes them behind the prompt, over any borders of tokens; the text ends before
    /// them.
    pub stop_strings: &'a [&'a str],
    /// Whether the end-of-text token is a token as others are. (It may still be written; ban it, or it is left out of the
    /// text.)
    pub ignore_eos: bool,
    /// Whether steps say what text they made final: [`Step::text`](crate::Step::text).
    pub step_text: bool,
    /// Fraction of the unknown tokens that the diffusion phase writes, several per step; the sequential phase writes
    /// the rest one by one, left to right. 1 is all diffusion, 0 plain autoregression. (MDLM is always all diffusion, an
    /// autoregressive model never; a model that has [`Config::diffusion_only`] takes 1 only.)
    /// [`GenerateParams::ALPHA_0_AUTO`], the default, is 1 if adaptive steps or an order other than left to right is given, or
    /// if the model does nothing else; otherwise what the model's file says ([`Defaults`](crate::Defaults)), or 0, which writes
    /// the best text (WeDLM: or 1, its window, without lookahead). With steps or a schedule it is 1 where it would be 0; with a
    /// grammar it is 0, unless adaptive steps, an order, steps or a schedule is given.
    pub alpha_0: f64,
    /// Number of steps of the diffusion phase (T); steps that would write no token are skipped. 0 (default):
    /// what the model's file says, otherwise 128.
    pub steps: usize,
    /// The order of the positions.
    pub order: Order<'a>,
    /// The number of tokens of each step.
    pub schedule: Schedule<'a>,
    /// Confidence-based steps instead of a schedule. Needs an alpha_0 of 1.
    pub adaptive: Option<Adaptive>,
    /// Sampling of tokens.
    pub sampling: SamplingParams,
    /// Constraints: none, one for all sequences, or one per sequence.
    pub constraints: &'a [Constraints],
    /// How many tokens a step proposes, of which it writes as many as the model would have drawn one by one, and one more: the
    /// text has the same distribution as with 0 (default), which is off, in fewer steps (`docs/lookahead.md`). At most 16, or
    /// [`GenerateParams::LOOKAHEAD_AUTO`]: as many as pay, by those accepted so far. It acts where steps write one token each.
    /// For Eso-LM, and for WeDLM, which writes one by one with it;
    /// [`Context::step_with_logits`](crate::Context::step_with_logits) and
    /// [`Context::step_with_tokens`](crate::Context::step_with_tokens) write one token. The context's
    /// [`batch_rows`](crate::ContextParams) must be three times as many and one.
    pub lookahead: u32,
    /// Whether steps report the log-probabilities of their tokens, which takes a little time.
    pub log_probs: bool,
    /// How many of the most likely tokens at each written position steps report, with their log-probabilities: less than
    /// the size of the vocabulary. 0 is none. Includes `log_probs`.
    pub top_log_probs: usize,
    /// The same seed, parameters and prompts give the same text. The random numbers of a sequence depend on the seed
    /// and on its index only.
    pub seed: u64,
}

impl GenerateParams<'_> {
    /// The defaults of the library, its bindings and the command line: `docs/samples.md` says why.
    pub const DEFAULT: Self = Self {
        length: 0,
        max_tokens: 0,
        stop_tokens: &[],
        stop_strings: &[],
        ignore_eos: false,
        step_text: false,
        alpha_0: Self::ALPHA_0_AUTO,
        steps: 0,
        order: Order::Random,
        schedule: Schedule::Reference,
        adaptive: None,
        sampling: SamplingParams::DEFAULT,
        constraints: &[],
        lookahead: 0,
        log_probs: false,
        top_log_probs: 0,
        seed: 0,
    };

    /// For [`GenerateParams::lookahead`]: as many as pay.
    pub const LOOKAHEAD_AUTO: u32 = u32::MAX;
    /// For [`GenerateParams::alpha_0`]: by what else is asked for, and by the model.
    pub const ALPHA_0_AUTO: f64 = -1.0;

    /// Checks everything that does not depend on the prompts.
    pub(crate) fn validate(&self, config: &Config, sequences: usize) -> Result<()> {
        self.sampling.resolved(&config.generation_defaults()).validate()?;
        if !(0.0..=1.0).contains(&self.alpha_0) && self.alpha_0 != Self::ALPHA_0_AUTO {
            return Err(Error::invalid(format!("alpha_0 is {}, not in 0..=1", self.alpha_0)));
        }
        let alpha_0 = self.alpha_0_for(config);
        if config.diffusion_only && alpha_0 != 1.0 {
            return Err(Error::invalid(format!(
                "alpha_0 is {alpha_0}: this Eso-LM (A) was trained for the diffusion phase alone, so it has to be 1"
            )));
        }
        if self.steps > 1 << 20 {
            return Err(Error::invalid(format!("{} steps; at most {}", self.steps, 1 << 20)));
        }
        self.schedule.validate()?;
        if let Some(adaptive) = self.adaptive {
            adaptive.validate()?;
            let has_phases = config.variant != Variant::Bd3Lm;
            if config.variant == Variant::Ar || has_phases && alpha_0 != 1.0 {
                return Err(Error::invalid(
                    "adaptive steps are for diffusion alone: alpha_0 of 1, and no autoregressive model",
                ));
            }
            if self.schedule != Schedule::Reference {
                return Err(Error::invalid("steps are adaptive or have a schedule, not both"));
            }
        }
        if self.top_log_probs >= config.vocab_size {
            let (wanted, most) = (self.top_log_probs, config.vocab_size - 1);
            return Err(Error::invalid(format!("top_log_probs is {wanted}; there are {most} tokens")));
        }
        if ![0, 1, sequences].contains(&self.constraints.len()) {
            let given = self.constraints.len();
            return Err(Error::invalid(format!("{given} constraints for {sequences} sequences")));
        }
        self.validate_window(config, alpha_0)?;
        let own_orders = [Order::Random, Order::Blocks { size: config.block_length }];
        if config.variant == Variant::Bd3Lm && !own_orders.contains(&self.order) {
            return Err(Error::invalid("BD3-LM writes its blocks from left to right, and each at random"));
        }
        match config.variant {
            Variant::Ar if !self.order.is_left_to_right() || !self.schedule.is_one_by_one() => {
                Err(Error::invalid("an autoregressive model writes one by one, from left to right"))
            }
            Variant::EsoA if matches!(self.order, Order::Blocks { .. }) && ![0.0, 1.0].contains(&alpha_0) => {
                Err(Error::invalid(
                    "Eso-LM (A) diffuses before it writes one by one: in blocks, alpha_0 is 0 or 1",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The alpha_0 that is meant, with this model.
    fn alpha_0_for(&self, config: &Config) -> f64 {
        let by_order = !matches!(self.order, Order::Random | Order::LeftToRight);
        let by_steps = self.steps > 0 || self.schedule != Schedule::Reference;
        let own = if config.variant == Variant::WeDlm { 1.0 } else { 0.0 };
        let file = config.defaults.alpha_0.map_or(own, f64::from);
        match self.alpha_0 {
            Self::ALPHA_0_AUTO if by_order || self.adaptive.is_some() || config.diffusion_only => 1.0,
            // Who looks ahead wants the distribution of one by one.
            Self::ALPHA_0_AUTO if config.variant == Variant::WeDlm && self.lookahead > 0 => 0.0,
            Self::ALPHA_0_AUTO if by_steps && file == 0.0 => 1.0,
            // It is matched from left to right.
            Self::ALPHA_0_AUTO
                if !by_steps && self.constraints.iter().any(|rules| rules.grammar.is_some()) =>
            {
                0.0
            }
            Self::ALPHA_0_AUTO => file,
            given => given,
        }
    }

    /// The adaptive steps that are meant, with this model.
    pub(super) fn adaptive_for(&self, config: &Config) -> Option<Adaptive> {
        let slides = config.variant == Variant::WeDlm && self.alpha_0_for(config) == 1.0;
        let adaptive = self.adaptive.or(slides.then_some(Adaptive::WEDLM))?;
        Some(Adaptive { in_order: adaptive.in_order || slides, ..adaptive })
    }

    /// Checks what WeDLM, and sliding windows, take.
    fn validate_window(&self, config: &Config, alpha_0: f64) -> Result<()> {
        let any_order = matches!(self.order, Order::Random | Order::LeftToRight);
        if self.adaptive_for(config).is_some_and(|adaptive| adaptive.in_order) {
            if !config.variant.is_causal() {
                return Err(Error::invalid(
                    "windows that slide in order take a causal model: WeDLM, Eso-LM (B)",
                ));
            }
            if !any_order {
                return Err(Error::invalid("a window that slides in order goes from left to right"));
            }
        }
        let adaptive = self.adaptive_for(config);
        if adaptive.is_some_and(|adaptive| adaptive.window == Adaptive::WINDOW_AUTO && !adaptive.in_order) {
            return Err(Error::invalid("the size of a window is found out where it slides in order"));
        }
        if config.variant != Variant::WeDlm {
            return Ok(());
        }
        if ![0.0, 1.0].contains(&alpha_0) {
            return Err(Error::invalid(
                "WeDLM writes with a sliding window (alpha_0 of 1) or one by one (0)",
            ));
        }
        if !any_order || self.schedule != Schedule::Reference || self.steps > 0 {
            return Err(Error::invalid(
                "WeDLM has neither orders nor schedules nor a number of steps: its window fills what it is certain of",
            ));
        }
        Ok(())
    }

    /// Whether the tokens are written one by one, from left to right, whatever is drawn.
    pub(super) fn is_left_to_right(&self, config: &Config) -> bool {
        let alpha_0 = self.plan_params(config).alpha_0;
        let sequential = alpha_0 == 0.0 && matches!(self.order, Order::Random | Order::LeftToRight);
        let in_order =
            matches!(self.order, Order::LeftToRight | Order::Custom(_)) && self.order.is_left_to_right();
        let one_by_one = matches!(self.schedule, Schedule::Custom(_)) && self.schedule.is_one_by_one();
        self.adaptive_for(config).is_none() && (sequential || in_order && one_by_one)
    }

    /// What orders and schedules are drawn from.
    pub(super) fn plan_params(&self, config: &Config) -> PlanParams<'_> {
        let &Self { order, schedule, steps, seed, .. } = self;
        let alpha_0 = match config.variant {
            Variant::EsoA | Variant::EsoB | Variant::WeDlm => self.alpha_0_for(config),
            Variant::Mdlm | Variant::Bd3Lm => 1.0,
            Variant::Ar => 0.0,
        };
        let default = || config.defaults.steps.map_or(DEFAULT_STEPS, |steps| steps as usize);
        let steps_given = steps > 0 || config.defaults.steps.is_some();
        let steps = if steps == 0 { default() } else { steps };
        if config.variant == Variant::Bd3Lm {
            // Unless steps are asked for, one place of the block in each (`first_hitting` of the authors' sampler).
            let schedule =
                if steps_given || schedule != Schedule::Reference { schedule } else { Schedule::ONE };
            let order = Order::Blocks { size: config.block_length };
            return PlanParams { order, schedule, alpha_0, steps, steps_per_block: true, seed };
        }
        PlanParams { order, schedule, alpha_0, steps, steps_per_block: false, seed }
    }

    /// The number of steps (T) that the diffusion phase is divided into, with this model; of BD3-LM, that of each block. `None` where
    /// there is no such phase, or where a schedule, adaptive steps or a strided order says how many tokens a step writes.
    pub fn diffusion_steps(&self, config: &Config) -> Option<usize> {
        let PlanParams { order, schedule, alpha_0, steps, .. } = self.plan_params(config);
        let divided = schedule == Schedule::Reference && !matches!(order, Order::Strided { .. });
        (alpha_0 > 0.0 && divided && self.adaptive_for(config).is_none()).then_some(steps)
    }

    /// The constraints of a sequence.
    pub(crate) fn constraints_of(&self, sequence: usize) -> Option<&Constraints> {
        match self.constraints {
            [one] => Some(one),
            each => each.get(sequence),
        }
    }
}

impl Default for GenerateParams<'_> {
    /// [`GenerateParams::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}
