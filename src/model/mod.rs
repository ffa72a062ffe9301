//! A model: validated hyperparameters and immutable weights, shared between contexts and threads.

mod architecture;
mod config;
mod defaults;
mod feature;
mod header;
mod keys;
mod llama_keys;
mod load;
mod tokenizer;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ggml::Weights;
use crate::gguf::{TensorInfo, Value};
use crate::memory::{LockedPages, ModelReader};

pub(crate) use architecture::BlockTensor;
pub use architecture::{Architecture, Mlp, Norm};
pub(crate) use config::limits;
pub use config::{Config, TensorSpec, Variant};
#[cfg(feature = "convert")]
pub(crate) use config::{EMBEDDING, OUTPUT};
pub use defaults::Defaults;
pub(crate) use defaults::check_range;
pub use feature::Feature;
#[cfg(feature = "convert")]
pub(crate) use header::layout_of;
#[cfg(feature = "convert")]
pub(crate) use header::select_tensors;
pub(crate) use header::{ModelHeader, total_bytes};
#[cfg(feature = "convert")]
pub(crate) use llama_keys::MASK_NAMES;
use load::Loaded;
pub use load::{LoadMode, LoadOptions};
use tokenizer::Unusable;
pub(crate) use tokenizer::{Joint, TokenPieces, push_characters};
pub use tokenizer::{MASK, TokenizeOptions, Tokenizer};
#[cfg(feature = "convert")]
pub(crate) use tokenizer::{MAX_ADDED, MAX_MERGES, parse_tokenizer, qwen2_parts};

/// A model: hyperparameters, weights and tokenizer. Clones share them.
#[derive(Debug, Clone)]
pub struct Model(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    metadata: Vec<(String, Value)>,
    // Before `weights`, to be dropped first.
    _locked: Option<LockedPages>,
    weights: Weights,
    /// The name of the device that they are on.
    device: String,
    /// With plain rows, if `weights` has panels and something computes with ggml.
    plain_weights: OnceLock<Weights>,
    file_bytes: usize,
    load_time: Duration,
    file: String,
    tokenizer: OnceLock<Result<Tokenizer, TokenizerError>>,
    fingerprint: OnceLock<u64>,
}

/// Why a model has no tokenizer. It can be returned more than once, which an [`Error`] cannot.
#[derive(Debug)]
enum TokenizerError {
    /// The file has none.
    Missing,
    /// The file has one that cannot be used.
    Unusable(Unusable),
}

impl Model {
    /// Opens a GGUF file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadFile`] naming the key, tensor or offset; [`Error::Device`]; [`Error::OutOfMemory`];
    /// [`Error::Cancelled`].
    pub fn open(path: impl AsRef<Path>, options: &LoadOptions<'_>) -> Result<Self> {
        load::from_file(path.as_ref(), options).map(Self::new)
    }

    /// Opens a GGUF file that is in memory and stays there, without a copy. (Bytes at an address that is not a
    /// multiple of 32 are copied.)
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_static(bytes: &'static [u8], options: &LoadOptions<'_>) -> Result<Self> {
        load::from_static(bytes, options).map(Self::new)
    }

