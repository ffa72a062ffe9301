//! A model of some thousand weights, and a file of it as llama.cpp writes them: for tests and for the targets of `fuzz/`.

use esolm::gguf::{Array, Value, Writer};
use esolm::{Architecture, Config, Defaults, Result, Variant};

/// Hyperparameters of the smallest model, with sequences of 16 tokens. The last token is the mask, the one before it ends a text.
pub fn config(variant: Variant, vocab_size: usize) -> Config {
    Config {
        variant,
        block_length: if variant == Variant::Bd3Lm { 4 } else { 0 },
        context_length: 16,
        embedding_length: 8,
        block_count: 1,
        feed_forward_length: 8,
        // Of 8 dimensions, or else the library's own kernels could not run it.
        head_count: 1,
        architecture: if variant == Variant::WeDlm { Architecture::QWEN3 } else { Architecture::DIT },
        norm_epsilon: 1e-5,
        rope_freq_base: 10_000.0,
        vocab_size,
        mask_token_id: vocab_size as u32 - 1,
        eos_token_id: Some(vocab_size as u32 - 2),
        other_eos_token_ids: Vec::new(),
        bos_token_id: None,
        prepend_token_id: None,
        needs_first_token: variant == Variant::WeDlm,
        diffusion_only: false,
        train_alpha_0: None,
        defaults: Defaults::default(),
    }
}

/// The keys of a file with Qwen's tokenizer: tokens and merges are texts, a type of 3 is that of a token that stands for itself.
///
/// # Errors
/// Those of [`Config::write`], and values that are no texts.
pub fn llama_keys(config: &Config, tokens: &[Value], types: &[i32], merges: &[Value]) -> Result<Writer> {
    let mut writer = Writer::new();
    config.write(&mut writer)?;
    let types: Vec<Value> = types.iter().map(|&ty| Value::I32(ty)).collect();
    writer.set("tokenizer.ggml.model", Value::Str("gpt2".into()));
    writer.set("tokenizer.ggml.pre", Value::Str("qwen2".into()));
    for (key, values) in [("tokens", tokens), ("token_type", &types), ("merges", merges)] {
        writer.set(&format!("tokenizer.ggml.{key}"), Value::Array(Array::new(values)?));
    }
    Ok(writer)
}
