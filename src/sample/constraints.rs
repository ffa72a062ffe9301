//! Constraints: rules that change a row of logits before the sampler sees it.

use super::grammar::{Grammar, GrammarState};
use super::logits::{LogitsRow, has_nan_or_infinity};
use super::penalties::{Dry, Penalties, Repeats};
use crate::error::{Error, Result};
use crate::memory::{collected, filled, try_collected};
use crate::model::Config;

/// Constraints on the tokens of a sequence. They are applied to the logits before [`SamplingParams`](crate::SamplingParams):
/// first repetition, frequency and presence penalty, then DRY, biases, banned allowed tokens, and at last the grammar. A step that writes
/// several tokens penalises those of the text before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraints {
    /// For some positions, the tokens allowed there; no position twice.
    pub allowed: Vec<(u32, Vec<u32>)>,
    /// Tokens that are never generated.
    pub banned: Vec<u32>,
    /// Added to the logits of some tokens; no token twice.
    pub bias: Vec<(u32, f32)>,
    /// Above 1 makes tokens less likely that are already in the text, at any position, prompt included. A positive
    /// logit is divided by it, a negative one multiplied (CTRL, arXiv 1909.05858, section 4.1). 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of a token for each time that it is in the text, at any position. 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that is in the text, at any position. 0 is off.
    pub presence_penalty: f32,
    /// Penalty for tokens that would lengthen a repeated run; off by default.
    pub dry: Dry,
    /// What the written text must match: one hole, or all that follows the prompt, from left to right and one token per
    /// step. Takes the feature `grammar`. Beginning and steps then allocate.
    pub grammar: Option<Grammar>,
}

impl Default for Constraints {
    fn default() -> Self {
        Self {
            allowed: vec![],
            banned: vec![],
            bias: vec![],
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry: Dry::DEFAULT,
            grammar: None,
        }
    }
}

impl Constraints {
    /// Checks that the constraints can be met in a text of `length` tokens; `known` returns the known token of a
    /// position.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that says which rule cannot, and where.
    pub(crate) fn validate(
        &self,
        config: &Config,
        length: usize,
        known: impl Fn(u32) -> Option<u32>,
    ) -> Result<()> {
        let exists = |token: u32| config.is_writable(token);
        let no_token =
            |rule: &str, token: u32| Err(Error::invalid(format!("{rule}: {}", not_writable(config, token))));
        let mut banned = filled(config.vocab_size, false)?;
        for &token in &self.banned {
            match banned.get_mut(token as usize) {
                Some(banned) if exists(token) => *banned = true,
                _ => return no_token("banned", token),
            }
        }
        let is_banned = |token: u32| banned.get(token as usize).is_none_or(|&banned| banned);
        if !(0..config.vocab_size as u32).any(|token| exists(token) && !is_banned(token)) {
            return Err(Error::invalid("banned: every token is banned"));
        }
        let mut biased = filled(config.vocab_size, false)?;
        for &(token, bias) in &self.bias {
            match biased.get_mut(token as usize) {
                Some(biased) if exists(token) && !*biased => *biased = true,
                Some(_) if exists(token) => {
                    return Err(Error::invalid(format!("bias: token {token} is given twice")));
                }
                _ => return no_token("bias", token),
            }
            if !bias.is_finite() {
                return Err(Error::invalid(format!("bias of token {token}: {bias} is not a finite number")));
            }
        }
        let mut chosen = filled(length, false)?;
        for (position, tokens) in &self.allowed {
            let bad = |what: String| Err(Error::invalid(format!("allowed at position {position}: {what}")));
            match chosen.get_mut(*position as usize) {
                Some(chosen) if !*chosen => *chosen = true,
                Some(_) => return bad("the position is given twice".into()),
                None => return bad(format!("beyond the length of {length}")),
            }
            if let Some(token) = tokens.iter().find(|&&token| !exists(token)) {
                return bad(not_writable(config, *token));
            }
            if tokens.iter().all(|&token| is_banned(token)) {
                return bad(if tokens.is_empty() {
                    "the list of tokens is empty".into()
                } else {
                    "every one is banned".into()
                });
            }
            if let Some(token) = known(*position).filter(|token| !tokens.contains(token)) {
                return bad(format!("the prompt has token {token} there"));
            }
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            let penalty = self.repetition_penalty;
            return Err(Error::invalid(format!("a repetition penalty of {penalty} is not a number above 0")));
        }
        for (name, penalty) in [("frequency", self.frequency_penalty), ("presence", self.presence_penalty)] {
            if !penalty.is_finite() {
                return Err(Error::invalid(format!("a {name} penalty of {penalty} is not a finite number")));
            }
        }
        if let Some(&token) = self.dry.breakers.iter().find(|&&token| !exists(token)) {
            return no_token("DRY breakers", token);
        }
        self.dry.validate()
    }

