//! Synthetic models: published shapes with random weights. Speed does not depend on the values of the weights.

use std::fs::File;
use std::ops::Range;

use clap::ValueEnum;
use esolm::TensorSpec;
use esolm::quantize::{FileOrPath, QuantizeOptions, create_model};
use esolm::{Architecture, Config, Defaults, Error, LoadOptions, Model, Result, Variant, temporary_file};

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
    /// 596 M parameters: Qwen3 of 0.6 B
    #[value(name = "qwen3-0.6b")]
    Qwen3Tiny,
    /// 1.7 B parameters: Qwen3
    #[value(name = "qwen3-1.7b")]
    Qwen3Small,
    /// 7.6 B parameters: Qwen2.5, and WeDLM of 7 B
    #[value(name = "qwen2.5-7b")]
    Qwen25,
    /// 8.2 B parameters: Qwen3, and WeDLM of 8 B
    #[value(name = "qwen3-8b")]
    Qwen3,
}

impl Shape {
    /// The hyperparameters; `length` replaces the context length if it is not 0.
    pub fn config(self, variant: Variant, length: usize) -> Config {
        let (width, blocks, heads, context, vocab) = match self {
            Self::Small => (768, 12, 12, 1024, 50258),
            Self::Medium => (1024, 24, 16, 1024, 50258),
            Self::Stories => (256, 8, 4, 256, 4097),
            Self::Qwen3Tiny => return qwen(variant, length, QWEN3_TINY),
            Self::Qwen3Small => return qwen(variant, length, QWEN3_SMALL),
            Self::Qwen25 => return qwen(variant, length, QWEN25),
            Self::Qwen3 => return qwen(variant, length, QWEN3),
        };
        Config {
            variant,
            block_length: 0,
            context_length: if length == 0 { context } else { length },
            embedding_length: width,
            block_count: blocks,
            feed_forward_length: 4 * width,
            head_count: heads,
            architecture: Architecture::DIT,
            norm_epsilon: 1e-5,
            rope_freq_base: 10000.0,
            vocab_size: vocab,
            mask_token_id: vocab as u32 - 1,
            eos_token_id: None,
            other_eos_token_ids: Vec::new(),
            bos_token_id: None,
            prepend_token_id: None,
            needs_first_token: false,
            diffusion_only: false,
            train_alpha_0: None,
            defaults: Defaults::default(),
        }
    }
}

/// What the shapes of Qwen differ in; all but the architecture from the configurations of the published models.
struct Qwen {
    width: usize,
    hidden: usize,
    blocks: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    architecture: Architecture,
}

const TIED: Architecture =
    Architecture { tied_output: true, head_dim: Some(128), kv_head_count: Some(8), ..Architecture::QWEN3 };
const QWEN3_TINY: Qwen = Qwen {
    width: 1024,
    hidden: 3072,
    blocks: 28,
    heads: 16,
    kv_heads: 8,
    vocabulary: 151_936,
    architecture: TIED,
};
const QWEN3_SMALL: Qwen = Qwen { width: 2048, hidden: 6144, ..QWEN3_TINY };
const QWEN3: Qwen = Qwen {
    width: 4096,
    hidden: 12_288,
    blocks: 36,
    heads: 32,
    architecture: Architecture { tied_output: false, ..TIED },
    ..QWEN3_TINY
};
const QWEN25: Qwen = Qwen {
    width: 3584,
    hidden: 18_944,
    blocks: 28,
    heads: 28,
    kv_heads: 4,
    vocabulary: 152_064,
    architecture: Architecture::QWEN2,
};

fn qwen(variant: Variant, length: usize, shape: Qwen) -> Config {
    let Qwen { width, hidden, blocks, heads, kv_heads, vocabulary, architecture } = shape;
    Config {
        embedding_length: width,
        feed_forward_length: hidden,
        block_count: blocks,
        head_count: heads,
        architecture: Architecture { kv_head_count: Some(kv_heads), ..architecture },
        norm_epsilon: 1e-6,
        rope_freq_base: 1e6,
        vocab_size: vocabulary,
        mask_token_id: vocabulary as u32 - 1,
        needs_first_token: true,
        context_length: if length == 0 { 1024 } else { length },
        ..Shape::Small.config(variant, length)
    }
}

/// A model file without a name: nothing of it stays, whatever ends the process.
pub struct SyntheticModel(pub File);

impl SyntheticModel {
    /// Writes a model. The weights are the same each time.
    pub fn write(config: &Config, options: &QuantizeOptions) -> Result<Self> {
        let made = Self(temporary_file()?);
        create(config, FileOrPath::File(&made.0), options).map_err(name_file)?;
        Ok(made)
    }

    /// Loads the model.
    pub fn open(&self, options: &LoadOptions<'_>) -> Result<Model> {
        Model::from_file(&self.0, 0, None, options).map_err(name_file)
    }
}

/// Writes a model with random weights: matrices uniform in +-0.03, vectors about 1.
pub fn create(config: &Config, output: FileOrPath<'_>, options: &QuantizeOptions) -> Result<()> {
    let values = |tensor: &TensorSpec, rows: Range<usize>, to: &mut Vec<f32>| {
        let row_len = tensor.dims.first().copied().unwrap_or(1);
        let is_vector = tensor.dims.len() == 1;
        // Each row has numbers of its own, whoever makes it.
        let name =
            tensor.name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        for row in rows {
            let mut uniform = uniform(name.wrapping_add(row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            to.extend((0..row_len).map(|_| match is_vector {
                true => 1.0 + 0.1 * uniform(),
                false => 0.03 * uniform(),
            }));
        }
    };
    create_model(config, output, options, values, &mut |_| ()).map(drop)
}

/// Random numbers in +-1: Knuth's MMIX generator, whose high bits are good enough to fill a matrix.
pub fn uniform(mut state: u64) -> impl FnMut() -> f32 {
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
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
