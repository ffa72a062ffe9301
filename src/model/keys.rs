//! Hyperparameters as keys of a GGUF file.

use super::architecture::Architecture;
use super::config::{Config, Variant, limits};
use super::defaults::Defaults;
use super::llama_keys::{self, int};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value, Writer};

impl Config {
    /// Reads and validates the hyperparameters of a GGUF file.
    ///
    /// # Errors
    /// [`Error::BadFile`] naming the key that is missing, out of range or contradictory; [`Error::Unsupported`] for another
    /// architecture.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        Self::from_gguf_with_mask(gguf, None)
    }

    /// As [`Config::from_gguf`]. `mask` is the mask token of a model whose file does not say it.
    pub(crate) fn from_gguf_with_mask(gguf: &Gguf, mask: Option<u32>) -> Result<Self> {
        if let Some(parts) = gguf.get("split.count").and_then(Value::as_u64).filter(|&parts| parts > 1) {
            let what = "put them together first ('llama-gguf-split --merge' of llama.cpp)";
            return Err(Error::unsupported(format!(
                "{}: one of {parts} parts of a model; {what}",
                gguf.file()
            )));
        }
        match gguf.text("general.architecture")? {
            Self::ARCHITECTURE if mask.is_some() => {
                Err(Error::invalid(format!("{}: the file says what its mask token is", gguf.file())))
            }
            Self::ARCHITECTURE => Self::from_own_keys(gguf),
            llama if llama_keys::ARCHITECTURES.contains(&llama) => llama_keys::read(gguf, llama, mask),
            other => Err(Error::bad_file(
                gguf.file(),
                format!(
                    "a model of architecture '{other}'; esolm runs '{}' (see `esolm convert`), '{}'",
                    Self::ARCHITECTURE,
                    llama_keys::ARCHITECTURES.join("', '")
                ),
            )),
        }
    }

    fn from_own_keys(gguf: &Gguf) -> Result<Self> {
        let bad = |what: String| Error::bad_file(gguf.file(), what);
        let variant = gguf.text("esolm.variant")?;
        let size = |key: &str, high: usize| Ok::<_, Error>(gguf.u64_in(key, 1..=high as u64)? as usize);
        let vocab_size = size("esolm.vocab_size", limits::VOCAB_SIZE)?;
        let token = |key: &str| Ok::<_, Error>(gguf.u64_in(key, 0..=vocab_size as u64 - 1)? as u32);
        let optional = |key: &str| gguf.get(key).map(|_| token(key)).transpose();
        let config = Self {
            variant: Variant::from_name(variant).filter(|&variant| variant != Variant::WeDlm).ok_or_else(
                || bad(format!("key 'esolm.variant' is '{variant}', not b, a, mdlm, ar or bd3lm")),
            )?,
            block_length: match variant == Variant::Bd3Lm.name() {
                true => size("esolm.block_length", limits::CONTEXT_LENGTH)?,
                false => 0,
            },
            context_length: size("esolm.context_length", limits::CONTEXT_LENGTH)?,
            embedding_length: size("esolm.embedding_length", limits::EMBEDDING_LENGTH)?,
            block_count: size("esolm.block_count", limits::BLOCK_COUNT)?,
            feed_forward_length: size("esolm.feed_forward_length", limits::FEED_FORWARD_LENGTH)?,
            head_count: size("esolm.attention.head_count", limits::HEAD_COUNT)?,
            architecture: Architecture::DIT,
            norm_epsilon: gguf.finite("esolm.attention.layer_norm_epsilon")? as f32,
            rope_freq_base: gguf.finite("esolm.rope.freq_base")? as f32,
            vocab_size,
            mask_token_id: token("esolm.mask_token_id")?,
            eos_token_id: optional("tokenizer.ggml.eos_token_id")?,
            other_eos_token_ids: Vec::new(),
            bos_token_id: optional("tokenizer.ggml.bos_token_id")?,
            prepend_token_id: optional("esolm.prepend_token_id")?,
            needs_first_token: gguf.flag("esolm.needs_first_token")?,
            diffusion_only: gguf.flag("esolm.diffusion_only")?,
            train_alpha_0: match gguf.get("esolm.train.alpha_0") {
                Some(_) => Some(gguf.finite("esolm.train.alpha_0")? as f32),
                None => None,
            },
            defaults: Defaults::from_gguf(gguf)?,
        };
        config.validate().map_err(bad)?;
        let rope_dims = size("esolm.rope.dimension_count", limits::EMBEDDING_LENGTH)?;
        if rope_dims != config.head_dim() {
            return Err(bad(format!(
                "key 'esolm.rope.dimension_count' is {rope_dims}, but a head is {} wide",
                config.head_dim()
            )));
        }
        Ok(config)
    }

    /// Writes the hyperparameters into a GGUF file's metadata.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn write(&self, out: &mut Writer) -> Result<()> {
        match self.llama_architecture() {
            Some(architecture) => llama_keys::write(self, architecture, out)?,
            None => self.write_own_keys(out),
        }
        Ok(())
    }

    fn write_own_keys(&self, out: &mut Writer) {
        out.set_text("general.architecture", Self::ARCHITECTURE);
        out.set_text("esolm.variant", self.variant.name());
        if self.block_length > 0 {
            out.set("esolm.block_length", int(self.block_length));
        }
        out.set("esolm.context_length", int(self.context_length));
        out.set("esolm.embedding_length", int(self.embedding_length));
        out.set("esolm.block_count", int(self.block_count));
        out.set("esolm.feed_forward_length", int(self.feed_forward_length));
        out.set("esolm.attention.head_count", int(self.head_count));
        out.set("esolm.attention.layer_norm_epsilon", Value::F32(self.norm_epsilon));
        out.set("esolm.rope.freq_base", Value::F32(self.rope_freq_base));
        out.set("esolm.rope.dimension_count", int(self.head_dim()));
        out.set("esolm.vocab_size", int(self.vocab_size));
        out.set("esolm.mask_token_id", Value::U32(self.mask_token_id));
        if let Some(alpha_0) = self.train_alpha_0 {
            out.set("esolm.train.alpha_0", Value::F32(alpha_0));
        }
        self.defaults.write(out);
        if let Some(id) = self.prepend_token_id {
            out.set("esolm.prepend_token_id", Value::U32(id));
        }
        // Files without these keys have what they deny.
        if self.needs_first_token {
            out.set("esolm.needs_first_token", Value::Bool(true));
        }
        if self.diffusion_only {
            out.set("esolm.diffusion_only", Value::Bool(true));
        }
        if let Some(id) = self.eos_token_id {
            out.set("tokenizer.ggml.eos_token_id", Value::U32(id));
        }
        if let Some(id) = self.bos_token_id {
            out.set("tokenizer.ggml.bos_token_id", Value::U32(id));
        }
    }

    /// Whether a row that predicts the next token is at its own token's position, as in transformers, and not at the next one's,
    /// as in the authors' AR with a cache, and behind a token that stands before the text. (The text is the same, as RoPE is
    /// relative.)
    pub(crate) fn rows_have_their_positions(&self) -> bool {
        self.llama_architecture().is_some() && self.needs_first_token
    }

    /// The token that llama.cpp, too, puts before each text of a file.
    pub(crate) fn token_before_texts(&self) -> Option<u32> {
        self.prepend_token_id.filter(|_| self.llama_architecture().is_some())
    }

    /// The name of the architecture in llama.cpp's files, if it is one of those.
    pub(crate) fn llama_architecture(&self) -> Option<&'static str> {
        match self.variant {
            Variant::WeDlm => Some("wedlm"),
            _ if self.architecture.fused_qkv => None,
            _ if self.architecture.qk_norm => Some("qwen3"),
            _ => Some("qwen2"),
        }
    }
}
