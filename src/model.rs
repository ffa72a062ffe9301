//! A model: validated hyperparameters and immutable weights, shared between contexts and threads.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::config::{Config, TOKENIZER_KEY};
use crate::error::{Error, Result};
use crate::ggml::{Device, Weights, WeightsSource};
use crate::gguf::{Gguf, TensorInfo, TensorType, Value};
use crate::tokenizer::Tokenizer;

/// How a file's weights come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadMode {
    /// The CPU computes with the file's pages as they are mapped; nothing is copied, and other processes share
    /// them. The file must not be changed while the model lives (a truncated file ends the process with
    /// SIGBUS).
    #[default]
    Map,
    /// The file is read into memory of the library's own.
    Copy,
}

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The device that computes, as [`Device::find`] takes it; empty is `auto`.
    pub device: String,
    /// Map or copy.
    pub mode: LoadMode,
}

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
    /// Opens a GGUF file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadFile`] naming the key, tensor or offset; [`Error::Unsupported`];
    /// [`Error::Device`]; [`Error::OutOfMemory`].
    pub fn open(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let started = Instant::now();
        let path = path.as_ref();
        let map = WeightsSource::map(path)?;
        let source = match options.mode {
            LoadMode::Map => map,
            LoadMode::Copy => WeightsSource::copy_of(map.bytes())?,
        };
        Self::load(source, path.display().to_string(), options, started)
    }

    /// Opens a model that is in memory for good, in place. (Bytes at an address that is not a multiple of 32
    /// are copied.)
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_static(bytes: &'static [u8], options: &LoadOptions) -> Result<Self> {
        let started = Instant::now();
        let source = match options.mode {
            LoadMode::Map => WeightsSource::Static(bytes),
            LoadMode::Copy => WeightsSource::copy_of(bytes)?,
        };
        Self::load(source, "(memory)".into(), options, started)
    }

    /// Opens a model from a copy of `bytes`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: &[u8], options: &LoadOptions) -> Result<Self> {
        let started = Instant::now();
        Self::load(WeightsSource::copy_of(bytes)?, "(memory)".into(), options, started)
    }

    fn load(source: WeightsSource, file: String, options: &LoadOptions, started: Instant) -> Result<Self> {
        let device = Device::find(&options.device)?;
        let gguf = Gguf::parse(source.bytes(), &file)?;
        let config = Config::from_gguf(&gguf)?;
        let tensors = select_tensors(&gguf, &config)?;
        let file_bytes = source.bytes().len();
        let metadata = gguf.into_metadata();
        let weights = Weights::new(device, tensors, source)?;
        Ok(Self(Arc::new(Inner {
            config,
            metadata,
            weights,
            file_bytes,
            load_time: started.elapsed(),
            file,
            tokenizer: OnceLock::new(),
            fingerprint: OnceLock::new(),
        })))
    }

    /// The hyperparameters.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// All metadata of the file, in its order.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.0.metadata
    }

    /// The tensors, in the order of the forward pass.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.0.weights.tensors()
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> usize {
        self.tensors().iter().map(|t| t.range.len()).sum()
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
            let json = inner.metadata.iter().find(|(k, _)| k == TOKENIZER_KEY).and_then(|(_, v)| v.as_str());
            let json = json.ok_or_else(|| format!("{} has no tokenizer", inner.file))?;
            Tokenizer::from_json(json, &inner.config).map_err(|e| format!("{}: {e}", inner.file))
        });
        made.as_ref().map_err(|what| Error::Tokenizer(what.clone()))
    }

    /// A number that tells models apart: the tensors' bytes and a CRC-32 of them and of what decides how they are used.
    /// It guards against mistakes, not against forgery. The first call reads all weights.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the weights are not in main memory.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        let inner = &*self.0;
        let bytes = inner.weights.host_bytes().ok_or_else(|| {
            Error::Unsupported("a saved state needs a model whose weights are in main memory".into())
        })?;
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

/// The file's tensors in the order of [`Config::tensors`]: exactly those, of these shapes, and of types that
/// the forward pass can use.
pub(crate) fn select_tensors(gguf: &Gguf, config: &Config) -> Result<Vec<TensorInfo>> {
    let bad = |what: String| Error::bad_file(gguf.file(), what);
    let by_name: std::collections::HashMap<&str, &TensorInfo> =
        gguf.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    // Compare counts before making the list: a hostile block count must not make a long one.
    let expected = config.block_count * crate::config::BLOCK_TENSORS.len() + 5;
    if gguf.tensors().len() != expected {
        let found = gguf.tensors().len();
        return Err(bad(format!("{found} tensors; a model of {} blocks has {expected}", config.block_count)));
    }
    let select = |spec: crate::config::TensorSpec| {
        let name = &spec.name;
        let info = *by_name.get(name.as_str()).ok_or_else(|| bad(format!("tensor '{name}' is missing")))?;
        if info.dims != spec.dims {
            return Err(bad(format!("tensor '{name}' has the shape {:?}, not {:?}", info.dims, spec.dims)));
        }
        if spec.dims.len() == 1 && info.ty != TensorType::F32 {
            return Err(bad(format!("tensor '{name}' is {}; norms and biases must be f32", info.ty.name())));
        }
        Ok(info.clone())
    };
    config.tensors().into_iter().map(select).collect()
}
