//! A model: validated hyperparameters and immutable weights, shared between contexts and threads.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::config::{Config, TOKENIZER_KEY};
use crate::error::{Error, Result};
use crate::ggml::{Device, Weights, WeightsSource, in_host_memory};
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
#[derive(Clone, Default)]
pub struct LoadOptions<'a> {
    /// The device that computes, as [`Device::find`] takes it; empty is `auto`.
    pub device: String,
    /// Map or copy.
    pub mode: LoadMode,
    /// Is told the share of the bytes that are in place, from 0 to 1, as they are copied, and may stop the
    /// opening, which then is [`Error::Cancelled`]. Weights that are used where they are take no time.
    pub progress: Option<&'a dyn Fn(f64) -> ControlFlow<()>>,
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, mode, progress: _ } = self;
        f.debug_struct("LoadOptions").field("device", device).field("mode", mode).finish_non_exhaustive()
    }
}

impl LoadOptions<'_> {
    /// Reports a share of what lies between the shares `from` and `to` of the whole.
    fn report(&self, (from, to): (f64, f64), share: f64) -> Result<()> {
        match self.progress.map(|progress| progress(from + (to - from) * share)) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
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
    /// [`Error::Device`]; [`Error::OutOfMemory`]; [`Error::Cancelled`].
    pub fn open(path: impl AsRef<Path>, options: &LoadOptions<'_>) -> Result<Self> {
        let path = path.as_ref();
        Self::load(path.display().to_string(), options, |report| match options.mode {
            LoadMode::Map => WeightsSource::map(path),
            LoadMode::Copy => WeightsSource::read(path, report),
        })
    }

    /// Opens a model that is in memory for good, in place. (Bytes at an address that is not a multiple of 32
    /// are copied.)
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_static(bytes: &'static [u8], options: &LoadOptions<'_>) -> Result<Self> {
        match options.mode {
            LoadMode::Map => Self::load(IN_MEMORY.into(), options, |_| Ok(WeightsSource::Static(bytes))),
            LoadMode::Copy => Self::from_bytes(bytes, options),
        }
    }

    /// Opens a model from a copy of `bytes`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: &[u8], options: &LoadOptions<'_>) -> Result<Self> {
        let options = LoadOptions { mode: LoadMode::Copy, ..options.clone() };
        Self::load(IN_MEMORY.into(), &options, |report| WeightsSource::copy_of(bytes, report))
    }

    /// Opens what `source` gets; it reports the share of the bytes that it has copied.
    fn load(
        file: String,
        options: &LoadOptions<'_>,
        source: impl FnOnce(&dyn Fn(f64) -> Result<()>) -> Result<WeightsSource>,
    ) -> Result<Self> {
        let started = Instant::now();
        let device = Device::find(&options.device)?;
        // Copied once or, on the way to a device's own memory, twice.
        let copied = match options.mode {
            LoadMode::Map => 0.0,
            LoadMode::Copy if in_host_memory(device) => 1.0,
            LoadMode::Copy => 0.5,
        };
        let source = source(&|share| options.report((0.0, copied), share))?;
        let file_bytes = source.bytes().len();
        let Contents { config, tensors, metadata } = Contents::read(source.bytes(), &file)?;
        let weights = Weights::new(device, tensors, source, &|share| options.report((copied, 1.0), share))?;
        options.report((1.0, 1.0), 1.0)?;
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
            let json = self.metadata_value(TOKENIZER_KEY).and_then(Value::as_str);
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

/// What stands for the file's name where there is none.
const IN_MEMORY: &str = "(memory)";

/// What a file says about its model.
pub(crate) struct Contents {
    pub(crate) config: Config,
    pub(crate) tensors: Vec<TensorInfo>,
    metadata: Vec<(String, Value)>,
}

impl Contents {
    /// Reads and checks everything but the weights themselves.
    pub(crate) fn read(bytes: &[u8], file: &str) -> Result<Self> {
        let gguf = Gguf::parse(bytes, file)?;
        let config = Config::from_gguf(&gguf)?;
        let tensors = select_tensors(&gguf, &config)?;
        Ok(Self { config, tensors, metadata: gguf.into_metadata() })
    }
}

/// Bytes of these tensors.
pub(crate) fn total_bytes(tensors: &[TensorInfo]) -> usize {
    tensors.iter().map(|t| t.range.len()).sum()
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
