//! The hyperparameters of a model to convert, from its configuration, its tensors' shapes and the caller's options.
//!
//! Training code writes nested configurations (`model.n_heads`, `algo.name`), published models flat ones (`n_heads`), and
//! some have little more than the vocabulary's size. What a configuration lacks is derived from the tensors if possible,
//! or has to be given as an option; what two of them give has to agree.

use serde_json::Value;

use super::options::Options;
use super::source::Source;
use super::tokenizer::Vocabulary;
use crate::error::{Error, Result};
use crate::model::{Config, Variant, limits};

/// What every LayerNorm of the reference uses.
const LAYER_NORM_EPSILON: f32 = 1e-5;
/// Base of the reference's rotary frequencies.
const ROPE_FREQ_BASE: f32 = 10_000.0;

/// Hyperparameters and notes for the user.
#[derive(Debug)]
pub(super) struct Settings {
    pub config: Config,
    pub notes: Vec<String>,
}

/// Determines a model's hyperparameters.
///
/// # Errors
/// [`Error::BadFile`] for what is missing, of a wrong type, out of range or contradictory in the file;
/// [`Error::InvalidArgument`] for an option that contradicts the file, or that is needed and missing;
/// [`Error::Unsupported`] for models that are not of one of the four variants.
pub(super) fn settings(
    source: &mut Source,
    vocabulary: Option<&Vocabulary>,
    options: &Options,
) -> Result<Settings> {
    let mut notes = Vec::new();
    let facts = Facts { source };
    match facts.find(&["algo.time_conditioning", "time_conditioning"]) {
        Some(Value::Bool(false)) => {}
        None => notes.push("the configuration lacks 'time_conditioning'; it is assumed to be false".into()),
        Some(value) => {
            return Err(Error::Unsupported(format!(
                "{}: 'time_conditioning' is {value}: the network depends on the time, so its modulations are \
                 not constants that can be folded into the weights; esolm runs only models trained without it",
                source.path()
            )));
        }
    }
    let variant = facts.variant(options)?;
    let [vocab_size, width] = facts.matrix("vocab_embed.embedding")?;
    let [hidden, _] = facts.matrix("blocks.0.mlp.0.weight")?;
    let block_count = facts.blocks()?;
    facts.agrees(&["vocab_size"], vocab_size, "the embedding's rows")?;
    facts.agrees(
        &["model.hidden_size", "model.hidden_dim", "hidden_size", "hidden_dim"],
        width,
        "the embedding's columns",
    )?;
    facts.agrees(&["model.n_blocks", "n_blocks"], block_count, "the blocks among the tensors")?;
    if variant != Variant::Ar {
        let [cond_dim, _] = facts.matrix("sigma_map.mlp.0.weight")?;
        facts.agrees(&["model.cond_dim", "cond_dim"], cond_dim, "the condition's width")?;
    }
    let stated = facts.number(&["model.n_heads", "n_heads"])?;
    let derived = facts.heads_from_rotary(width)?;
    let head_count = facts.one("--heads", "the number of heads", options.head_count, [stated, derived])?;
    let stated = facts.number(&["model.length", "model.model_length", "model_length"])?;
    let context_length = facts.one("--length", "the length", options.context_length, [stated, None])?;

    let mask_token_id = match facts.number(&["mask_index"])? {
        Some(index) => index,
        None => vocabulary.and_then(|v| v.mask(vocab_size)).map_or(vocab_size - 1, |id| id as usize),
    };
    let token = |id: usize| u32::try_from(id).map_err(|_| source.bad(format!("token {id} is out of range")));
    let special = |paths: &[&str], named: Option<u32>| match facts.number(paths) {
        Ok(Some(id)) => token(id).map(Some),
        Ok(None) => Ok(named),
        Err(e) => Err(e),
    };
    let mut eos_token_id = special(&["eos_token_id"], vocabulary.and_then(Vocabulary::eos))?;
    let bos_token_id =
        special(&["bos_token_id"], vocabulary.and_then(Vocabulary::bos).or(options.bos_token_id))?;
    if let (Some(given), Some(taken)) = (options.bos_token_id, bos_token_id)
        && given != taken
    {
        notes.push(format!("--bos {given} is not used: the model's texts begin with token {taken}"));
    }
    let mask_token_id = token(mask_token_id)?;
    if eos_token_id == Some(mask_token_id) {
        notes.push(format!("token {mask_token_id} is both mask and end of text; the latter is left out"));
        eos_token_id = None;
    }
    let alpha_0 = facts.find(&["algo.alpha_0", "alpha_0"]).map(|value| {
        value
            .as_f64()
            .map(|v| v as f32)
            .ok_or_else(|| source.bad(format!("configuration: 'alpha_0' is {value}")))
    });
    let prepend_token_id = match facts.find(&["algo.prepend_token", "prepend_token"]) {
        Some(value) if variant == Variant::Ar => match value.as_str() {
            Some("bos") if bos_token_id.is_none() => {
                return Err(
                    source.bad("texts begin with 'bos', but neither configuration nor tokenizer has it; give --bos or --tokenizer")
                );
            }
            Some("bos") => bos_token_id,
            Some("mask") => Some(mask_token_id),
            _ => {
                return Err(source.bad(format!("configuration: 'prepend_token' is {value}, not bos or mask")));
            }
        },
        _ => None,
    };
    let config = Config {
        variant,
        context_length: facts.within("length", context_length, limits::CONTEXT_LENGTH)?,
        embedding_length: facts.within("width", width, limits::EMBEDDING_LENGTH)?,
        block_count,
        feed_forward_length: facts.within("width of the MLP", hidden, limits::FEED_FORWARD_LENGTH)?,
        head_count: facts.within("number of heads", head_count, limits::HEAD_COUNT)?,
        layer_norm_epsilon: LAYER_NORM_EPSILON,
        rope_freq_base: ROPE_FREQ_BASE,
        vocab_size: facts.within("vocabulary", vocab_size, limits::VOCAB_SIZE)?,
        mask_token_id,
        eos_token_id,
        bos_token_id,
        prepend_token_id,
        train_alpha_0: alpha_0.transpose()?,
    };
    config.validate().map_err(|what| source.bad(what))?;
    check_rotary(source, config.head_dim())?;
    Ok(Settings { config, notes })
}

