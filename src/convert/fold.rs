//! What becomes of each tensor.
//!
//! The reference's blocks are modulated by a condition (adaLN). These models are trained without time
//! conditioning, so the condition is one constant vector, `c = silu(sigma_map(0))`, each modulation
//! `W c + b` is a constant too, and `norm(x) * w * (1 + scale) + shift` as well as `gate * (W x + b)` are a norm
//! and a Linear with other numbers. Computed in f64; the rounding to f32 is the only difference.

use std::collections::HashMap;

use super::source::Source;
use crate::error::Result;
use crate::model::{Config, Variant};

/// How a tensor of the file comes from the source's.
#[derive(Debug)]
pub(super) enum Recipe {
    /// As it is.
    Copy(String),
    /// Each row (each element of a vector) times its factor.
    Scale(String, Vec<f64>),
    /// These values.
    Constant(Vec<f32>),
}

/// Checks that the source has exactly the tensors of this model, and works out one recipe per tensor of
/// [`Config::tensors`], in that order.
///
/// # Errors
/// [`crate::Error::BadFile`] naming the tensors that are missing, too many or of another shape.
pub(super) fn recipes(source: &mut Source, config: &Config) -> Result<Vec<Recipe>> {
    let conditioned = config.variant != Variant::Ar;
    check_tensors(source, config, conditioned)?;
    let condition = if conditioned { Some(condition(source)?) } else { None };
    let mut modulations = HashMap::new();
    if let Some(condition) = &condition {
        for scope in (0..config.block_count).map(|n| format!("blocks.{n}")).chain(["output_layer".into()]) {
            let name = format!("{scope}.adaLN_modulation");
            modulations.insert(scope, linear(source, &name, condition)?);
        }
    }
    let width = config.embedding_length;
    let recipes = config.tensors().into_iter().map(|spec| {
        let (scope, part) = scope_of(&spec.name);
        // The modulation's `index`-th vector: a block has shift, scale and gate of the attention, then of the
        // MLP; the final layer has shift and scale.
        let vector = |index: usize| {
            let all = modulations.get(&scope);
            all.and_then(|all| all.get(index * width..(index + 1) * width)).map(<[f64]>::to_vec)
        };
        let one_plus = |scale: Vec<f64>| scale.into_iter().map(|s| 1.0 + s).collect();
        let factors = match part {
            "attn_norm.weight" | "output_norm.weight" => vector(1).map(one_plus),
            "ffn_norm.weight" => vector(4).map(one_plus),
            "attn_output.weight" => vector(2),
            "ffn_down.weight" | "ffn_down.bias" => vector(5),
            _ => None,
        };
        match (source_name(&scope, part), factors) {
            (Some(name), Some(factors)) => Recipe::Scale(name, factors),
            (Some(name), None) => Recipe::Copy(name),
            (None, _) => {
                let shift = vector(if part == "ffn_norm.bias" { 3 } else { 0 });
                let shift = shift.unwrap_or_else(|| vec![0.0; width]);
                Recipe::Constant(shift.into_iter().map(|s| s as f32).collect())
            }
        }
    });
    Ok(recipes.collect())
}

/// The reference's name for the module that holds a tensor of the file, and the tensor's name within it.
fn scope_of(name: &str) -> (String, &str) {
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((block, part)) => (format!("blocks.{block}"), part),
        None => ("output_layer".into(), name),
    }
}

/// The tensor's name in the source; `None` for the norms' biases, which the reference does not have.
fn source_name(scope: &str, part: &str) -> Option<String> {
    let within = match part {
        "token_embd.weight" => return Some("vocab_embed.embedding".into()),
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
        _ => return None,
    };
    Some(format!("{scope}.{within}"))
}

fn check_tensors(source: &Source, config: &Config, conditioned: bool) -> Result<()> {
    let mut expected: HashMap<String, Vec<usize>> = HashMap::new();
    for spec in config.tensors() {
        let (scope, part) = scope_of(&spec.name);
        if let Some(name) = source_name(&scope, part) {
            expected.insert(name, spec.dims.into_iter().rev().collect());
        }
    }
    if conditioned {
        let (cond, frequencies) = match source.shape("sigma_map.mlp.0.weight") {
            Some(&[cond, frequencies]) => (cond, frequencies),
            _ => return Err(source.bad("tensor 'sigma_map.mlp.0.weight' is no matrix")),
        };
        let mut linear = |name: &str, out: usize, input: usize| {
            expected.insert(format!("{name}.weight"), vec![out, input]);
            expected.insert(format!("{name}.bias"), vec![out]);
        };
        linear("sigma_map.mlp.0", cond, frequencies);
        linear("sigma_map.mlp.2", cond, cond);
        for block in 0..config.block_count {
            linear(&format!("blocks.{block}.adaLN_modulation"), 6 * config.embedding_length, cond);
        }
        linear("output_layer.adaLN_modulation", 2 * config.embedding_length, cond);
    }
    let missing = expected.keys().filter(|name| source.shape(name).is_none()).map(String::as_str);
    if let Some(list) = some_of(missing.collect()) {
        return Err(source
            .bad(format!("tensors are missing for a model of variant {}: {list}", config.variant.name())));
    }
    let extra = source.names().filter(|name| !expected.contains_key(*name) && *name != "rotary_emb.inv_freq");
    if let Some(list) = some_of(extra.collect()) {
        let variant = config.variant.name();
        return Err(source.bad(format!("tensors that a model of variant {variant} does not have: {list}")));
    }
    let mut wrong: Vec<_> =
        expected.iter().filter(|(name, shape)| source.shape(name) != Some(shape.as_slice())).collect();
    wrong.sort();
    match wrong.first() {
        Some((name, shape)) => {
            let found = source.shape(name).unwrap_or_default();
            Err(source
                .bad(format!("tensor '{name}' is {found:?}, but the rest of the model needs {shape:?}")))
        }
        None => Ok(()),
    }
}

/// The first few of these names, for a message; `None` if there are none.
fn some_of(mut names: Vec<&str>) -> Option<String> {
    names.sort_unstable();
    let shown = names.iter().take(3).map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        1..=3 => Some(shown),
        more => Some(format!("{shown} and {} more", more - 3)),
    }
}

/// `c = silu(sigma_map(0))`: the embedding of time 0 is cos(0) for its first half and sin(0) for its second.
fn condition(source: &mut Source) -> Result<Vec<f64>> {
    let frequencies = source.shape("sigma_map.mlp.0.weight").and_then(|s| s.last().copied()).unwrap_or(0);
    let embedding: Vec<f64> = (0..frequencies).map(|i| if i < frequencies / 2 { 1.0 } else { 0.0 }).collect();
    let hidden: Vec<f64> = linear(source, "sigma_map.mlp.0", &embedding)?.into_iter().map(silu).collect();
    Ok(linear(source, "sigma_map.mlp.2", &hidden)?.into_iter().map(silu).collect())
}

/// `W x + b` of the Linear with this name.
fn linear(source: &mut Source, name: &str, x: &[f64]) -> Result<Vec<f64>> {
    let mut y = source.read(&format!("{name}.bias"))?;
    source.rows(&format!("{name}.weight"), |first, rows| {
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
