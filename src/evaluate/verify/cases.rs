//! What a golden file has for a model, as cases to replay. [`verify`](super::verify) documents the names.

use serde_json::Value;

use super::golden::{Golden, Rows};
use crate::error::{Error, Result};
use crate::memory::{collected, copied, filled, push, try_collected, with_room};
use crate::model::{Config, Variant};
use crate::plan::Plan;
use crate::sample::SamplingParams;

/// The name of a case that has no name of its own in the file.
const FORWARD: [&str; 3] = ["logits", "logits_cached", "logits_mask"];

/// Texts to write, and what the reference computed for them.
pub(super) struct Case {
    pub name: String,
    pub plans: Vec<Plan>,
    /// Whether the plans have the same steps and run side by side.
    pub together: bool,
    pub sampling: SamplingParams,
    pub logits: Rows<f32>,
    /// Uniform numbers, if tokens are sampled.
    pub noise: Option<Rows<f64>>,
    /// So many first places have tokens that are not the model's.
    pub given: usize,
    /// By position, one text after the other.
    tokens: Vec<u32>,
}

impl Case {
    /// The place of a position in the generation order of a text.
    pub fn place(&self, text: usize, position: u32) -> Option<usize> {
        self.plans.get(text)?.order.iter().position(|&p| p == position)
    }

    /// The reference's token at a position of a text.
    pub fn token(&self, text: usize, position: u32) -> Option<u32> {
        let length = self.plans.get(text)?.order.len();
        self.tokens.get(text * length + position as usize).copied()
    }
}

