//! Which variant a model is, by the configuration's names and the tensors, and which models are refused by name.

use serde_json::Value;

use super::facts::Facts;
use super::options::Options;
use crate::error::{Error, Result};
use crate::model::Variant;

/// What a model was trained as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TrainedAs {
    pub variant: Variant,
    /// See [`Config::diffusion_only`](crate::Config::diffusion_only).
    pub diffusion_only: bool,
}

/// The variant by the configuration's names and the tensors; an option has to agree with them.
///
/// # Errors
/// [`Error::Unsupported`] for what esolm does not run; [`Error::InvalidArgument`] if the option is missing or wrong.
pub(super) fn kind(facts: Facts<'_>, options: &Options) -> Result<TrainedAs> {
    let path = facts.source.path();
    for name in ["keep_clean_unshuffled", "keep_masks_unshuffled"] {
        match facts.find(&[&format!("algo.{name}"), name]) {
            None | Some(Value::Bool(false)) => (),
            Some(value) => {
                return Err(Error::unsupported(format!(
                    "{path}: '{name}' is {value}; esolm runs models without it"
                )));
            }
        }
    }
    let has_condition = facts.source.shape("sigma_map.mlp.0.weight").is_some();
    let name = facts.text(&["algo.name", "model_type"])?.map(str::to_lowercase);
    let (family, known) = match name.as_deref() {
        Some("ar") => (&[Variant::Ar][..], "ar"),
        Some("mdlm") if facts.find(&["algo.causal_attention"]) == Some(&Value::Bool(true)) => {
            return Err(Error::unsupported(format!("{path}: an MDLM with causal attention")));
        }
        Some("mdlm") => (&[Variant::Mdlm][..], "mdlm"),
        Some("esolm") => esolm_family(facts)?,
        Some("bd3lm") => bd3lm(facts)?,
        Some(other) if facts.find(&["algo.name"]).is_some() => {
            return Err(Error::unsupported(format!(
                "{path}: a model of the algorithm '{other}'; esolm, mdlm, ar and bd3lm can be converted"
            )));
        }
        Some(other) if facts.source.shape("vocab_embed.embedding").is_none() => {
            return Err(Error::unsupported(format!(
                "{path}: a model of the type '{other}'; qwen2, qwen3, wedlm, and esolm, mdlm, ar and bd3lm of the authors' can be converted"
            )));
        }
        // A configuration without a name. Only AR has no conditioning, and only Eso-LM's backbone saves its mask index.
        _ if !has_condition => (&[Variant::Ar][..], "ar"),
        _ if modes(facts)? != (None, None) => esolm_family(facts)?,
        _ if facts.find(&["mask_index"]).is_some() => (&[Variant::EsoA, Variant::EsoB][..], "a or b"),
        _ => (&[Variant::Mdlm, Variant::EsoA, Variant::EsoB][..], "mdlm, a or b"),
    };
    let variant = match (options.variant, family) {
        (Some(given), family) if family.contains(&given) => given,
        (Some(given), _) => {
            return Err(Error::invalid(format!("--variant {}: {path} is of variant {known}", given.name())));
        }
        (None, &[only]) => only,
        (None, _) => {
            return Err(Error::invalid(format!(
                "{path} does not say which variant it is, {known}; give it with --variant"
            )));
        }
    };
    let diffusion_only = variant == Variant::EsoA && modes(facts)?.1 == Some("causal");
    Ok(TrainedAs { variant, diffusion_only })
}

/// BD3-LM, if it is trained as the published ones are. Whether its blocks have adaLN the tensors say: the trainer's
/// `model.adaln` is false in its own default configuration, whose network has it all the same (`models/dit.py`).
fn bd3lm(facts: Facts<'_>) -> Result<(&'static [Variant], &'static str)> {
    let path = facts.source.path();
    // A name that is not read by the network does not hide one that is: all that are there have to agree.
    for (names, value) in [
        (&["causal", "model.causal", "model.causal_attention", "algo.causal_attention"][..], false),
        (&["cross_attn", "model.cross_attn", "algo.cross_attn"], true),
    ] {
        if let Some((name, other)) = facts.all(names).find(|&(_, found)| found != &Value::Bool(value)) {
            return Err(Error::unsupported(format!(
                "{path}: a BD3-LM whose '{name}' is {other}, not {value}"
            )));
        }
    }
    if facts.source.shape("blocks.0.adaLN_modulation.weight").is_none() {
        return Err(Error::unsupported(format!("{path}: a BD3-LM without adaLN")));
    }
    Ok((&[Variant::Bd3Lm], "bd3lm"))
}

/// The attention modes of an Eso-LM's diffusion phase and of its sequential phase.
fn modes<'a>(facts: Facts<'a>) -> Result<(Option<&'a str>, Option<&'a str>)> {
    let diffusion = facts.text(&["algo.diffusion_attn_mode", "diffusion_attn_mode"])?;
    let sequential = facts.text(&["algo.sequential_attn_mode", "sequential_attn_mode"])?;
    Ok((diffusion, sequential))
}

/// The variants that an Eso-LM may be by its attention modes, and their name for errors.
fn esolm_family(facts: Facts<'_>) -> Result<(&'static [Variant], &'static str)> {
    let path = facts.source.path();
    let unsupported = |what: String| Err(Error::unsupported(format!("{path}: {what}")));
    match modes(facts)? {
        (Some("mixed"), _) => unsupported(
            "'diffusion_attn_mode' is mixed, where masks attend to all masks; esolm runs causal (B) and mixed2 (A)"
                .into(),
        ),
        (_, Some("mixed2")) => unsupported(
            "'sequential_attn_mode' is mixed2, which the authors' code does not have; (A) has mixed there".into(),
        ),
        (Some("causal"), Some("causal")) => Ok((&[Variant::EsoB], "b")),
        // The training script for alpha_0 = 1 leaves the sequential mode at its default, causal: it has no such phase.
        (Some("mixed2"), Some("mixed" | "causal")) => Ok((&[Variant::EsoA], "a")),
        (Some("mixed2"), None) => Ok((&[Variant::EsoA], "a")),
        (None, _) | (Some("causal"), None) => Ok((&[Variant::EsoA, Variant::EsoB], "a or b")),
        (Some(diffusion), sequential) => unsupported(format!(
            "an Eso-LM with the attention modes '{diffusion}' (diffusion) and '{}' (sequential); esolm runs \
             causal/causal (B), mixed2/mixed (A) and the diffusion phase of mixed2/causal",
            sequential.unwrap_or("not given")
        )),
    }
}
