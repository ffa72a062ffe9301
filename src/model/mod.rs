//! A model: validated hyperparameters and immutable weights, shared between contexts and threads.

mod config;
mod header;
mod load;
mod tokenizer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ggml::Weights;
use crate::gguf::{TensorInfo, Value};

pub(crate) use config::BLOCK_TENSORS;
pub use config::{Config, TensorSpec, Variant};
#[cfg(feature = "convert")]
pub(crate) use header::select_tensors;
pub(crate) use header::{ModelHeader, total_bytes};
pub use load::{LoadMode, LoadOptions};
pub use tokenizer::{HOLE, Tokenizer};

/// A model. Cloning is cheap: the clones share everything.
#[derive(Debug, Clone)]
pub struct Model(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    metadata: Vec<(String, Value)>,
    weights: Weights,
    file_bytes: usize,
    load_time: Duration,
    file: String,
    tokenizer: OnceLock<std::result::Result<Tokenizer, String>>,
    fingerprint: OnceLock<u64>,
}

impl Model {
    fn new(
        header: ModelHeader,
        weights: Weights,
        file: String,
        file_bytes: usize,
        load_time: Duration,
    ) -> Self {
        let ModelHeader { config, metadata, tensors: _ } = header;
        let (tokenizer, fingerprint) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner {
            config,
            metadata,
            weights,
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

    /// All metadata of the file, in its order.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.0.metadata
    }

    /// The value of a key of the metadata.
    pub fn metadata_value(&self, key: &str) -> Option<&Value> {
        self.metadata().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The tensors, in the order of the forward pass.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.0.weights.tensors()
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> usize {
        total_bytes(self.tensors())
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> usize {
        self.0.file_bytes
    }

    /// Number of weights.
    pub fn parameter_count(&self) -> u64 {
        self.tensors().iter().map(|t| t.dims.iter().map(|&d| d as u64).product::<u64>()).sum()
    }

    /// How long opening took. The tokenizer is made on its first use and is not in it.
    pub fn load_time(&self) -> Duration {
        self.0.load_time
    }

    /// The name of the device that the weights are on.
    pub fn device(&self) -> String {
        self.0.weights.device().name()
    }

    /// The tokenizer, made on first use.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the file has none or a damaged one; [`Error::BadFile`] if it disagrees with the
    /// vocabulary.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let inner = &*self.0;
        let made = inner.tokenizer.get_or_init(|| {
            let json = self.metadata_value(Config::TOKENIZER_KEY).and_then(Value::as_str);
            let json = json.ok_or_else(|| format!("{} has no tokenizer", inner.file))?;
            Tokenizer::from_json(json, &inner.config).map_err(|e| format!("{}: {e}", inner.file))
        });
        made.as_ref().map_err(|what| Error::Tokenizer(what.clone()))
    }

    /// The bytes that the tensors' ranges are in.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the weights are not in main memory.
    pub(crate) fn host_bytes(&self) -> Result<&[u8]> {
        self.0.weights.host_bytes().ok_or_else(|| {
            Error::Unsupported("a saved state needs a model whose weights are in main memory".into())
        })
    }

    /// A number that tells models apart: the tensors' bytes and a CRC-32 of them and of what decides how they are used.
    /// It guards against mistakes, not against forgery. The first call reads all weights.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the weights are not in main memory.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        let inner = &*self.0;
        let bytes = self.host_bytes()?;
        Ok(*inner.fingerprint.get_or_init(|| {
            let config = &inner.config;
            let mut crc = crc32fast::Hasher::new();
            crc.update(config.variant.name().as_bytes());
            for number in [config.head_count as u32, config.mask_token_id, config.first_token_id()] {
                crc.update(&number.to_le_bytes());
            }
            for number in [config.rope_freq_base, config.layer_norm_epsilon] {
                crc.update(&number.to_le_bytes());
            }
            for tensor in inner.weights.tensors() {
                crc.update(tensor.ty.name().as_bytes());
                tensor.dims.iter().for_each(|&dim| crc.update(&(dim as u64).to_le_bytes()));
                crc.update(bytes.get(tensor.range.clone()).unwrap_or_default());
            }
            ((self.tensor_bytes() as u64) << 32) | u64::from(crc.finalize())
        }))
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.0.weights
    }
}
