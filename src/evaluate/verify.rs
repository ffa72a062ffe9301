//! Replaying the reference's trajectories: the same order, schedule and noise, compared logit by logit.
//!
//! A golden file is a safetensors file of outputs of the authors' implementation, for B sequences of L tokens with a
//! vocabulary of V. A trajectory NAME has `NAME.logits` [B, L, V], in generation order, and `NAME.tokens` [B, L], in text
//! order. `NAME.sort_idx` [B, L] is the order (default: left to right), `NAME.sched` the tokens per step (default: one),
//! and `NAME.u` [B, L, V] the uniform numbers of Gumbel-max sampling (default: greedy). The nucleus (top-p) limit of a
//! sampled trajectory is `NAME.p_nucleus` in `golden.json` beside the file.

use std::io::ErrorKind;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::forward::{ContextParams, KvType};
use crate::model::{Model, Variant};
use crate::plan::Plan;
use crate::sample::SamplingParams;

/// One trajectory's comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The trajectory's name.
    pub name: String,
    /// Whether its tokens are sampled with the reference's noise; otherwise they are the most likely ones.
    pub sampled: bool,
    /// Steps run.
    pub steps: usize,
    /// Largest absolute difference between a logit and the reference's; NaN if one is NaN.
    pub largest_difference: f32,
    /// Tokens compared.
    pub tokens: usize,
    /// Tokens that differ from the reference's.
    pub differing: usize,
}

/// Replays every trajectory of the golden file at `path`. Each step continues from the reference's tokens, so that one
/// difference does not cause others.
///
/// # Errors
/// [`Error::InvalidArgument`] for a model that is not Eso-LM (B); [`Error::Io`]; [`Error::BadFile`] if the file is damaged,
/// has no trajectory, or one that does not fit the model; those of [`Context::step`].
pub fn verify(model: &Model, path: &Path, kv_type: KvType, threads: usize) -> Result<Vec<Outcome>> {
    let variant = model.config().variant;
    if variant != Variant::EsoB {
        let name = variant.name();
        return Err(Error::invalid(format!(
            "trajectories are replayed with Eso-LM (B) models only, and this model's variant is {name}"
        )));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let file = path.display().to_string();
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| Error::unreadable(&file, "safetensors", e))?;
    let json_path = path.with_file_name("golden.json");
    let scalars = match std::fs::read(&json_path) {
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|e| Error::unreadable(json_path.display().to_string(), "JSON", e))?,
        // Only sampled trajectories need it.
        Err(e) if e.kind() == ErrorKind::NotFound => serde_json::Value::Null,
        Err(e) => return Err(Error::io(&json_path, e)),
    };
    let golden = Golden { tensors, scalars, file };
    let mut names: Vec<&str> =
        golden.tensors.iter().filter_map(|(name, _)| name.strip_suffix(".tokens")).collect();
    names.retain(|name| golden.tensors.tensor(&format!("{name}.logits")).is_ok());
    names.sort_unstable();
    if names.is_empty() {
        return Err(golden.bad("has no trajectory (NAME.logits with NAME.tokens)"));
    }
    names.into_iter().map(|name| golden.replay(name, model, kv_type, threads)).collect()
}

struct Golden<'a> {
    tensors: SafeTensors<'a>,
    scalars: serde_json::Value,
    file: String,
}