    /// Opens a GGUF file from a copy of `bytes`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: &[u8], options: &LoadOptions<'_>) -> Result<Self> {
        load::from_bytes(bytes, options).map(Self::new)
    }

    /// Opens a GGUF file that `reader` reads, into memory of its own: [`LoadOptions::mode`] does not matter.
    ///
    /// # Errors
    /// As [`Model::open`]; [`Error::Io`] with the reader's own error, and for a file that ends before its size.
    pub fn from_reader(reader: &mut dyn ModelReader, options: &LoadOptions<'_>) -> Result<Self> {
        load::from_reader(reader, options).map(Self::new)
    }

    /// Opens a GGUF file that is a part of an open file: `len` bytes from `offset` on, or all up to its end. In
    /// [`LoadMode::Map`] it is mapped, and its tensors are copied where they are not aligned to 32 bytes. The file may be
    /// closed afterwards.
    ///
    /// # Errors
    /// As [`Model::open`]; [`Error::InvalidArgument`] if the part is not inside the file.
    pub fn from_file(file: &File, offset: u64, len: Option<u64>, options: &LoadOptions<'_>) -> Result<Self> {
        load::from_part(file, offset, len, options).map(Self::new)
    }

    fn new(loaded: Loaded) -> Self {
        let Loaded { header, locked: _locked, weights, device, file, file_bytes, load_time } = loaded;
        let ModelHeader { config, metadata, tensors: _ } = header;
        let (tokenizer, fingerprint) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner {
            config,
            metadata,
            _locked,
            weights,
            device,
            plain_weights: OnceLock::new(),
            file_bytes,
            load_time,
            file,
            tokenizer,
            fingerprint,
        }))
    }

    /// The hyperparameters.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// All metadata, in the file's order.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.0.metadata
    }

    /// The value of a metadata key.
    pub fn metadata_value(&self, key: &str) -> Option<&Value> {
        self.metadata().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The file's name, for messages.
    pub(crate) fn file(&self) -> &str {
        &self.0.file
    }

    /// The tensors, in the order of the forward pass.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.0.weights.tensors()
    }

    /// Size of all tensors in bytes.
    pub fn tensor_bytes(&self) -> usize {
        total_bytes(self.tensors())
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> usize {
        self.0.file_bytes
    }

    /// Number of weights.
    pub fn parameter_count(&self) -> u64 {
        self.tensors().iter().map(|t| t.dims.iter().map(|&d| d as u64).product::<u64>()).sum()
    }

    /// How long opening took, without the tokenizer, which is made on first use.
    pub fn load_time(&self) -> Duration {
        self.0.load_time
    }

    /// The name of the device that the weights are on.
    pub fn device(&self) -> String {
        self.device_name().to_owned()
    }

    /// As [`Model::device`].
    pub(crate) fn device_name(&self) -> &str {
        &self.0.device
    }

    /// The tokenizer, made on first use.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the file has none; [`Error::BadFile`] if it is damaged or has another number of tokens
    /// than the model.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let inner = &*self.0;
        let get = |key: &str| self.metadata_value(key);
        let make = || {
            let found = Tokenizer::of_file(&get, &inner.config).ok_or(TokenizerError::Missing)?;
            found.map_err(TokenizerError::Unusable)
        };
        let made = match inner.tokenizer.get() {
            Some(made) => made,
            None => match make() {
                // There may be memory for it the next time.
                Err(TokenizerError::Unusable(unusable)) if unusable.for_now() => {
                    return Err(unusable.error(&inner.file));
                }
                made => inner.tokenizer.get_or_init(|| made),
            },
        };
        made.as_ref().map_err(|error| match error {
            TokenizerError::Missing => Error::tokenizer(format!("{} has no tokenizer", inner.file)),
            TokenizerError::Unusable(unusable) => unusable.error(&inner.file),
        })
    }

    /// Whether the model has the vocabulary of another: as many tokens, the same mask, and the same tokenizer or none.
    #[cfg(feature = "convert")]
    pub(crate) fn has_vocabulary_of(&self, other: &Self) -> bool {
        let vocabulary = |config: &Config| (config.vocab_size, config.mask_token_id);
        vocabulary(self.config()) == vocabulary(other.config())
            && Tokenizer::is_same(&|key| self.metadata_value(key), &|key| other.metadata_value(key))
    }

    /// Identifies the model: the low 32 bits of the tensors' size, then a CRC-32 of the tensors and the hyperparameters
    /// that change results. It guards against mistakes, not against forgery. The first call reads all weights, from the
    /// device if they are there.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        let Inner { config, weights, fingerprint, .. } = &*self.0;
        if let Some(&known) = fingerprint.get() {
            return Ok(known);
        }
        let (mut crc, mut len) = (crc32fast::Hasher::new(), 0u64);
        crc.update(config.variant.name().as_bytes());
        for number in [config.head_count as u32, config.mask_token_id, config.first_token_id()] {
            crc.update(&number.to_le_bytes());
        }
        if config.block_length > 0 {
            crc.update(&(config.block_length as u32).to_le_bytes());
        }
        if config.needs_first_token {
            crc.update(b"needs_first_token");
        }
        for number in [config.rope_freq_base, config.norm_epsilon] {
            crc.update(&number.to_le_bytes());
        }
        for (number, tensor) in weights.tensors().iter().enumerate() {
            crc.update(tensor.ty.name().as_bytes());
            tensor.dims.iter().for_each(|&dim| crc.update(&(dim as u64).to_le_bytes()));
            // The same whichever the layout.
            let rows = weights.plain_rows(number, tensor)?;
            crc.update(&rows);
            len = len.wrapping_add(rows.len() as u64);
        }
        let computed = (len << 32) | u64::from(crc.finalize());
        Ok(*fingerprint.get_or_init(|| computed))
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.0.weights
    }

    /// The weights with plain rows, for ggml: the first call makes them if they lie in panels, which takes as much memory again.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn plain_weights(&self) -> Result<&Weights> {
        let Inner { weights, plain_weights, .. } = &*self.0;
        match plain_weights.get() {
            Some(plain) => Ok(plain),
            None => Ok(weights.in_plain_rows()?.map_or(weights, |plain| plain_weights.get_or_init(|| plain))),
        }
    }
}