    /// A copy sorted by position, for [`LogitsProcessor::process`]; without the grammar, which has a state of its own.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn sorted(&self) -> Result<Self> {
        let at_position = |(position, tokens): &(u32, Vec<u32>)| Ok((*position, same(tokens)?));
        let mut allowed = try_collected(self.allowed.iter().map(at_position))?;
        allowed.sort_unstable_by_key(|(position, _)| *position);
        Ok(Self {
            allowed,
            banned: same(&self.banned)?,
            bias: same(&self.bias)?,
            dry: Dry { breakers: same(&self.dry.breakers)?, ..self.dry },
            grammar: None,
            ..*self
        })
    }

    fn is_none(&self) -> bool {
        self.banned.is_empty() && self.only_bans()
    }

    /// Whether they do nothing but ban tokens, anywhere: what devices can draw with.
    pub(crate) fn only_bans(&self) -> bool {
        let Self { allowed, bias, dry, .. } = self;
        allowed.is_empty() && bias.is_empty() && self.penalties().is_none() && dry.multiplier == 0.0
    }

    /// Sets the bits of the banned tokens.
    pub(crate) fn mark_banned(&self, bits: &mut [u32]) {
        for &token in &self.banned {
            if let Some(bits) = bits.get_mut((token / u32::BITS) as usize) {
                *bits |= 1 << (token % u32::BITS);
            }
        }
    }

    /// The penalties for tokens that are in the text, if there are any.
    fn penalties(&self) -> Option<Penalties> {
        let Self {
            repetition_penalty: repetition,
            frequency_penalty: frequency,
            presence_penalty: presence,
            ..
        } = *self;
        let none = repetition == 1.0 && frequency == 0.0 && presence == 0.0;
        (!none).then_some(Penalties { repetition, frequency, presence })
    }

    fn allowed_at(&self, position: u32) -> Option<&[u32]> {
        let place = self.allowed.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.allowed.get(place).map(|(_, tokens)| tokens.as_slice())
    }
}

fn same<T: Copy>(list: &[T]) -> Result<Vec<T>> {
    collected(list.iter().copied())
}