/// Looks values up in a source.
#[derive(Clone, Copy)]
struct Facts<'a> {
    source: &'a Source,
}

impl<'a> Facts<'a> {
    /// The value of the first of these dotted paths that the configuration has. Some programs nest it in `config`.
    fn find(self, paths: &[&str]) -> Option<&'a Value> {
        let config = &self.source.config;
        let roots = [Some(config), config.get("config")];
        roots.into_iter().flatten().find_map(|root| {
            paths.iter().find_map(|path| {
                path.split('.').try_fold(root, |value, key| value.get(key)).filter(|value| !value.is_null())
            })
        })
    }

    fn number(self, paths: &[&str]) -> Result<Option<usize>> {
        let Some(value) = self.find(paths) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(number) => Ok(Some(number)),
            None => {
                let names = paths.join("' or '");
                Err(self.source.bad(format!("configuration: '{names}' is {value}, not an unsigned integer")))
            }
        }
    }

    fn text(self, paths: &[&str]) -> Result<Option<&'a str>> {
        let Some(value) = self.find(paths) else { return Ok(None) };
        let text = value.as_str();
        let names = || paths.join("' or '");
        text.map(Some)
            .ok_or_else(|| self.source.bad(format!("configuration: '{}' is {value}, not text", names())))
    }

    fn matrix(self, name: &str) -> Result<[usize; 2]> {
        match self.source.shape(name) {
            Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok([rows, columns]),
            Some(other) => Err(self.source.bad(format!("tensor '{name}' is {other:?}, not a matrix"))),
            None => Err(self.source.bad(format!("tensor '{name}' is missing"))),
        }
    }

    fn within(self, what: &str, value: usize, max: usize) -> Result<usize> {
        if !(1..=max).contains(&value) {
            return Err(self.source.bad(format!("the {what} of {value} is not in 1..={max}")));
        }
        Ok(value)
    }

    /// Refuses a configuration that contradicts the tensors.
    fn agrees(self, paths: &[&str], actual: usize, what: &str) -> Result<()> {
        match self.number(paths)? {
            Some(stated) if stated != actual => Err(self.source.bad(format!(
                "configuration: '{}' is {stated}, but {what} are {actual}",
                paths.join("' or '")
            ))),
            _ => Ok(()),
        }
    }

    /// A value that the option or the file gives; if both do, they have to agree. `known` is what the configuration and
    /// the tensors say.
    fn one(self, option: &str, what: &str, given: Option<usize>, known: [Option<usize>; 2]) -> Result<usize> {
        let path = self.source.path();
        let known = match known {
            [Some(stated), Some(derived)] if stated != derived => {
                return Err(self
                    .source
                    .bad(format!("{what} is {stated} by the configuration, but {derived} by the tensors")));
            }
            [stated, derived] => stated.or(derived),
        };
        match (given, known) {
            (Some(given), Some(known)) if given != known => {
                Err(Error::invalid(format!("{option} {given}: {what} of {path} is {known}")))
            }
            (given, known) => given
                .or(known)
                .ok_or_else(|| Error::invalid(format!("{path} does not say {what}; give it with {option}"))),
        }
    }

    /// The number of blocks. Every one has to exist, so that a single name cannot claim a million.
    fn blocks(self) -> Result<usize> {
        let mut seen = std::collections::BTreeSet::new();
        for name in self.source.names() {
            let Some((number, _)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
                continue;
            };
            match number.parse::<usize>() {
                Ok(number) if number < limits::BLOCK_COUNT => {
                    seen.insert(number);
                }
                _ => return Err(self.source.bad(format!("tensor '{name}' belongs to no block"))),
            }
        }
        match seen.iter().enumerate().find(|(place, number)| place != *number) {
            Some((place, _)) => Err(self.source.bad(format!("the tensors of block {place} are missing"))),
            None => Ok(seen.len()),
        }
    }

    /// The number of heads by the rotary buffer, which has one frequency per pair of a head's dimensions.
    fn heads_from_rotary(self, width: usize) -> Result<Option<usize>> {
        let name = "rotary_emb.inv_freq";
        match self.source.shape(name) {
            None => Ok(None),
            Some(&[pairs]) if pairs > 0 && width.is_multiple_of(2 * pairs) => Ok(Some(width / (2 * pairs))),
            Some(shape) => Err(self
                .source
                .bad(format!("tensor '{name}' is {shape:?}, which fits no head of a width of {width}"))),
        }
    }

    /// The variant, by the configuration's names and the tensors; an option has to agree with them.
    fn variant(self, options: &Options) -> Result<Variant> {
        let path = self.source.path();
        let has_condition = self.source.shape("sigma_map.mlp.0.weight").is_some();
        let name = self.text(&["algo.name", "model_type"])?.map(str::to_lowercase);
        let modes = (
            self.text(&["algo.diffusion_attn_mode", "diffusion_attn_mode"])?,
            self.text(&["algo.sequential_attn_mode", "sequential_attn_mode"])?,
        );
        let (family, known) = match (name.as_deref(), modes) {
            (Some("ar"), _) => (&[Variant::Ar][..], "ar"),
            (Some("mdlm"), _) if self.find(&["algo.causal_attention"]) == Some(&Value::Bool(true)) => {
                return Err(Error::Unsupported(format!("{path}: an MDLM with causal attention")));
            }
            (Some("mdlm"), _) => (&[Variant::Mdlm][..], "mdlm"),
            (Some("esolm"), (Some("causal"), Some("causal"))) => (&[Variant::EsoB][..], "b"),
            (Some("esolm"), (Some("mixed" | "mixed2"), Some("mixed" | "mixed2"))) => {
                (&[Variant::EsoA][..], "a")
            }
            (Some("esolm"), (None, _) | (_, None)) => (&[Variant::EsoA, Variant::EsoB][..], "a or b"),
            (Some("esolm"), (Some(diffusion), Some(sequential))) => {
                return Err(Error::Unsupported(format!(
                    "{path}: an Eso-LM with attention modes '{diffusion}' (diffusion) and '{sequential}' \
                     (sequential); esolm runs causal/causal (B) and mixed2/mixed (A)"
                )));
            }
            (Some(other), _) if self.find(&["algo.name"]).is_some() => {
                return Err(Error::Unsupported(format!(
                    "{path}: a model of the algorithm '{other}'; esolm, mdlm and ar can be converted"
                )));
            }
            // A configuration without a name. Only AR has no conditioning, and only Eso-LM's backbone saves its mask index.
            _ if !has_condition => (&[Variant::Ar][..], "ar"),
            _ if self.find(&["mask_index"]).is_some() => (&[Variant::EsoA, Variant::EsoB][..], "a or b"),
            _ => (&[Variant::Mdlm, Variant::EsoA, Variant::EsoB][..], "mdlm, a or b"),
        };
        match (options.variant, family) {
            (Some(given), family) if family.contains(&given) => Ok(given),
            (Some(given), _) => {
                Err(Error::invalid(format!("--variant {}: {path} is of variant {known}", given.name())))
            }
            (None, &[only]) => Ok(only),
            (None, _) => Err(Error::invalid(format!(
                "{path} does not say which variant it is, {known}; give it with --variant"
            ))),
        }
    }
}

/// Refuses rotary frequencies of another base than [`ROPE_FREQ_BASE`], which the model file will have.
fn check_rotary(source: &mut Source, head_dim: usize) -> Result<()> {
    let name = "rotary_emb.inv_freq";
    if source.shape(name).is_none() {
        return Ok(());
    }
    let frequencies = source.read(name)?;
    let wrong = frequencies.iter().enumerate().find(|&(i, f)| {
        let expected = f64::from(ROPE_FREQ_BASE).powf(-2.0 * i as f64 / head_dim as f64);
        // The buffer may have been stored in bf16, which keeps three digits.
        (f / expected - 1.0).abs() > 0.01
    });
    match wrong {
        Some((i, f)) => Err(Error::Unsupported(format!(
            "{}: rotary frequency {i} is {f}, which does not have the base {ROPE_FREQ_BASE}",
            source.path()
        ))),
        None => Ok(()),
    }
}
