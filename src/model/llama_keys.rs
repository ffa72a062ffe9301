//! Hyperparameters of Qwen2, Qwen3 and WeDLM as llama.cpp names them, so that its files are read as they are.
//! (`gguf-py/gguf/constants.py`, `src/llama-arch.cpp`; WeDLM: pull request 18731.)

use super::architecture::Architecture;
use super::config::{Config, EMBEDDING, Variant, limits};
use super::defaults::Defaults;
use crate::error::{Error, Result};
use crate::gguf::{Array, Gguf, Value, Writer};
use crate::memory::push;

/// The architectures that are read.
pub(super) const ARCHITECTURES: [&str; 3] = ["qwen2", "qwen3", "wedlm"];

/// What a mask token is called in a vocabulary, where nothing else says which it is.
pub(crate) const MASK_NAMES: [&str; 4] = ["<|mask|>", "<|MASK|>", "[MASK]", "<mask>"];
/// What tokens are called that end a text or a turn.
const ENDS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];
/// The key of a file of this library for tokens that end a text.
const ENDS_KEY: &str = "tokenizer.ggml.eos_token_ids";
/// Most of them.
const MAX_ENDS: usize = 1 + limits::OTHER_EOS;
/// The key by which llama.cpp puts the token that begins a text before each.
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// Reads the hyperparameters of a file of `architecture`. `mask` is the mask token that the caller gives.
///
/// # Errors
/// [`Error::BadFile`] naming the key; [`Error::Unsupported`] for RoPE scaling and sliding windows.
pub(super) fn read(gguf: &Gguf, architecture: &str, mask: Option<u32>) -> Result<Config> {
    let bad = |what: String| Error::bad_file(gguf.file(), what);
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str, high: usize| Ok::<_, Error>(gguf.u64_in(&key(name), 1..=high as u64)? as usize);
    let optional = |name: &str, high: usize| gguf.get(&key(name)).map(|_| size(name, high)).transpose();
    refuse_unknown(gguf, architecture)?;
    let has = |name: &str| gguf.tensor(name).is_some();
    let embedding = gguf.tensor(EMBEDDING).map(|tensor| tensor.dims.as_slice());
    let Some(&[_, vocab_size]) = embedding else {
        return Err(bad(format!("tensor '{EMBEDDING}' is missing, or is no matrix")));
    };
    let vocab_size = Some(vocab_size).filter(|size| *size <= limits::VOCAB_SIZE);
    let vocab_size = vocab_size.ok_or_else(|| bad("the vocabulary is too large".into()))?;
    let tokens = Vocabulary::of(gguf, vocab_size);
    let token = |name: &str| {
        let key = format!("tokenizer.ggml.{name}");
        gguf.get(&key).map(|_| gguf.u64_in(&key, 0..=vocab_size as u64 - 1)).transpose()
    };
    let known = token("mask_token_id")?.map(|id| id as u32);
    let named = || MASK_NAMES.iter().find_map(|name| tokens.id(name));
    let variant = match (gguf.get("esolm.variant"), architecture) {
        (Some(_), _) => match gguf.text("esolm.variant")? {
            "ar" => Variant::Ar,
            "wedlm" => Variant::WeDlm,
            other => return Err(bad(format!("key 'esolm.variant' is '{other}', not wedlm or ar"))),
        },
        (None, "wedlm") => Variant::WeDlm,
        _ if mask.or(known).is_some() => Variant::WeDlm,
        _ => Variant::Ar,
    };
    if let (Some(given), Some(known)) = (mask, known)
        && given != known
    {
        return Err(Error::invalid(format!("mask token {given}: {} says that it is {known}", gguf.file())));
    }
    if let (Some(given), Variant::Ar) = (mask, variant) {
        let what = format!("mask token {given}: {} says that it is autoregressive", gguf.file());
        return Err(Error::invalid(what));
    }
    if let Some(given) = mask
        && given as usize >= vocab_size
    {
        return Err(Error::invalid(format!("mask token {given}: {} has {vocab_size} tokens", gguf.file())));
    }
    let mask_token_id = match (mask.or(known).or_else(named), variant) {
        (Some(mask), _) => mask,
        (None, Variant::WeDlm) => {
            return Err(Error::invalid(format!(
                "{} does not say what its mask token is; give it (mask_token, --mask-token)",
                gguf.file()
            )));
        }
        // It stands for what is not known yet, and is none of the model's.
        (None, _) => vocab_size as u32,
    };
    let mut ends = Ends::default();
    for name in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        ends.add(token(name)?.map(|id| id as u32), mask_token_id);
    }
    if let Some(Value::Array(ids)) = gguf.get(ENDS_KEY) {
        let ids = ids.iter().map(|id| id.ok()?.as_u64().filter(|&id| id < vocab_size as u64));
        for id in ids.take(MAX_ENDS) {
            let id = id.ok_or_else(|| bad(format!("key '{ENDS_KEY}' has what is no token")))?;
            ends.add(Some(id as u32), mask_token_id);
        }
    } else {
        ENDS.iter().for_each(|name| ends.add(tokens.id(name), mask_token_id));
    }
    let eos_token_id = (!ends.0.is_empty()).then(|| ends.0.remove(0));
    let bos_token_id = token("bos_token_id")?.map(|id| id as u32).filter(|&id| id != mask_token_id);
    // A WeDLM's tokens have rows of their own, so that nothing can stand before them.
    let is_put = variant == Variant::Ar && gguf.flag(ADD_BOS)?;
    let prepend_token_id = bos_token_id.filter(|_| is_put);
    let head_count = size("attention.head_count", limits::HEAD_COUNT)?;
    let head_dim = optional("attention.key_length", limits::HEAD_DIM)?;
    let value_dim = optional("attention.value_length", limits::HEAD_DIM)?;
    let config = Config {
        variant,
        block_length: 0,
        context_length: size("context_length", limits::CONTEXT_LENGTH)?,
        embedding_length: size("embedding_length", limits::EMBEDDING_LENGTH)?,
        block_count: size("block_count", limits::BLOCK_COUNT)?,
        feed_forward_length: size("feed_forward_length", limits::FEED_FORWARD_LENGTH)?,
        head_count,
        architecture: Architecture {
            attention_bias: has("blk.0.attn_q.bias"),
            qk_norm: has("blk.0.attn_q_norm.weight"),
            tied_output: !has("output.weight"),
            kv_head_count: optional("attention.head_count_kv", limits::HEAD_COUNT)?,
            head_dim,
            ..Architecture::QWEN2
        },
        norm_epsilon: gguf.finite(&key("attention.layer_norm_rms_epsilon"))? as f32,
        rope_freq_base: match gguf.get(&key("rope.freq_base")) {
            Some(_) => gguf.finite(&key("rope.freq_base"))? as f32,
            None => 10_000.0,
        },
        vocab_size,
        mask_token_id,
        eos_token_id,
        other_eos_token_ids: ends.0,
        bos_token_id,
        prepend_token_id,
        needs_first_token: prepend_token_id.is_none(),
        diffusion_only: false,
        train_alpha_0: None,
        defaults: Defaults::from_gguf(gguf)?,
    };
    config.validate().map_err(bad)?;
    if value_dim.is_some_and(|dim| dim != config.head_dim()) {
        return Err(Error::unsupported(format!(
            "{}: values are as wide as keys in the models that esolm runs",
            gguf.file()
        )));
    }
    let rope_dims = optional("rope.dimension_count", limits::HEAD_DIM)?;
    if let Some(dims) = rope_dims.filter(|&dims| dims != config.head_dim()) {
        return Err(bad(format!(
            "key '{architecture}.rope.dimension_count' is {dims}, but a head is {} wide",
            config.head_dim()
        )));
    }
    Ok(config)
}

