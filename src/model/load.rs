//! Loading a model file: mapped or copied, from disk or from memory.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::config::Config;
use super::header::{ModelHeader, layout_of};
use crate::error::{Error, Result};
use crate::ggml::{Device, Weights, in_host_memory};
use crate::gguf::{Layout, TensorInfo};
use crate::log::{LogLevel, log, log_with, mib};
use crate::memory::{FileBytes, FilePart, LockedPages, ModelReader, try_collected};
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
    /// If the rows of quantized matrices are plain in the file, the tensors are read into memory that the library allocates, with
    /// these in panels, as its CPU kernels read them fastest. Otherwise as `Map`, as on other devices; bytes in memory are copied.
    Repack,
}

/// How to open a model.
#[derive(Clone, Default)]
pub struct LoadOptions<'a> {
    /// The device that computes: a name of [`Device::find`]; empty is `auto`.
    pub device: String,
    /// Whether the file is mapped or copied.
    pub mode: LoadMode,
    /// Whether the weights are locked in main memory, so that the system never moves them out (`mlock`). If it refuses, a
    /// warning in the log says why and what helps, and the model is opened all the same. Not for weights on a device.
    pub mlock: bool,
    /// Whether a mapped file's pages are read in before opening returns, and not when they are first used.
    pub prefetch: bool,
    /// The mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it; the model is then WeDLM.
    pub mask_token: Option<u32>,
    /// Called with the fraction of the bytes that has been copied, 0 to 1; `Break` cancels loading, which then returns
    /// [`Error::Cancelled`]. If nothing has to be copied, it is called once, with 1.
    pub progress: Option<&'a dyn Fn(f64) -> ControlFlow<()>>,
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, mode, mlock, prefetch, mask_token, progress: _ } = self;
        let mut out = f.debug_struct("LoadOptions");
        out.field("device", device).field("mode", mode).field("mlock", mlock).field("prefetch", prefetch);
        out.field("mask_token", mask_token);
        out.finish_non_exhaustive()
    }
}

impl LoadOptions<'_> {
    /// How a tensor of a file lies once a model is open on a device.
    pub(crate) fn layout(&self, tensor: &TensorInfo, config: &Config, device: Device) -> Layout {
        match self.mode {
            _ if !in_host_memory(device) => Layout::Plain,
            LoadMode::Repack => {
                let tied = config.architecture.tied_output;
                layout_of(&tensor.name, tensor.ty, &tensor.dims, tied, Layout::Panels)
            }
            LoadMode::Map | LoadMode::Copy => tensor.layout,
        }
    }

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
    /// Before `weights`, to be dropped first.
    pub(super) locked: Option<LockedPages>,
    pub(super) weights: Weights,
    /// The name of the device that they are on.
    pub(super) device: String,
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
        LoadMode::Map | LoadMode::Repack => FileBytes::map(path),
        LoadMode::Copy => FileBytes::read(path, report),
    })
}

/// Loads a part of an open file, up to its end without a length.
pub(super) fn from_part(
    file: &File,
    offset: u64,
    len: Option<u64>,
    options: &LoadOptions<'_>,
) -> Result<Loaded> {
    let mut part = FilePart::of(file, offset, len)?;
    load(part.name(), options, options.mode, |report| match options.mode {
        LoadMode::Map | LoadMode::Repack => FileBytes::map_part(&part),
        LoadMode::Copy => FileBytes::from_reader(&mut part, report),
    })
}

/// Loads what `reader` reads.
pub(super) fn from_reader(reader: &mut dyn ModelReader, options: &LoadOptions<'_>) -> Result<Loaded> {
    load(reader.name(), options, LoadMode::Copy, |report| FileBytes::from_reader(reader, report))
}

/// Loads bytes that live as long as the process, in place unless the options ask for something else: C's and other languages' bytes
/// live so long in mode `Map` alone.
pub(super) fn from_static(bytes: &'static [u8], options: &LoadOptions<'_>) -> Result<Loaded> {
    match options.mode {
        mode @ LoadMode::Map => load(IN_MEMORY.into(), options, mode, |_| Ok(FileBytes::Static(bytes))),
        LoadMode::Copy | LoadMode::Repack => from_bytes(bytes, options),
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
        LoadMode::Map | LoadMode::Repack => 0.0,
        LoadMode::Copy if in_host_memory(device) => 1.0,
        LoadMode::Copy => 0.5,
    };
    let source = source(&|fraction| options.report(copied * fraction))?;
    let file_bytes = source.bytes().len();
    let header = ModelHeader::read(source.bytes(), &file, options.mask_token)?;
    let tensors = try_collected(header.tensors.iter().map(TensorInfo::copied))?;
    let to_device = |fraction| options.report(copied + (1.0 - copied) * fraction);
    let layout = |tensor: &TensorInfo| options.layout(tensor, &header.config, device);
    let mapped = matches!(source, FileBytes::Map(_));
    let weights = Weights::new(device, tensors, source, &layout, &to_device)?;
    // Unless they were copied here; to a device's own memory they go from the mapped file.
    let mapped = mapped && !matches!(weights.source(), Some(FileBytes::Copy(_)));
    let locked = options.mlock.then(|| lock(&weights, &file)).flatten();
    if let Some(bytes) = weights.source().filter(|_| options.prefetch) {
        bytes.prefetch(&|fraction| options.report(fraction))?;
    }
    options.report(1.0)?;
    let load_time = started.elapsed();
    let device = device.name();
    let loaded = Loaded { header, locked, weights, device, file, file_bytes, load_time };
    log_with(LogLevel::Info, || loaded.describe(if mapped { "mapped" } else { "in memory" }));
    log_with(LogLevel::Debug, || loaded.describe_tensors());
    Ok(loaded)
}

/// Locks weights in main memory, or says in the log why not.
fn lock(weights: &Weights, file: &str) -> Option<LockedPages> {
    let Some(source) = weights.source() else {
        log(LogLevel::Warn, &format!("{file}: mlock: its weights are not in main memory"));
        return None;
    };
    source.lock().map_err(|what| log(LogLevel::Warn, &format!("{file}: mlock: {what}"))).ok()
}

impl Loaded {
    /// What was opened, for the log.
    fn describe(&self, how: &str) -> String {
        let Self { header: ModelHeader { config, .. }, locked, device, file, file_bytes, load_time, .. } =
            self;
        let locked = if locked.is_some() { " and locked" } else { "" };
        format!(
            "{file}: {how}{locked}, {}, variant {}, {} blocks of width {}, {} tokens, context of {}, on {}, {:.1} ms",
            mib(*file_bytes),
            config.variant.name(),
            config.block_count,
            config.embedding_length,
            config.vocab_size,
            config.context_length,
            device,
            load_time.as_secs_f64() * 1e3,
        )
    }

    /// How many tensors it has of which type, for the log.
    fn describe_tensors(&self) -> String {
        let mut types: Vec<(&str, usize, usize)> = Vec::new();
        for tensor in self.weights.tensors() {
            let name = tensor.ty.name();
            match types.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, count, bytes)) => (*count, *bytes) = (*count + 1, *bytes + tensor.range.len()),
                None => types.push((name, 1, tensor.range.len())),
            }
        }
        let each = |(name, count, bytes): &(&str, usize, usize)| format!("{count} {name} ({})", mib(*bytes));
        format!("{}: tensors: {}", self.file, types.iter().map(each).collect::<Vec<_>>().join(", "))
    }
}
