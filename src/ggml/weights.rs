//! A model's tensors on a device.

use std::ptr::NonNull;

use super::buffer::{Buffer, in_host_memory};
use super::device::Device;
use crate::error::{Error, Result};
use crate::gguf::TensorInfo;
use crate::memory::{Arena, FileBytes};

/// Alignment in bytes that ggml needs to compute with a tensor in place.
const IN_PLACE: usize = 32;

/// A model's tensors: descriptions in the order of the forward pass, and their bytes on a device.
#[derive(Debug)]
pub(crate) struct Weights {
    device: Device,
    tensors: Vec<TensorInfo>,
    // Declared before `source`, so that it is freed first.
    buffer: Buffer,
    /// The bytes that `buffer` wraps; `None` when they were copied to the device.
    source: Option<FileBytes>,
}

impl Weights {
    /// Puts `tensors`, whose ranges lie in `source`, on `device`: in place on the CPU, copied elsewhere. `report`
    /// is called with the fraction copied, 0 to 1; its error cancels.
    pub(crate) fn new(
        device: Device,
        mut tensors: Vec<TensorInfo>,
        source: FileBytes,
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
        let mut memory = if on_host { Some(Arena::allocate(size)?) } else { None };
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
        Ok(Self { device, tensors, buffer, source: memory.map(FileBytes::Copy) })
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
        self.source.as_ref().map(FileBytes::bytes)
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
