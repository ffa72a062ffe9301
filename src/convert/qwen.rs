//! Qwen2, Qwen3 and WeDLM as transformers stores them: hyperparameters from `config.json`, ends and sampling from
//! `generation_config.json`, and which tensor is which.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::facts::Facts;
use super::fold::Recipe;
use super::json::read_json_if_any;
use super::names::some_of;
use super::options::Options;
use super::settings::{Settings, mask_token, special_token};
use super::source::Source;
use super::tokenizer::Vocabulary;
use crate::error::{Error, Result};
use crate::memory::{add, collected, copied, formatted, try_collected};
use crate::model::{Architecture, Config, Defaults, Variant, limits};

/// The file beside the weights that says how text is generated.
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
/// Most tokens that end a text.
const MAX_ENDS: usize = 1 + limits::OTHER_EOS;

/// Determines the hyperparameters.
///
/// # Errors
/// [`Error::BadFile`] for what is missing, of a wrong type, out of range or contradictory; [`Error::Unsupported`] for RoPE
/// scaling, sliding windows and other activations; [`Error::InvalidArgument`] for an option that contradicts the file, or that is
/// needed and missing.
pub(super) fn settings(
    source: &Source,
    vocabulary: Option<&Vocabulary>,
    options: &Options,
) -> Result<Settings> {
    let facts = Facts { source };
    let (path, mut notes) = (source.path(), Vec::new());
    let is_wedlm = facts.text(&["model_type"])? == Some("wedlm");
    let variant = if is_wedlm { Variant::WeDlm } else { Variant::Ar };
    if let Some(given) = options.variant.filter(|&given| given != variant) {
        return Err(Error::invalid(format!(
            "--variant {}: {path} is of variant {}",
            given.name(),
            variant.name()
        )));
    }
    refuse_unknown(facts)?;
    let [vocab_size, width] = facts.matrix("embed_tokens.weight")?;
    let [hidden, _] = facts.matrix("layers.0.mlp.gate_proj.weight")?;
    let block_count = facts.blocks("layers.")?;
    facts.agrees(&["vocab_size"], vocab_size, "the embedding's rows")?;
    facts.agrees(&["hidden_size"], width, "the embedding's columns")?;
    facts.agrees(&["intermediate_size"], hidden, "the gate's rows")?;
    facts.agrees(&["num_hidden_layers"], block_count, "the blocks among the tensors")?;
    let stated = facts.number(&["num_attention_heads"])?;
    let head_count = facts.one("--heads", "the number of heads", options.head_count, [stated, None])?;
    let stated = facts.number(&["max_position_embeddings"])?;
    let context_length = facts.one("--length", "the length", options.context_length, [stated, None])?;
    let flag = |name: &str| facts.find(&[name]).and_then(Value::as_bool);
    let has = |name: &str| source.shape(name).is_some();
    let number = |name: &str| {
        let value = facts.find(&[name]).map(|value| value.as_f64().ok_or(value));
        value.transpose().map_err(|value| source.bad(format!("configuration: '{name}' is {value}")))
    };
    let epsilon = number("rms_norm_eps")?;
    let epsilon = epsilon.ok_or_else(|| source.bad("configuration: 'rms_norm_eps' is missing"))?;
    let nested = facts.find(&["rope_parameters.rope_theta"]).and_then(Value::as_f64);
    let base = number("rope_theta")?.or(nested).unwrap_or(10_000.0);
    let generation = read_json_if_any(&Path::new(path).with_file_name(GENERATION_CONFIG))?;
    let generation = generation.unwrap_or(Value::Null);

    let mask = match (variant, &options.mask_token) {
        (Variant::WeDlm, _) => {
            let stated = mask_token(facts, "mask_token_id", vocabulary, options, vocab_size)?;
            let token = |id| u32::try_from(id).map_err(|_| source.bad(format!("token {id} is out of range")));
            let stated = stated.map(token).transpose()?;
            stated.or_else(|| vocabulary.and_then(Vocabulary::mask)).ok_or_else(|| {
                Error::invalid(format!(
                    "neither configuration nor tokenizer of {path} says what the mask token is; give it with --mask-token"
                ))
            })?
        }
        (_, Some(_)) => return Err(Error::invalid(format!("--mask-token: {path} is autoregressive"))),
        // It stands for what is not known yet, and is none of the model's.
        _ => vocab_size as u32,
    };
    let mut ends = match &options.eos {
        Some(given) => vec![special_token("--eos", given, vocabulary, vocab_size)?],
        None => ends(&[generation.get("eos_token_id"), facts.find(&["eos_token_id"])], vocabulary),
    };
    if ends.contains(&mask) {
        notes.push(format!("token {mask} is both mask and end of text; the latter is left out"));
        ends.retain(|&end| end != mask);
    }
    let eos_token_id = (!ends.is_empty()).then(|| ends.remove(0));
    let bos = options.bos.as_ref().map(|bos| special_token("--bos", bos, vocabulary, vocab_size));
    let declared =
        facts.find(&["bos_token_id"]).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let is_a_token = |&id: &u32| id != mask && (id as usize) < vocab_size;
    let declared = declared.filter(is_a_token);
    // As llama.cpp's converter: the tokenizer knows the token that it puts there. (DeepSeek's distilled models declare another one.)
    let put =
        vocabulary.and_then(Vocabulary::before_texts).filter(|_| variant == Variant::Ar).filter(is_a_token);
    let bos_token_id = bos.transpose()?.or(put).or(declared);
    let prepend_token_id = bos_token_id.filter(|_| put.is_some());
    let config = Config {
        variant,
        block_length: 0,
        context_length: facts.within("length", context_length, limits::CONTEXT_LENGTH)?,
        embedding_length: facts.within("width", width, limits::EMBEDDING_LENGTH)?,
        block_count,
        feed_forward_length: facts.within("width of the MLP", hidden, limits::FEED_FORWARD_LENGTH)?,
        head_count: facts.within("number of heads", head_count, limits::HEAD_COUNT)?,
        architecture: Architecture {
            attention_bias: has("layers.0.self_attn.q_proj.bias"),
            qk_norm: has("layers.0.self_attn.q_norm.weight"),
            tied_output: flag("tie_word_embeddings").unwrap_or(!has("lm_head.weight")),
            kv_head_count: facts.number(&["num_key_value_heads"])?,
            head_dim: facts.number(&["head_dim"])?,
            ..Architecture::QWEN2
        },
        norm_epsilon: epsilon as f32,
        rope_freq_base: base as f32,
        vocab_size: facts.within("vocabulary", vocab_size, limits::VOCAB_SIZE)?,
        mask_token_id: mask,
        eos_token_id,
        other_eos_token_ids: ends,
        bos_token_id,
        prepend_token_id,
        needs_first_token: prepend_token_id.is_none(),
        diffusion_only: false,
        train_alpha_0: None,
        defaults: options.defaults.or(defaults(&generation)),
    };
    // Those of the checkpoint have no alpha_0: what is wrong was given.
    config.validate_defaults().map_err(Error::InvalidArgument)?;
    config.validate().map_err(|what| source.bad(what))?;
    for (name, there) in
        [("qk_norm", config.architecture.qk_norm), ("attention_bias", config.architecture.attention_bias)]
    {
        if let Some(stated) = flag(name).filter(|&stated| stated != there) {
            return Err(source.bad(format!("configuration: '{name}' is {stated}, but the tensors differ")));
        }
    }
    notes.push(match prepend_token_id {
        Some(token) => {
            format!("token {token} stands before each text, as the tokenizer says (add_bos_token)")
        }
        None => "texts have no token before them: the first one has to be given, by a prompt".into(),
    });
    Ok(Settings { config, notes })
}