impl Golden<'_> {
    fn replay(&self, name: &str, model: &Model, kv_type: KvType, threads: usize) -> Result<Outcome> {
        let key = |part: &str| format!("{name}.{part}");
        let vocab = model.config().vocab_size;
        let (shape, logits) = self.read::<4, f32>(&key("logits"), Dtype::F32, f32::from_le_bytes)?;
        let &[sequences, length, width] = shape.as_slice() else {
            return Err(self.bad(format!("{name}.logits has the shape {shape:?}, not three dimensions")));
        };
        if width != vocab || length > model.config().context_length || sequences == 0 || length == 0 {
            return Err(self.bad(format!("{name}.logits has the shape {shape:?}, which is not this model's")));
        }
        let integers = |part: &str, len: usize| -> Result<Option<Vec<u32>>> {
            if self.tensors.tensor(&key(part)).is_err() {
                return Ok(None);
            }
            let (shape, values) = self.read::<4, i32>(&key(part), Dtype::I32, i32::from_le_bytes)?;
            if len != 0 && values.len() != len {
                return Err(self.bad(format!("{name}.{part} has the shape {shape:?}")));
            }
            Ok(Some(values.into_iter().map(|v| v as u32).collect()))
        };
        let tokens = integers("tokens", sequences * length)?;
        let tokens = tokens.ok_or_else(|| self.bad(format!("{name}.tokens is missing")))?;
        let orders = integers("sort_idx", sequences * length)?
            .unwrap_or_else(|| (0..sequences).flat_map(|_| 0..length as u32).collect());
        let counts = integers("sched", 0)?.unwrap_or_else(|| vec![1; length]);
        let noise = match self.tensors.tensor(&key("u")) {
            Ok(_) => {
                let (of_noise, noise) = self.read::<8, f64>(&key("u"), Dtype::F64, f64::from_le_bytes)?;
                if of_noise != shape {
                    return Err(self.bad(format!("{name}.u has the shape {of_noise:?}, not {shape:?}")));
                }
                Some(noise)
            }
            Err(_) => None,
        };
        let sampling = self.sampling(name, noise.is_some())?;
        let plan = |order: &[u32]| Plan {
            known: vec![],
            order: order.to_vec(),
            counts: counts.clone(),
            diffusion: 0,
        };
        let plans: Vec<Plan> = orders.chunks_exact(length).map(plan).collect();
        let params = ContextParams { sequences, length, threads, kv_type, ..ContextParams::default() };
        let mut context = Context::new(model, &params)?;
        context.begin_with_plans(&plans, sampling, 0)?;
        let mut outcome = Outcome {
            name: name.to_owned(),
            sampled: noise.is_some(),
            steps: 0,
            largest_difference: 0.0,
            tokens: 0,
            differing: 0,
        };
        loop {
            let step = context.step_with_tokens(|sampler, choice| {
                let missing = || Error::internal(format!("{name} has no such row"));
                let row = (choice.sequence * length + choice.slot) * vocab;
                let row = row..row + vocab;
                let expected = logits.get(row.clone()).ok_or_else(missing)?;
                for (a, b) in choice.logits.iter().zip(expected) {
                    let difference = (a - b).abs();
                    if difference > outcome.largest_difference || difference.is_nan() {
                        outcome.largest_difference = difference;
                    }
                }
                let own = match &noise {
                    Some(noise) => {
                        let uniforms = noise.get(row).ok_or_else(missing)?;
                        sampler.draw_gumbel(choice.logits, &sampling, uniforms)?
                    }
                    None => sampler.draw(choice.logits, &sampling, 0.0)?,
                };
                let place = choice.sequence * length + choice.position as usize;
                let reference = *tokens.get(place).ok_or_else(missing)?;
                outcome.tokens += 1;
                outcome.differing += usize::from(own != reference);
                Ok(reference)
            })?;
            match step {
                Some(_) => outcome.steps += 1,
                None => return Ok(outcome),
            }
        }
    }

    fn sampling(&self, name: &str, sampled: bool) -> Result<SamplingParams> {
        if !sampled {
            return Ok(SamplingParams { temperature: 0.0, ..SamplingParams::FULL });
        }
        let top_p = self.scalars.get(name).and_then(|s| s.get("p_nucleus")).and_then(|p| p.as_f64());
        let top_p = top_p.ok_or_else(|| self.bad(format!("golden.json has no {name}.p_nucleus")))?;
        Ok(SamplingParams { top_p: top_p as f32, ..SamplingParams::FULL })
    }

    fn read<const N: usize, T>(
        &self,
        key: &str,
        dtype: Dtype,
        from: fn([u8; N]) -> T,
    ) -> Result<(Vec<usize>, Vec<T>)> {
        let tensor = self.tensors.tensor(key).map_err(|e| self.bad(format!("{key}: {e}")))?;
        if tensor.dtype() != dtype {
            return Err(self.bad(format!("{key} is {:?}, not {dtype:?}", tensor.dtype())));
        }
        let (chunks, _) = tensor.data().as_chunks::<N>();
        Ok((tensor.shape().to_vec(), chunks.iter().map(|c| from(*c)).collect()))
    }

    fn bad(&self, what: impl Into<String>) -> Error {
        Error::bad_file(&self.file, what)
    }
}
