//! A model's tensors, on a device.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::ptr::NonNull;

use memmap2::Mmap;

use super::buffer::{Buffer, in_host_memory};
use super::device::Device;
use super::memory::Memory;
use crate::error::{Error, Result};
use crate::gguf::TensorInfo;

/// What the address of a tensor must be a multiple of for computing with it in place.
const IN_PLACE: usize = 32;

/// Where a model's bytes are.
#[derive(Debug)]
pub(crate) enum WeightsSource {
    /// A mapped file.
    Map(Mmap),
    /// Bytes that live as long as the process.
    Static(&'static [u8]),
    /// The library's own copy.
    Copy(Memory),
}

impl WeightsSource {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadFile`] if it is empty or no regular file.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let (file, _) = open(path)?;
        // SAFETY: the mapping is private and read-only. A file that another process truncates meanwhile is the
        // one hazard left; `LoadMode::Map` documents it and `LoadMode::Copy` avoids it.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self::Map(map))
    }

    /// The file at `path`, read into memory. `report` is told the share of it that is there, and may stop.
    ///
    /// # Errors
    /// As [`WeightsSource::map`]; [`Error::OutOfMemory`]; those of `report`.
    pub(crate) fn read(path: &Path, report: &dyn Fn(f64) -> Result<()>) -> Result<Self> {
        let (mut file, len) = open(path)?;
        let mut memory = Memory::allocate(len)?;
        for (part, share) in parts(memory.bytes_mut()) {
            file.read_exact(part).map_err(|e| Error::io(path, e))?;
            report(share)?;
        }
        Ok(Self::Copy(memory))
    }

    /// A copy of `bytes`; `report` as in [`WeightsSource::read`].
    pub(crate) fn copy_of(mut bytes: &[u8], report: &dyn Fn(f64) -> Result<()>) -> Result<Self> {
        let mut memory = Memory::allocate(bytes.len())?;
        for (part, share) in parts(memory.bytes_mut()) {
            let (from, rest) = bytes.split_at(part.len());
            part.copy_from_slice(from);
            bytes = rest;
            report(share)?;
        }
        Ok(Self::Copy(memory))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Static(bytes) => bytes,
            Self::Copy(memory) => memory.bytes(),
        }
    }
}

/// Opens a regular file that is not empty, and tells its length.
fn open(path: &Path) -> Result<(File, usize)> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let meta = file.metadata().map_err(|e| Error::io(path, e))?;
    let bad = |what: &str| Error::bad_file(path.display().to_string(), what);
    match usize::try_from(meta.len()) {
        _ if !meta.is_file() => Err(bad("is no regular file")),
        Ok(0) => Err(bad("is empty")),
        Ok(len) => Ok((file, len)),
        Err(_) => Err(bad("is larger than the address space")),
    }
}

/// Memory in parts that are copied between two reports, each with the share that is done with it.
fn parts(bytes: &mut [u8]) -> impl Iterator<Item = (&mut [u8], f64)> {
    const PART: usize = 8 << 20;
    let all = bytes.len();
    bytes.chunks_mut(PART).enumerate().map(move |(number, part)| {
        let done = number * PART + part.len();
        (part, done as f64 / all as f64)
    })
}

/// A model's tensors: descriptions in the order of the forward pass, and their bytes on a device.
#[derive(Debug)]
pub(crate) struct Weights {
    device: Device,
    tensors: Vec<TensorInfo>,
    // Declared before `source`, so that it is freed first.
    buffer: Buffer,
    /// The bytes that `buffer` wraps; `None` when they were copied to the device.
    source: Option<WeightsSource>,
}

impl Weights {
    /// Puts `tensors`, whose ranges lie in `source`, on `device`: in place on the CPU, copied elsewhere. `report`
    /// is told the share that is copied, and may stop.
    pub(crate) fn new(
        device: Device,
        mut tensors: Vec<TensorInfo>,
        source: WeightsSource,
        report: &dyn Fn(f64) -> Result<()>,
    ) -> Result<Self> {
        let on_host = in_host_memory(device);
        let bytes = source.bytes();
        let start = NonNull::from(bytes).cast::<u8>();
        let aligned = |t: &TensorInfo| (start.addr().get() + t.range.start).is_multiple_of(IN_PLACE);
        if on_host && tensors.iter().all(aligned) {
            // SAFETY: `source` is kept beside the buffer and dropped after it; weights are never written.
            let buffer = unsafe { Buffer::wrap(start, bytes.len())? };
            return Ok(Self { device, tensors, buffer, source: Some(source) });
        }
        let mut size = 0usize;
        let places: Vec<usize> = tensors
            .iter()
            .map(|t| {
                let place = size;
                size = (size + t.range.len()).next_multiple_of(256) + 256;
                place
            })
            .collect();
        // On the host this is for a file inside a file, or a caller's odd address.
        let mut memory = if on_host { Some(Memory::allocate(size)?) } else { None };
        let buffer = match &memory {
            // SAFETY: the memory is kept beside the buffer and dropped after it.
            Some(memory) => unsafe { Buffer::wrap(memory.part(0, size)?, size)? },
            None => Buffer::allocate(device, size)?,
        };
        for (tensor, place) in tensors.iter_mut().zip(places) {
            let data = bytes
                .get(tensor.range.clone())
                .ok_or_else(|| Error::internal(format!("tensor '{}' is outside its file", tensor.name)))?;
            let end = place + data.len();
            match memory.as_mut().map(|memory| memory.bytes_mut().get_mut(place..end)) {
                Some(Some(to)) => to.copy_from_slice(data),
                Some(None) => return Err(Error::internal("a tensor beyond the memory for all")),
                None => upload(&buffer, tensor, place, data)?,
            }
            tensor.range = place..end;
            report(end as f64 / size as f64)?;
        }
        Ok(Self { device, tensors, buffer, source: memory.map(WeightsSource::Copy) })
    }

    /// The device that the bytes are on.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The tensors' descriptions.
    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The bytes that the tensors' ranges lie in, if the device computes with the host's memory.
    pub(crate) fn host_bytes(&self) -> Option<&[u8]> {
        self.source.as_ref().map(WeightsSource::bytes)
    }

    /// Where a tensor's bytes are, if the CPU computes with them.
    #[cfg(feature = "convert")]
    pub(super) fn addresses(&self, tensor: &TensorInfo) -> Option<std::ops::Range<usize>> {
        let base = in_host_memory(self.device).then(|| self.buffer.base().addr())?;
        Some(base + tensor.range.start..base + tensor.range.end)
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// Copies one tensor to a device.
fn upload(buffer: &Buffer, info: &TensorInfo, place: usize, data: &[u8]) -> Result<()> {
    let mut table = super::graph::TensorTable::allocate(1)?;
    let tensor = table.add(info, Some((buffer, place)))?;
    // SAFETY: the tensor lies in the buffer and is as large as `data`.
    unsafe { ggml_sys::ggml_backend_tensor_set(tensor.as_ptr(), data.as_ptr().cast(), 0, data.len()) };
    Ok(())
}