/// Refuses what would change the network's results.
fn refuse_unknown(facts: Facts<'_>) -> Result<()> {
    let unsupported = |what: String| Err(Error::unsupported(format!("{}: {what}", facts.source.path())));
    for (_, rope) in facts.all(&["rope_scaling", "rope_parameters"]) {
        if let Some(scaling) = scaling(rope) {
            return unsupported(format!("RoPE scaling {scaling}; esolm runs models without it"));
        }
    }
    if let Some(other) = facts.find(&["use_sliding_window"]).filter(|&value| value != &Value::Bool(false)) {
        return unsupported(format!(
            "sliding windows ('use_sliding_window' is {other}); esolm runs models without them"
        ));
    }
    if let Some(kinds) = facts.find(&["layer_types"]) {
        let other = |kind: &&Value| kind.as_str() != Some("full_attention");
        if let Some(other) = kinds.as_array().map_or(Some(kinds), |kinds| kinds.iter().find(other)) {
            return unsupported(format!("layers of the kind {other}; esolm runs those of full_attention"));
        }
    }
    match facts.text(&["hidden_act"])? {
        None | Some("silu") => Ok(()),
        Some(other) => unsupported(format!("the activation '{other}'; esolm runs silu")),
    }
}

/// What of RoPE's parameters says that it is scaled: a kind, or where none is stated any parameter but the base.
fn scaling(rope: &Value) -> Option<String> {
    let Some(all) = rope.as_object() else { return Some(rope.to_string()) };
    let stated = |name: &str| all.get(name).filter(|value| !value.is_null());
    match stated("rope_type").or_else(|| stated("type")) {
        Some(kind) => (kind.as_str() != Some("default")).then(|| kind.to_string()),
        None => all
            .iter()
            .find(|(name, value)| *name != "rope_theta" && !value.is_null())
            .map(|(name, value)| format!("'{name}' {value}")),
    }
}

