//! Synthetic models: published shapes with random weights. Speed does not depend on the values of the weights.

use std::fs::File;
use std::io::{BufWriter, Write};

use clap::ValueEnum;
use esolm::TensorSpec;
use esolm::gguf::{TensorType, Writer};
use esolm::quantize::{FileOrPath, QuantizeOptions, quantize_file};
use esolm::{Config, Defaults, Error, LoadOptions, Model, Result, Variant, temporary_file};

/// The shapes that `esolm bench` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// 162 M parameters: width 768, 12 blocks, 1024 tokens, GPT-2's vocabulary (published as 170 M, with the adaLN weights
    /// that `esolm convert` folds into the others)
    Small,
    /// 405 M parameters: width 1024, 24 blocks, 1024 tokens, GPT-2's vocabulary.
    Medium,
    /// 8 M parameters: width 256, 8 blocks, 256 tokens, as the built-in model.
    Stories,
}

impl Shape {
    /// The hyperparameters; `length` replaces the context length if it is not 0.
    pub fn config(self, variant: Variant, length: usize) -> Config {
        let (width, blocks, heads, context, vocab) = match self {
            Self::Small => (768, 12, 12, 1024, 50258),
            Self::Medium => (1024, 24, 16, 1024, 50258),
            Self::Stories => (256, 8, 4, 256, 4097),
        };
        Config {
            variant,
            context_length: if length == 0 { context } else { length },
            embedding_length: width,
            block_count: blocks,
            feed_forward_length: 4 * width,
            head_count: heads,
            layer_norm_epsilon: 1e-5,
            rope_freq_base: 10000.0,
            vocab_size: vocab,
            mask_token_id: vocab as u32 - 1,
            eos_token_id: None,
            bos_token_id: None,
            prepend_token_id: None,
            needs_first_token: false,
            diffusion_only: false,
            train_alpha_0: None,
            defaults: Defaults::default(),
        }
    }
}

/// A model file without a name: nothing of it stays, whatever ends the process.
pub struct SyntheticModel(pub File);

impl SyntheticModel {
    /// Writes a model with matrices of type `ty`. The weights are the same each time.
    pub fn write(config: &Config, ty: TensorType) -> Result<Self> {
        let plain = Self(temporary_file()?);
        let mut writer = Writer::new();
        config.write(&mut writer);
        write_random_weights((&plain.0, &file_name()), writer, &config.tensors())?;
        if ty == TensorType::F16 {
            return Ok(plain);
        }
        let packed = Self(temporary_file()?);
        let (input, output) = (FileOrPath::File(&plain.0), FileOrPath::File(&packed.0));
        quantize_file(input, output, &QuantizeOptions::new(ty), &mut |_| ()).map_err(name_file)?;
        Ok(packed)
    }

    /// Loads the model.
    pub fn open(&self, options: &LoadOptions<'_>) -> Result<Model> {
        Model::from_file(&self.0, 0, None, options).map_err(name_file)
    }
}

/// What messages call the file, which has no name: they say whose disk is full.
fn file_name() -> String {
    format!("temporary file in {}", std::env::temp_dir().display())
}

/// An error of the file, with that name.
fn name_file(error: Error) -> Error {
    match error {
        Error::Io { source, .. } => Error::Io { file: file_name(), source },
        other => other,
    }
}

/// Writes to `file`, which messages call `name`, a model with `writer`'s metadata and random `tensors`: matrices f16, uniform
/// in +-0.03; vectors f32, about 1.
pub fn write_random_weights(
    (file, name): (&File, &str),
    mut writer: Writer,
    tensors: &[TensorSpec],
) -> Result<()> {
    writer.set_file_name(name);
    for tensor in tensors {
        let ty = if tensor.dims.len() > 1 { TensorType::F16 } else { TensorType::F32 };
        writer.declare(&tensor.name, ty, &tensor.dims)?;
    }
    let mut state = 1u64;
    let mut uniform = || {
        // Knuth's MMIX generator; its high bits are good enough to fill a matrix.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut out = BufWriter::new(file);
    writer.write(&mut out, |name, bytes| {
        let tensor = tensors.iter().find(|t| t.name == name);
        let dims = &tensor.ok_or_else(|| Error::Internal(format!("no tensor {name}")))?.dims;
        let count = dims.iter().product();
        if dims.len() > 1 {
            bytes.extend((0..count).flat_map(|_| half::f16::from_f32(0.03 * uniform()).to_le_bytes()));
        } else {
            bytes.extend((0..count).flat_map(|_| (1.0 + 0.1 * uniform()).to_le_bytes()));
        }
        Ok(())
    })?;
    // What a buffer writes when it is dropped fails in silence.
    out.flush().map_err(|source| Error::Io { file: name.into(), source })
}