impl Golden<'_> {
    /// The names of the cases for a model of this variant.
    ///
    /// # Errors
    /// [`Error::BadFile`] if there is none.
    pub fn names(&self, config: &Config) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for (tensor, _) in self.tensors.iter() {
            let name = tensor.strip_suffix(".tokens").or_else(|| tensor.strip_suffix(".zt"));
            match name {
                Some(name) if self.is_case(name, config) => push(&mut names, copied(name)?)?,
                None if FORWARD.contains(&tensor) && self.is_forward(tensor, config)? => {
                    push(&mut names, copied(tensor)?)?;
                }
                _ => (),
            }
        }
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            let variant = config.variant.name();
            return Err(self.bad(format!(
                "nothing to replay with a model of variant {variant}: no trajectory (NAME.logits with NAME.tokens)"
            )));
        }
        Ok(names)
    }

    /// The names of what is no part of a case, without those of its parts.
    ///
    /// # Errors
    /// As [`Golden::names`].
    pub fn left_out(&self, config: &Config) -> Result<Vec<String>> {
        let cases = self.names(config)?;
        // Texts of logits without a name have none either.
        let texts = FORWARD.map(|logits| forward_texts(logits, config));
        let mut names: Vec<String> = Vec::new();
        for (tensor, _) in self.tensors.iter() {
            let name = tensor.rsplit_once('.').map_or(tensor, |(name, _)| name);
            let is_replayed = |known: &str| cases.binary_search_by(|case| case.as_str().cmp(known)).is_ok();
            let is_text = texts.contains(&Some(tensor)) && FORWARD.into_iter().any(is_replayed);
            if !is_replayed(name) && !is_text {
                push(&mut names, copied(name)?)?;
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn is_case(&self, name: &str, config: &Config) -> bool {
        if self.has(name, "tokens") {
            let noise = self.tensors.tensor(&format!("{name}.u"));
            return self.has(name, "logits") || noise.is_ok_and(|noise| noise.shape().len() == 3);
        }
        let whole = ["logits", "sort_idx", "num_clean"].iter().all(|part| self.has(name, part));
        // With x0 it is the sequential phase.
        let eso = matches!(config.variant, Variant::EsoA | Variant::EsoB);
        whole && eso && (config.has_sequential_phase() || !self.has(name, "x0"))
    }

    /// Whether an array of logits without a name is of this model's kind: the tokens before its texts are the model's.
    fn is_forward(&self, logits: &str, config: &Config) -> Result<bool> {
        let Some(texts) = forward_texts(logits, config).filter(|texts| self.tensors.tensor(texts).is_ok())
        else {
            return Ok(false);
        };
        if config.variant == Variant::Mdlm {
            return Ok(true);
        }
        let (shape, tokens) = self.integers(texts)?;
        Ok(shape.len() == 2 && begins_as(&tokens, width(&shape), config))
    }

    /// The case with this name.
    ///
    /// # Errors
    /// [`Error::BadFile`] if it does not fit the model.
    pub fn case(&self, name: &str, config: &Config) -> Result<Case> {
        match (FORWARD.contains(&name), config.variant) {
            (true, Variant::Mdlm) => self.masked_texts(name, config),
            (true, _) => {
                let texts = forward_texts(name, config).ok_or_else(|| Error::internal("texts of logits"))?;
                let (shape, tokens) = self.integers(texts)?;
                let mut case = self.trajectory(name, name, (&shape, tokens), config)?;
                // The texts are not the model's.
                case.given = width(&shape);
                Ok(case)
            }
            (false, _) if self.has(name, "tokens") => {
                let texts = self.integers(&format!("{name}.tokens"))?;
                self.trajectory(name, &format!("{name}.logits"), (&texts.0, texts.1), config)
            }
            (false, _) => self.step(name, config),
        }
    }

    /// Texts that are written in given orders and steps.
    fn trajectory(
        &self,
        name: &str,
        logits: &str,
        (shape, tokens): (&[usize], Vec<u32>),
        config: &Config,
    ) -> Result<Case> {
        let &[texts, total] = shape else { return Err(self.bad_shape(name, "tokens", shape)) };
        let rows = match self.tensors.tensor(logits) {
            Ok(_) => self.logits(logits, texts, config)?,
            Err(_) => Rows { values: vec![], per_text: 0, first: 0, by_position: None },
        };
        let noise = self.noise(name, texts, config)?;
        let covered = noise.as_ref().map_or(rows.per_text, |noise| noise.per_text.max(rows.per_text));
        // An autoregressive model's tokens may begin with the one before the text, which the first row follows. Texts of
        // logits alone always do.
        let may_have_lead = logits == name || total == covered + 1 || total > config.context_length;
        let may_have_lead = may_have_lead && matches!(config.variant, Variant::Ar | Variant::WeDlm);
        let has_lead = may_have_lead && begins_as(&tokens, total, config);
        let known = config.given_tokens();
        let dropped = usize::from(has_lead) - known.min(usize::from(has_lead));
        let length = total.saturating_sub(dropped).min(config.context_length);
        if length == 0 || covered > total || length < known {
            return Err(self.bad(format!("{name}: {total} tokens and {covered} rows do not fit this model")));
        }
        let mut kept = with_room(tokens.len())?;
        let texts_of = tokens.chunks_exact(total.max(1));
        kept.extend(texts_of.flat_map(|text| text.iter().skip(dropped).take(length).copied()));
        let tokens: Vec<u32> = kept;
        let orders = match self.has(name, "sort_idx") {
            true => self.integers_of(name, "sort_idx", &[texts, length])?,
            false => collected((0..texts * length).map(|place| (place % length) as u32))?,
        };
        let counts = match self.has(name, "sched") {
            // It is copied for each text.
            true => Some(self.integers(&format!("{name}.sched"))?.1)
                .filter(|counts| counts.len() <= length)
                .ok_or_else(|| self.bad(format!("{name}.sched has more steps than a text has tokens")))?,
            false => filled(length - known, 1)?,
        };
        let scalar = |key: &str| self.scalars.get(name).and_then(|s| s.get(key)).and_then(Value::as_u64);
        let diffusion = match config.variant {
            Variant::EsoA if !config.diffusion_only => {
                let count = scalar("num_diffusion_tokens");
                count.ok_or_else(|| self.without(&format!("{name}.num_diffusion_tokens")))? as usize
            }
            Variant::EsoA => length,
            _ => 0,
        };
        let plan = |(text, order): (usize, &[u32])| {
            let token = |&position: &u32| {
                let token = tokens.get(text * length + position as usize).copied();
                token.ok_or_else(|| self.bad(format!("{name}.sort_idx has a position beyond the text")))
            };
            let known = try_collected(order.iter().take(known).map(token))?;
            let (order, counts) = (collected(order.iter().copied())?, collected(counts.iter().copied())?);
            Ok::<_, Error>(Plan { known, order, counts, diffusion })
        };
        let plans = try_collected(orders.chunks_exact(length).enumerate().map(plan))?;
        let first = usize::from(has_lead) - dropped;
        Ok(Case {
            name: name.to_owned(),
            plans,
            together: true,
            sampling: self.sampling(name, noise.is_some())?,
            logits: Rows { first, ..rows },
            noise: noise.map(|noise| Rows { first, ..noise }),
            given: scalar("prompt_len").map_or(0, |given| given as usize).saturating_sub(dropped),
            tokens,
        })
    }

    /// A diffusion step, or the sequential phase, of texts whose first slots are known.
    fn step(&self, name: &str, config: &Config) -> Result<Case> {
        let (shape, zt) = self.integers(&format!("{name}.zt"))?;
        let &[texts, length] = shape.as_slice() else { return Err(self.bad_shape(name, "zt", &shape)) };
        let orders = self.integers_of(name, "sort_idx", &shape)?;
        let clean = self.integers_of(name, "num_clean", &[texts])?;
        if length == 0 {
            return Err(self.bad_shape(name, "zt", &shape));
        }
        let is_sequential = self.has(name, "x0");
        let sorted = if is_sequential { self.integers_of(name, "x0", &shape)? } else { zt };
        let logits = self.logits(&format!("{name}.logits"), texts, config)?;
        let mut tokens = filled(sorted.len(), 0)?;
        let mut plans = Vec::new();
        let per_text = orders.chunks_exact(length).zip(sorted.chunks_exact(length)).zip(clean);
        for (text, ((order, sorted), clean)) in per_text.enumerate() {
            let clean = (clean as usize).min(length);
            for (&position, &token) in order.iter().zip(sorted) {
                // What a diffusion step writes does not matter.
                let token =
                    if config.is_writable(token) { token } else { u32::from(config.mask_token_id == 0) };
                let place = tokens
                    .get_mut(text * length + position as usize)
                    .filter(|_| (position as usize) < length);
                *place
                    .ok_or_else(|| self.bad(format!("{name}.sort_idx has a position beyond the text")))? =
                    token;
            }
            let known = collected(sorted.iter().take(clean).copied())?;
            let unknown = length - clean;
            let (counts, diffusion) = match is_sequential {
                true => (filled(unknown, 1)?, 0),
                false => (filled(usize::from(unknown > 0), unknown as u32)?, unknown),
            };
            push(&mut plans, Plan { known, order: collected(order.iter().copied())?, counts, diffusion })?;
        }
        let sampling = self.sampling(name, false)?;
        let name = name.to_owned();
        Ok(Case { name, plans, together: false, sampling, logits, noise: None, given: length, tokens })
    }

    /// Texts with masks, whose logits are in text order.
    fn masked_texts(&self, name: &str, config: &Config) -> Result<Case> {
        let (shape, texts) = self.integers("x")?;
        let &[count, length] = shape.as_slice() else { return Err(self.bad_shape(name, "x", &shape)) };
        if length == 0 {
            return Err(self.bad_shape(name, "x", &shape));
        }
        let rows = self.logits(name, count, config)?;
        let is_known =
            |text: &[u32], &position: &u32| text.get(position as usize) != Some(&config.mask_token_id);
        let plan = |text: &[u32]| {
            let mut order = with_room(length)?;
            order.extend((0..length as u32).filter(|position| is_known(text, position)));
            let mut known = with_room(order.len())?;
            known.extend(text.iter().copied().filter(|&token| token != config.mask_token_id));
            order.extend((0..length as u32).filter(|position| !is_known(text, position)));
            let masked = order.len() - known.len();
            Ok::<_, Error>(Plan {
                known,
                order,
                counts: filled(usize::from(masked > 0), masked as u32)?,
                diffusion: 0,
            })
        };
        let plans: Vec<Plan> = try_collected(texts.chunks_exact(length).map(plan))?;
        let orders = plans.iter().map(|plan| collected(plan.order.iter().copied()));
        let by_position = Some(try_collected(orders)?);
        let writable = |&token: &u32| {
            if config.is_writable(token) { token } else { u32::from(config.mask_token_id == 0) }
        };
        Ok(Case {
            name: name.to_owned(),
            tokens: collected(texts.iter().map(writable))?,
            plans,
            together: false,
            sampling: self.sampling(name, false)?,
            logits: Rows { by_position, ..rows },
            noise: None,
            given: length,
        })
    }

    fn sampling(&self, name: &str, sampled: bool) -> Result<SamplingParams> {
        if !sampled {
            return Ok(SamplingParams { temperature: 0.0, ..SamplingParams::FULL });
        }
        let top_p = self.scalars.get(name).and_then(|s| s.get("p_nucleus")).and_then(Value::as_f64);
        let top_p = top_p.ok_or_else(|| self.without(&format!("{name}.p_nucleus")))?;
        Ok(SamplingParams { top_p: top_p as f32, ..SamplingParams::FULL })
    }
}

/// The name of the texts of an array of logits that has no name of its own.
fn forward_texts(logits: &str, config: &Config) -> Option<&'static str> {
    match (config.variant, logits) {
        (Variant::Mdlm, "logits") => Some("x"),
        (Variant::Ar | Variant::WeDlm, "logits" | "logits_cached") => Some("prefix"),
        (Variant::Ar, "logits_mask") => Some("prefix_mask"),
        _ => None,
    }
}

/// Whether all texts begin with what stands before, or first in, an autoregressive model's texts.
fn begins_as(tokens: &[u32], width: usize, config: &Config) -> bool {
    let mut first = tokens.chunks_exact(width.max(1)).filter_map(|text| text.first());
    first.all(|&token| match config.needs_first_token {
        true => config.is_writable(token),
        false => token == config.first_token_id(),
    })
}

/// The length of the rows of a matrix.
fn width(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(0)
}
