//! What each tensor of the model file is computed from: adaLN modulations are folded into the weights.
//!
//! The reference's blocks are modulated by a condition (adaLN). These models are trained without time conditioning, so
//! the condition is one constant vector, `c = silu(sigma_map(0))`, and each modulation `W c + b` is a constant too.
//! `norm(x) * w * (1 + scale) + shift` is then a norm with other weights and a bias, and `gate * (W x + b)` is a Linear with
//! other weights. The modulations are computed in f64; the rounding of the weights to f32 is the only difference. (The
//! file is smaller for it: the published model of 170 M parameters has 162 M without its adaLN matrices.)

use std::collections::HashMap;

use super::names::{is_parameter, some_of};
use super::source::Source;
use crate::error::{Error, Result};
use crate::memory::{collected, copied, filled, formatted, insert, try_collected, with_room};
use crate::model::{Config, Variant};

/// How a tensor of the model file is computed from the source's.
#[derive(Debug)]
pub(super) enum Recipe {
    /// Unchanged.
    Copy(String),
    /// Each row (each element of a vector) times its factor.
    Scale(String, Vec<f64>),
    /// These values.
    Constant(Vec<f32>),
}

/// Checks that the source has the tensors of this model and no others in its modules, and returns one recipe per tensor
/// of [`Config::tensors`], in that order. What is left out is noted.
///
/// # Errors
/// [`Error::BadFile`] naming the tensors that are missing, unexpected or of another shape.
pub(super) fn recipes(source: &mut Source, config: &Config) -> Result<Vec<Recipe>> {
    let conditioned = config.variant != Variant::Ar;
    check_tensors(source, config, conditioned)?;
    let modulations = if conditioned { Some(modulations(source, config)?) } else { None };
    let width = config.embedding_length;
    let recipe = |name: &str| {
        let (scope, part) = scope_of(name)?;
        // The `index`-th vector [width] of the scope's modulation: a block has shift, scale and gate of the attention,
        // then of the MLP; the output layer has shift and scale. `None` if the model has no modulations.
        let vector = |index: usize| {
            let Some(all) = &modulations else { return Ok(None) };
            let vector = all.get(&scope).and_then(|all| all.get(index * width..(index + 1) * width));
            let vector = vector.ok_or_else(|| Error::internal(format!("modulation {index} of '{scope}'")))?;
            Ok::<_, Error>(Some(vector))
        };
        let scale = |index| vector(index)?.map(|all| collected(all.iter().map(|s| 1.0 + s))).transpose();
        let gate = |index| vector(index)?.map(|all| collected(all.iter().copied())).transpose();
        let factors = match part {
            "attn_norm.weight" | "output_norm.weight" => scale(1)?,
            "ffn_norm.weight" => scale(4)?,
            "attn_output.weight" => gate(2)?,
            "ffn_down.weight" | "ffn_down.bias" => gate(5)?,
            _ => None,
        };
        Ok(match (source_name(&scope, part)?, factors) {
            (Some(name), Some(factors)) => Recipe::Scale(name, factors),
            (Some(name), None) => Recipe::Copy(name),
            // A norm's bias is its shift; zero without modulation.
            (None, _) => match vector(if part == "ffn_norm.bias" { 3 } else { 0 })? {
                Some(shift) => Recipe::Constant(collected(shift.iter().map(|&s| s as f32))?),
                None => Recipe::Constant(filled(width, 0.0)?),
            },
        })
    };
    try_collected(config.tensors()?.iter().map(|spec| recipe(&spec.name)))
}

/// The modulation `W c + b` of each block and of the output layer, by the module's name.
fn modulations(source: &mut Source, config: &Config) -> Result<HashMap<String, Vec<f64>>> {
    let condition = condition(source)?;
    let mut modulations = HashMap::new();
    for block in (0..config.block_count).map(Some).chain([None]) {
        let scope = match block {
            Some(number) => formatted(format_args!("blocks.{number}"))?,
            None => copied("output_layer")?,
        };
        let modulation = linear(source, &formatted(format_args!("{scope}.adaLN_modulation"))?, &condition)?;
        insert(&mut modulations, scope, modulation)?;
    }
    Ok(modulations)
}

/// Splits the name of a tensor of the model file: the reference's name of the module that has it, and the rest.
fn scope_of(name: &str) -> Result<(String, &str)> {
    Ok(match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((block, part)) => (formatted(format_args!("blocks.{block}"))?, part),
        None => (copied("output_layer")?, name),
    })
}

