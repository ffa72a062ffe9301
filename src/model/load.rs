//! Opening a model: from a file, mapped or copied, or from memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use super::{Model, ModelHeader};
use crate::error::{Error, Result};
use crate::ggml::{Device, Weights, in_host_memory};
use crate::memory::FileBytes;

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

/// What stands for the file's name where there is none.
const IN_MEMORY: &str = "(memory)";

impl Model {
    /// Opens a GGUF file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadFile`] naming the key, tensor or offset; [`Error::Unsupported`];
    /// [`Error::Device`]; [`Error::OutOfMemory`]; [`Error::Cancelled`].
    pub fn open(path: impl AsRef<Path>, options: &LoadOptions<'_>) -> Result<Self> {
        let path = path.as_ref();
        Self::load(path.display().to_string(), options, |report| match options.mode {
            LoadMode::Map => FileBytes::map(path),
            LoadMode::Copy => FileBytes::read(path, report),
        })
    }

    /// Opens a model that is in memory for good, in place. (Bytes at an address that is not a multiple of 32
    /// are copied.)
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_static(bytes: &'static [u8], options: &LoadOptions<'_>) -> Result<Self> {
        match options.mode {
            LoadMode::Map => Self::load(IN_MEMORY.into(), options, |_| Ok(FileBytes::Static(bytes))),
            LoadMode::Copy => Self::from_bytes(bytes, options),
        }
    }

    /// Opens a model from a copy of `bytes`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: &[u8], options: &LoadOptions<'_>) -> Result<Self> {
        let options = LoadOptions { mode: LoadMode::Copy, ..options.clone() };
        Self::load(IN_MEMORY.into(), &options, |report| FileBytes::copy_of(bytes, report))
    }

    /// Opens what `source` gets; it reports the share of the bytes that it has copied.
    fn load(
        file: String,
        options: &LoadOptions<'_>,
        source: impl FnOnce(&dyn Fn(f64) -> Result<()>) -> Result<FileBytes>,
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
        let header = ModelHeader::read(source.bytes(), &file)?;
        let tensors = header.tensors.clone();
        let weights = Weights::new(device, tensors, source, &|share| options.report((copied, 1.0), share))?;
        options.report((1.0, 1.0), 1.0)?;
        Ok(Self::new(header, weights, file, file_bytes, started.elapsed()))
    }
}
