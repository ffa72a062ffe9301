//! Loading a model file: mapped or copied, from disk or from memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::header::ModelHeader;
use crate::error::{Error, Result};
use crate::ggml::{Device, Weights, in_host_memory};
use crate::memory::{FileBytes, collected};
use crate::simd::{DefaultFloats, check_processor};

/// How a file's weights get into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadMode {
    /// The file is memory-mapped and the CPU computes with its pages in place; other processes share them. The file
    /// must not be changed while the model lives (reading a truncated file ends the process with SIGBUS).
    #[default]
    Map,
    /// The file is read into memory that the library allocates.
    Copy,
}

/// How to open a model.
#[derive(Clone, Default)]
pub struct LoadOptions<'a> {
    /// The device that computes: a name of [`Device::find`]; empty is `auto`.
    pub device: String,
    /// Whether the file is mapped or copied.
    pub mode: LoadMode,
    /// Called with the fraction of the bytes that has been copied, 0 to 1; `Break` cancels loading, which then returns
    /// [`Error::Cancelled`]. If nothing has to be copied, it is called once, with 1.
    pub progress: Option<&'a dyn Fn(f64) -> ControlFlow<()>>,
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, mode, progress: _ } = self;
        f.debug_struct("LoadOptions").field("device", device).field("mode", mode).finish_non_exhaustive()
    }
}

impl LoadOptions<'_> {
    /// Calls `progress` with the fraction done.
    fn report(&self, fraction: f64) -> Result<()> {
        match self.progress.map(|progress| progress(fraction)) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

/// A model's parts, as they come out of a file.
pub(super) struct Loaded {
    pub(super) header: ModelHeader,
    pub(super) weights: Weights,
    /// The file's name, or `(memory)`.
    pub(super) file: String,
    pub(super) file_bytes: usize,
    pub(super) load_time: Duration,
}

/// The name of a file that has none.
const IN_MEMORY: &str = "(memory)";

/// Loads a GGUF file.
pub(super) fn from_file(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded> {
    load(path.display().to_string(), options, options.mode, |report| match options.mode {
        LoadMode::Map => FileBytes::map(path),
        LoadMode::Copy => FileBytes::read(path, report),
    })
}

/// Loads bytes that live as long as the process, in place unless the options ask for a copy.
pub(super) fn from_static(bytes: &'static [u8], options: &LoadOptions<'_>) -> Result<Loaded> {
    match options.mode {
        LoadMode::Map => load(IN_MEMORY.into(), options, LoadMode::Map, |_| Ok(FileBytes::Static(bytes))),
        LoadMode::Copy => from_bytes(bytes, options),
    }
}

/// Loads a copy of `bytes`.
pub(super) fn from_bytes(bytes: &[u8], options: &LoadOptions<'_>) -> Result<Loaded> {
    load(IN_MEMORY.into(), options, LoadMode::Copy, |report| FileBytes::copy_of(bytes, report))
}

/// Loads what `source` returns. `source` reports the fraction of the bytes that it has copied, 0 to 1; in mode `Map`
/// it copies none.
fn load(
    file: String,
    options: &LoadOptions<'_>,
    mode: LoadMode,
    source: impl FnOnce(&dyn Fn(f64) -> Result<()>) -> Result<FileBytes>,
) -> Result<Loaded> {
    check_processor()?;
    let _floats = DefaultFloats::set();
    let started = Instant::now();
    let device = Device::find(&options.device)?;
    // The fraction of all copying that `source` does; the rest is the copy to a device's own memory.
    let copied = match mode {
        LoadMode::Map => 0.0,
        LoadMode::Copy if in_host_memory(device) => 1.0,
        LoadMode::Copy => 0.5,
    };
    let source = source(&|fraction| options.report(copied * fraction))?;
    let file_bytes = source.bytes().len();
    let header = ModelHeader::read(source.bytes(), &file)?;
    let tensors = collected(header.tensors.iter().cloned())?;
    let to_device = |fraction| options.report(copied + (1.0 - copied) * fraction);
    let weights = Weights::new(device, tensors, source, &to_device)?;
    options.report(1.0)?;
    Ok(Loaded { header, weights, file, file_bytes, load_time: started.elapsed() })
}