/// Refuses what would change the network's results.
fn refuse_unknown(gguf: &Gguf, architecture: &str) -> Result<()> {
    let unsupported = |what: String| Err(Error::unsupported(format!("{}: {what}", gguf.file())));
    let key = |name: &str| format!("{architecture}.{name}");
    if let Some(scaling) = gguf.get(&key("rope.scaling.type"))
        && scaling.as_str() != Some("none")
    {
        return unsupported(format!("RoPE scaling '{scaling}'; esolm runs models without it"));
    }
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        let other = |value: &&Value| value.as_f64() != Some(1.0);
        if let Some(factor) = gguf.get(&key(name)).filter(other) {
            return unsupported(format!("RoPE scaling by {factor}; esolm runs models without it"));
        }
    }
    if let Some(window) = gguf.get(&key("attention.sliding_window")).filter(|v| v.as_u64() != Some(0)) {
        return unsupported(format!("a sliding window of {window}; esolm runs models without it"));
    }
    match gguf.get(&key("expert_count")).filter(|v| v.as_u64() != Some(0)) {
        Some(experts) => unsupported(format!("a mixture of {experts} experts; esolm runs dense models")),
        None => Ok(()),
    }
}

/// Tokens that end a text, each once.
#[derive(Default)]
struct Ends(Vec<u32>);

