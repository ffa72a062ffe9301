//! A model's tensors, on a device.

use std::path::Path;
use std::ptr::NonNull;

use memmap2::Mmap;

use super::buffer::{Buffer, in_host_memory};
use super::device::Device;
use super::memory::Memory;
use crate::error::{Error, Result};
use crate::gguf::TensorInfo;

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
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, e))?;
        let name = path.display().to_string();
        if !meta.is_file() {
            return Err(Error::bad_file(name, "is no regular file"));
        }
        if meta.len() == 0 {
            return Err(Error::bad_file(name, "is empty"));
        }
        // SAFETY: the mapping is private and read-only. A file that another process truncates meanwhile is the
        // one hazard left; `LoadMode::Map` documents it and `LoadMode::Copy` avoids it.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self::Map(map))
    }

    /// A copy of `bytes`.
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Self> {
        let memory = Memory::allocate(bytes.len())?;
        let start = memory.part(0, bytes.len())?;
        // SAFETY: the new memory has that many bytes and overlaps nothing.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
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
    /// Puts `tensors`, whose ranges lie in `source`, on `device`: in place on the CPU, copied elsewhere.
    pub(crate) fn new(device: Device, mut tensors: Vec<TensorInfo>, source: WeightsSource) -> Result<Self> {
        let bytes = source.bytes();
        if in_host_memory(device) {
            let start = NonNull::from(bytes).cast::<u8>();
            let aligned = |t: &TensorInfo| (start.addr().get() + t.range.start).is_multiple_of(32);
            if !tensors.iter().all(aligned) {
                // A file inside a file, or a caller's odd address: only a copy can be computed with.
                return Self::new(device, tensors, WeightsSource::copy_of(bytes)?);
            }
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
        let buffer = Buffer::allocate(device, size)?;
        for (tensor, place) in tensors.iter_mut().zip(places) {
            let data = bytes
                .get(tensor.range.clone())
                .ok_or_else(|| Error::internal(format!("tensor '{}' is outside its file", tensor.name)))?;
            upload(&buffer, tensor, place, data)?;
            tensor.range = place..place + data.len();
        }
        Ok(Self { device, tensors, buffer, source: None })
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