/// The tokens that end a text: of the first of these that has any, a number or a list of numbers; else the tokenizer's.
fn ends(stated: &[Option<&Value>], vocabulary: Option<&Vocabulary>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let mut found = Vec::new();
    for value in stated.iter().flatten().filter(|value| !value.is_null()) {
        let ids: Vec<u32> = match value.as_array() {
            Some(ids) => ids.iter().filter_map(id).take(MAX_ENDS).collect(),
            None => id(value).into_iter().collect(),
        };
        found.extend(ids);
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        found.extend(vocabulary.and_then(Vocabulary::eos));
    }
    let mut once = Vec::with_capacity(found.len());
    found.into_iter().for_each(|id| {
        if !once.contains(&id) {
            once.push(id)
        }
    });
    once
}

/// How the authors generate: what of it is in range.
fn defaults(generation: &Value) -> Defaults {
    let mut defaults = Defaults::default();
    for name in ["temperature", "top_k", "top_p"] {
        if let Some(value) = generation.get(name).filter(|value| value.is_number()) {
            // What is out of range is left to the library's own defaults.
            let _ = defaults.set(name, &value.to_string());
        }
    }
    defaults
}

/// One recipe per tensor of [`Config::tensors`], in that order, after all names and shapes are checked.
///
/// # Errors
/// [`Error::BadFile`] naming the tensors that are missing, unexpected or of another shape.
pub(super) fn recipes(source: &mut Source, config: &Config) -> Result<Vec<Recipe>> {
    let expected: Vec<(String, Vec<usize>)> =
        try_collected(config.tensors()?.into_iter().map(|mut spec| {
            spec.dims.reverse();
            Ok::<_, Error>((source_name(&spec.name)?, spec.dims))
        }))?;
    let missing = expected.iter().map(|(name, _)| name.as_str()).filter(|name| source.shape(name).is_none());
    if let Some(list) = some_of(missing)? {
        return Err(source.bad(format!("tensors are missing: {list}")));
    }
    for (name, shape) in &expected {
        match source.shape(name) {
            Some(found) if found == shape.as_slice() => (),
            found => {
                let found = found.unwrap_or_default();
                return Err(source.bad(format!(
                    "tensor '{name}' is {found:?}, but the rest of the model needs {shape:?}"
                )));
            }
        }
    }
    let mut known = HashSet::new();
    for (name, _) in &expected {
        add(&mut known, name.as_str())?;
    }
    let extra = source.names().filter(|name| !known.contains(name));
    // In a block they would take part in its computation.
    let of_blocks = extra.clone().filter(|name| name.starts_with("layers.") && !name.ends_with("inv_freq"));
    if let Some(list) = some_of(of_blocks)? {
        return Err(source.bad(format!("tensors that esolm does not know: {list}")));
    }
    let left_out = some_of(extra)?;
    source.note_left_out(left_out)?;
    collected(expected.into_iter().map(|(name, _)| Recipe::Copy(name)))
}

/// The name in the source of a tensor of the model file.
fn source_name(name: &str) -> Result<String> {
    let Some((block, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return copied(match name {
            "token_embd.weight" => "embed_tokens.weight",
            "output_norm.weight" => "norm.weight",
            _ => "lm_head.weight",
        });
    };
    let (module, kind) = part.rsplit_once('.').unwrap_or((part, "weight"));
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => other,
    };
    formatted(format_args!("layers.{block}.{module}.{kind}"))
}