impl Ends {
    fn add(&mut self, id: Option<u32>, mask: u32) {
        if let Some(id) = id.filter(|&id| id != mask && !self.0.contains(&id))
            && self.0.len() < MAX_ENDS
        {
            self.0.push(id);
        }
    }
}

/// The vocabulary of a file, if it has one.
struct Vocabulary<'a> {
    texts: Option<&'a Array>,
    size: usize,
}

impl<'a> Vocabulary<'a> {
    fn of(gguf: &'a Gguf, size: usize) -> Self {
        let array = |name: &str| match gguf.get(name) {
            Some(Value::Array(array)) => Some(array),
            _ => None,
        };
        Self { texts: array("tokenizer.ggml.tokens"), size }
    }

    /// The token of this text.
    fn id(&self, text: &str) -> Option<u32> {
        let place = self.texts?.texts().take(self.size).position(|token| token == text)?;
        Some(place as u32)
    }
}

/// Writes the hyperparameters.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn write(config: &Config, architecture: &str, out: &mut Writer) -> Result<()> {
    let key = |name: &str| format!("{architecture}.{name}");
    let head_dim = int(config.head_dim());
    out.set_text("general.architecture", architecture);
    for (name, number) in [
        ("context_length", config.context_length),
        ("embedding_length", config.embedding_length),
        ("block_count", config.block_count),
        ("feed_forward_length", config.feed_forward_length),
        ("attention.head_count", config.head_count),
        ("attention.head_count_kv", config.kv_head_count()),
        ("vocab_size", config.vocab_size),
    ] {
        out.set(&key(name), int(number));
    }
    out.set(&key("attention.key_length"), head_dim.clone());
    out.set(&key("attention.value_length"), head_dim);
    out.set(&key("attention.layer_norm_rms_epsilon"), Value::F32(config.norm_epsilon));
    out.set(&key("rope.freq_base"), Value::F32(config.rope_freq_base));
    out.set_text("esolm.variant", config.variant.name());
    config.defaults.write(out);
    let ids = [
        ("mask", Some(config.mask_token_id).filter(|_| config.variant == Variant::WeDlm)),
        ("eos", config.eos_token_id),
        ("bos", config.bos_token_id),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            out.set(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(id));
        }
    }
    if config.prepend_token_id.is_some_and(|token| config.bos_token_id == Some(token)) {
        out.set(ADD_BOS, Value::Bool(true));
    }
    let mut all = Vec::new();
    for id in config.ends() {
        push(&mut all, Value::U32(id))?;
    }
    out.set(ENDS_KEY, Value::Array(Array::new(&all)?));
    Ok(())
}

/// A number as a value. What fits no u32 is beyond every limit: who reads the file says so, with the number that was meant.
pub(super) fn int(number: usize) -> Value {
    u32::try_from(number).map_or(Value::U64(number as u64), Value::U32)
}