/// The tensor's name in the source; `None` for the norms' biases, which the reference lacks.
fn source_name(scope: &str, part: &str) -> Result<Option<String>> {
    let within = match part {
        "token_embd.weight" => return copied("vocab_embed.embedding").map(Some),
        "attn_norm.weight" => "norm1.weight",
        "attn_qkv.weight" => "attn_qkv.weight",
        "attn_output.weight" => "attn_out.weight",
        "ffn_norm.weight" => "norm2.weight",
        "ffn_up.weight" => "mlp.0.weight",
        "ffn_up.bias" => "mlp.0.bias",
        "ffn_down.weight" => "mlp.2.weight",
        "ffn_down.bias" => "mlp.2.bias",
        "output_norm.weight" => "norm_final.weight",
        "output.weight" => "linear.weight",
        "output.bias" => "linear.bias",
        _ => return Ok(None),
    };
    formatted(format_args!("{scope}.{within}")).map(Some)
}

/// Checks names and shapes of all tensors.
fn check_tensors(source: &mut Source, config: &Config, conditioned: bool) -> Result<()> {
    let mut expected: HashMap<String, Vec<usize>> = HashMap::new();
    for mut spec in config.tensors()? {
        let (scope, part) = scope_of(&spec.name)?;
        if let Some(name) = source_name(&scope, part)? {
            spec.dims.reverse();
            insert(&mut expected, name, spec.dims)?;
        }
    }
    if conditioned {
        let (cond, frequencies) = match source.shape("sigma_map.mlp.0.weight") {
            Some(&[cond, frequencies]) => (cond, frequencies),
            _ => return Err(source.bad("tensor 'sigma_map.mlp.0.weight' is not a matrix")),
        };
        let mut linear = |name: &str, out: usize, input: usize| {
            let (weight, bias) =
                (formatted(format_args!("{name}.weight"))?, formatted(format_args!("{name}.bias"))?);
            insert(&mut expected, weight, collected([out, input].into_iter())?)?;
            insert(&mut expected, bias, collected([out].into_iter())?)?;
            Ok::<_, Error>(())
        };
        linear("sigma_map.mlp.0", cond, frequencies)?;
        linear("sigma_map.mlp.2", cond, cond)?;
        for block in 0..config.block_count {
            let name = formatted(format_args!("blocks.{block}.adaLN_modulation"))?;
            linear(&name, 6 * config.embedding_length, cond)?;
        }
        linear("output_layer.adaLN_modulation", 2 * config.embedding_length, cond)?;
    }
    let missing = expected.keys().filter(|name| source.shape(name).is_none()).map(String::as_str);
    if let Some(other) = source.others().filter(|name| expected.contains_key(*name)).min() {
        return Err(source.lacks(other));
    }
    if let Some(list) = some_of(missing)? {
        return Err(source
            .bad(format!("tensors are missing for a model of variant {}: {list}", config.variant.name())));
    }
    // In a module of the network they would take part in its computation.
    let unknown = |name: &&str| !expected.contains_key(*name) && *name != "rotary_emb.inv_freq";
    let extra = source.names().filter(unknown).filter(|name| is_parameter(name));
    if let Some(list) = some_of(extra)? {
        let variant = config.variant.name();
        return Err(source.bad(format!("tensors that a model of variant {variant} does not have: {list}")));
    }
    let skipped = source.names().filter(unknown).chain(source.others());
    let left_out = some_of(skipped)?;
    source.note_left_out(left_out)?;
    let found = |(name, shape)| Some((name, source.shape(name)?, shape));
    let tensors = expected.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).filter_map(found);
    match tensors.filter(|(_, found, shape)| found != shape).min() {
        Some((name, found, shape)) => {
            Err(source
                .bad(format!("tensor '{name}' is {found:?}, but the rest of the model needs {shape:?}")))
        }
        None => Ok(()),
    }
}

/// `c = silu(sigma_map(0))`. The embedding of time 0 is cos(0) in its first half and sin(0) in its second.
fn condition(source: &mut Source) -> Result<Vec<f64>> {
    let Some(&[_, frequencies]) = source.shape("sigma_map.mlp.0.weight") else {
        return Err(source.bad("tensor 'sigma_map.mlp.0.weight' is not a matrix"));
    };
    let mut embedding = with_room(frequencies)?;
    embedding.extend((0..frequencies).map(|i| if i < frequencies / 2 { 1.0 } else { 0.0 }));
    let mut hidden = linear(source, "sigma_map.mlp.0", &embedding)?;
    hidden.iter_mut().for_each(|x| *x = silu(*x));
    let mut condition = linear(source, "sigma_map.mlp.2", &hidden)?;
    condition.iter_mut().for_each(|x| *x = silu(*x));
    Ok(condition)
}

/// `W x + b` of the Linear with this name.
fn linear(source: &mut Source, name: &str, x: &[f64]) -> Result<Vec<f64>> {
    let mut y = source.read(&formatted(format_args!("{name}.bias"))?)?;
    source.rows(&formatted(format_args!("{name}.weight"))?, |first, rows| {
        for (y, row) in y.iter_mut().skip(first).zip(rows.chunks_exact(x.len().max(1))) {
            *y += row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
        }
        Ok(())
    })?;
    Ok(y)
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}
