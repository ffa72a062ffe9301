//! The hyperparameters of a model to convert, from its configuration, its tensors' shapes and the caller's options.
//!
//! Training code writes nested configurations (`model.n_heads`, `algo.name`), published models flat ones (`n_heads`), and
//! some have little more than the vocabulary's size. What a configuration lacks is derived from the tensors if possible,
//! or has to be given as an option; what two of them give has to agree.

use serde_json::Value;

use super::facts::Facts;
use super::options::{Options, SpecialToken};
use super::source::Source;
use super::tokenizer::Vocabulary;
use super::variant::{self, TrainedAs};
use crate::error::{Error, Result};
use crate::model::{Architecture, Config, Variant, limits};

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
            return Err(Error::unsupported(format!(
                "{}: 'time_conditioning' is {value}: the network depends on the time, so its modulations are \
                 not constants that can be folded into the weights; esolm runs only models trained without it",
                source.path()
            )));
        }
    }
    let TrainedAs { variant, diffusion_only } = variant::kind(facts, options)?;
    let [vocab_size, width] = facts.matrix("vocab_embed.embedding")?;
    let [hidden, _] = facts.matrix("blocks.0.mlp.0.weight")?;
    let block_count = facts.blocks("blocks.")?;
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

    let mask_token_id = match mask_token(facts, "mask_index", vocabulary, options, vocab_size)? {
        Some(index) => index,
        None => vocabulary.and_then(|v| v.mask_within(vocab_size)).map_or(vocab_size - 1, |id| id as usize),
    };
    let token = |id: usize| u32::try_from(id).map_err(|_| source.bad(format!("token {id} is out of range")));
    let special = |option: &str, given: &Option<SpecialToken>, path: &str, named: Option<u32>| match given {
        Some(given) => special_token(option, given, vocabulary, vocab_size).map(Some),
        None => match facts.number(&[path])? {
            Some(id) => token(id).map(Some),
            None => Ok(named),
        },
    };
    let mut eos_token_id =
        special("--eos", &options.eos, "eos_token_id", vocabulary.and_then(Vocabulary::eos))?;
    let bos_token_id = special("--bos", &options.bos, "bos_token_id", vocabulary.and_then(Vocabulary::bos))?;
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
    let prepend = facts.find(&["algo.prepend_token", "prepend_token"]).filter(|_| variant == Variant::Ar);
    let (prepend_token_id, needs_first_token) = match prepend.map(|value| (value, value.as_str())) {
        None => (None, false),
        Some((_, Some("none"))) => (None, true),
        Some((_, Some("mask"))) => (Some(mask_token_id), false),
        Some((_, Some("bos"))) if bos_token_id.is_none() => {
            return Err(source.bad(
                "texts begin with 'bos', but neither configuration nor tokenizer has it; give --bos or --tokenizer",
            ));
        }
        Some((_, Some("bos"))) => (bos_token_id, false),
        Some((value, _)) => {
            return Err(
                source.bad(format!("configuration: 'prepend_token' is {value}, not bos, mask or none"))
            );
        }
    };
    if needs_first_token {
        notes.push("texts have no token before them: the first one has to be given, by a prompt".into());
    }
    if diffusion_only {
        notes.push(
            "trained for the diffusion phase alone ('sequential_attn_mode' is causal): alpha_0 has to be 1"
                .into(),
        );
    }
    let block_length = match variant {
        Variant::Bd3Lm => {
            let paths = ["block_size", "algo.block_size"];
            match facts.find(&paths) {
                // The trainer's default, which omegaconf keeps as it is written: the whole text is a block.
                Some(Value::String(text)) if text == "${model.length}" => context_length,
                _ => facts
                    .number(&paths)?
                    .ok_or_else(|| source.bad("configuration: 'block_size' is missing"))?,
            }
        }
        _ => 0,
    };
    let config = Config {
        variant,
        block_length,
        context_length: facts.within("length", context_length, limits::CONTEXT_LENGTH)?,
        embedding_length: facts.within("width", width, limits::EMBEDDING_LENGTH)?,
        block_count,
        feed_forward_length: facts.within("width of the MLP", hidden, limits::FEED_FORWARD_LENGTH)?,
        head_count: facts.within("number of heads", head_count, limits::HEAD_COUNT)?,
        architecture: Architecture::DIT,
        norm_epsilon: LAYER_NORM_EPSILON,
        rope_freq_base: ROPE_FREQ_BASE,
        vocab_size: facts.within("vocabulary", vocab_size, limits::VOCAB_SIZE)?,
        mask_token_id,
        eos_token_id,
        other_eos_token_ids: Vec::new(),
        bos_token_id,
        prepend_token_id,
        needs_first_token,
        diffusion_only,
        train_alpha_0: alpha_0.transpose()?,
        defaults: options.defaults,
    };
    config.validate_defaults().map_err(Error::InvalidArgument)?;
    config.validate().map_err(|what| source.bad(what))?;
    let reads_mask = variant != Variant::Ar || !needs_first_token && config.first_token_id() == mask_token_id;
    if options.mask_token.is_some() && !reads_mask {
        return Err(Error::invalid(format!(
            "--mask-token: {} is autoregressive, and its texts do not begin with a mask",
            source.path()
        )));
    }
    check_rotary(source, config.head_dim())?;
    Ok(Settings { config, notes })
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
        Some((i, f)) => Err(Error::unsupported(format!(
            "{}: rotary frequency {i} is {f}, which does not have the base {ROPE_FREQ_BASE}",
            source.path()
        ))),
        None => Ok(()),
    }
}

/// The mask that the option names or the configuration; if both do, they have to agree.
pub(super) fn mask_token(
    facts: Facts<'_>,
    path: &str,
    vocabulary: Option<&Vocabulary>,
    options: &Options,
    vocab_size: usize,
) -> Result<Option<usize>> {
    let given =
        options.mask_token.as_ref().map(|mask| special_token("--mask-token", mask, vocabulary, vocab_size));
    match (given.transpose()?.map(|id| id as usize), facts.number(&[path])?) {
        (Some(given), Some(stated)) if given != stated => Err(Error::invalid(format!(
            "--mask-token {given}: {} says that it is {stated}",
            facts.source.path()
        ))),
        (given, stated) => Ok(given.or(stated)),
    }
}

/// The token that an option names, of a model that has `vocab_size`.
pub(super) fn special_token(
    option: &str,
    given: &SpecialToken,
    vocabulary: Option<&Vocabulary>,
    vocab_size: usize,
) -> Result<u32> {
    match (given, vocabulary) {
        (&SpecialToken::Id(id), _) if id as usize >= vocab_size => {
            Err(Error::invalid(format!("{option} {id}: the model has {vocab_size} tokens")))
        }
        (&SpecialToken::Id(id), _) => Ok(id),
        (given, Some(vocabulary)) => vocabulary.named(option, given),
        (SpecialToken::Text(text), None) => Err(Error::invalid(format!(
            "{option} '{text}': there is no tokenizer that has it; give the token's id, or --tokenizer"
        ))),
    }
}
