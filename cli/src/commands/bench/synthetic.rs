//! Synthetic models: published shapes with random weights. Speed does not depend on the values of the weights.

use std::fs::{DirBuilder, File};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use esolm::TensorSpec;
use esolm::gguf::{TensorType, Writer};
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{Config, Defaults, Error, Result, Variant};

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

/// A model file in a temporary folder of its own, both deleted on drop.
pub struct SyntheticModel {
    pub path: PathBuf,
    folder: PathBuf,
}

impl SyntheticModel {
    /// A place for a file of this name, in a folder that nobody else may write to: in the system's temporary one others may
    /// put links under names that they guess.
    pub fn place(name: &str) -> Result<Self> {
        Self::place_in(&std::env::temp_dir(), name)
    }

    pub(super) fn place_in(temporary: &Path, name: &str) -> Result<Self> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let mut number = 0;
        loop {
            let folder = temporary.join(format!("esolm-bench-{}-{number}", std::process::id()));
            match builder.create(&folder) {
                Ok(()) => return Ok(Self { path: folder.join(name), folder }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(source) => return Err(Error::Io { file: folder.display().to_string(), source }),
            }
        }
    }

    /// Writes a model with matrices of type `ty`. The weights are the same each time.
    pub fn write(config: &Config, ty: TensorType) -> Result<Self> {
        let file = |ty: TensorType| Self::place(&format!("{}.gguf", ty.name()));
        let plain = file(TensorType::F16)?;
        let mut writer = Writer::new();
        config.write(&mut writer);
        write_random_weights(&plain.path, writer, &config.tensors())?;
        if ty == TensorType::F16 {
            return Ok(plain);
        }
        let packed = file(ty)?;
        let options = QuantizeOptions { force: true, ..QuantizeOptions::new(ty) };
        quantize(&plain.path, &packed.path, &options, &mut |_| ())?;
        Ok(packed)
    }
}

/// Writes a file with `writer`'s metadata and random `tensors` to `path`: matrices f16, uniform in +-0.03; vectors f32,
/// about 1.
pub fn write_random_weights(path: &Path, mut writer: Writer, tensors: &[TensorSpec]) -> Result<()> {
    let io = |source| Error::Io { file: path.display().to_string(), source };
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
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
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
    })
}

impl Drop for SyntheticModel {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