/// A logits processor of the caller's: changes a row of logits.
pub(crate) type LogitsFn<'a> = &'a mut dyn FnMut(&LogitsRow<'_>, &mut [f32]) -> Result<()>;

/// Applies constraints, and a processor of the caller's, to rows of logits. Allocates nothing after it is made.
#[derive(Debug)]
pub(crate) struct LogitsProcessor {
    /// The row being processed.
    row: Vec<f32>,
    /// Marked tokens, while a rule is applied.
    marks: Vec<bool>,
    repeats: Repeats,
    mask: u32,
}

impl LogitsProcessor {
    /// For texts of at most `length` tokens.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(config: &Config, length: usize) -> Result<Self> {
        Ok(Self {
            row: filled(config.vocab_size, 0.0)?,
            marks: filled(config.vocab_size, false)?,
            repeats: Repeats::new(config.vocab_size, length)?,
            mask: config.mask_token_id,
        })
    }

    /// The logits to sample from: those of `choice` under the constraints `rules`, which must be
    /// [valid](Constraints::validate) and [sorted](Constraints::sorted). `text` is the sequence's tokens by position.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the network's logits are not; what `edit` returns; [`Error::InvalidArgument`] if it
    /// leaves NaN, infinity, or no token that can be drawn.
    pub(crate) fn process<'a>(
        &'a mut self,
        rules: Option<&Constraints>,
        grammar: Option<&GrammarState>,
        choice: &LogitsRow<'a>,
        text: &[u32],
        edit: Option<LogitsFn<'_>>,
    ) -> Result<&'a [f32]> {
        let rules = rules.filter(|rules| !rules.is_none());
        if rules.is_none() && grammar.is_none() && edit.is_none() {
            return Ok(choice.logits);
        }
        // Checked first: a rule or the callback could overwrite a NaN or infinity.
        if has_nan_or_infinity(choice.logits) {
            return Err(Error::logits_not_finite());
        }
        self.row.clear();
        self.row.extend_from_slice(choice.logits);
        if let Some(rules) = rules {
            self.penalise(rules, choice.position, text);
        }
        let Self { row, marks, mask, .. } = self;
        if let Some(rules) = rules {
            apply(rules, choice, row, marks);
        }
        if let Some(grammar) = grammar {
            grammar.apply(row);
        }
        if let Some(logit) = row.get_mut(*mask as usize) {
            *logit = f32::NEG_INFINITY;
        }
        if let Some(edit) = edit {
            edit(choice, row)?;
            if has_nan_or_infinity(row) {
                return Err(no_draw("the logits function left NaN or infinity", choice));
            }
        }
        let possible = |(token, logit): (usize, &f32)| token != *mask as usize && *logit > f32::NEG_INFINITY;
        if row.iter().enumerate().any(possible) {
            Ok(row)
        } else {
            Err(no_draw("no token is left that can be drawn", choice))
        }
    }

    /// Applies the penalties of the rules to the row.
    fn penalise(&mut self, rules: &Constraints, position: u32, text: &[u32]) {
        let Self { row, marks, repeats, mask } = self;
        if let Some(penalties) = rules.penalties() {
            repeats.penalise(text, row, penalties);
        }
        if rules.dry.multiplier > 0.0 {
            let left = text.get(..position as usize).unwrap_or_default();
            let known = left.iter().rev().take_while(|&token| token != mask).count();
            let before = left.get(left.len() - known..).unwrap_or_default();
            mark(&rules.dry.breakers, marks, true);
            let is_breaker = |token: u32| marks.get(token as usize).is_some_and(|&breaks| breaks);
            repeats.dry(&rules.dry, before, is_breaker, row);
            mark(&rules.dry.breakers, marks, false);
        }
    }
}

/// Applies the other rules to a row. Results are clamped to finite numbers, except minus infinity for excluded tokens.
fn apply(rules: &Constraints, choice: &LogitsRow<'_>, row: &mut [f32], marks: &mut [bool]) {
    for &(token, bias) in &rules.bias {
        if let Some(logit) = row.get_mut(token as usize).filter(|logit| logit.is_finite()) {
            *logit = (*logit + bias).clamp(f32::MIN, f32::MAX);
        }
    }
    for &token in &rules.banned {
        if let Some(logit) = row.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    if let Some(allowed) = rules.allowed_at(choice.position) {
        mark(allowed, marks, true);
        for (logit, &stays) in row.iter_mut().zip(marks.iter()) {
            *logit = if stays { *logit } else { f32::NEG_INFINITY };
        }
        mark(allowed, marks, false);
    }
}

fn mark(tokens: &[u32], marks: &mut [bool], value: bool) {
    for &token in tokens {
        if let Some(mark) = marks.get_mut(token as usize) {
            *mark = value;
        }
    }
}

/// The error of a row that no token can be sampled from.
fn no_draw(what: &str, choice: &LogitsRow<'_>) -> Error {
    let LogitsRow { sequence, position, .. } = choice;
    Error::invalid(format!("{what} (sequence {sequence}, position {position})"))
}

/// Why a token cannot be written.
fn not_writable(config: &Config, token: u32) -> String {
    match token == config.mask_token_id {
        true => format!("token {token} is the mask, which is never written"),
        false => format!("there is no token {token}"),
    }
}
