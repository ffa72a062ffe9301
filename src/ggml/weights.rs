//! A model's tensors on a device.

use std::borrow::Cow;
use std::ptr::NonNull;

use super::buffer::{Buffer, alignment, in_host_memory};
use super::device::Device;
use super::table::{Tensor, TensorTable, alloc_size};
use crate::error::{Error, Result};
use crate::gguf::{Layout, TensorInfo};
use crate::memory::{Arena, FileBytes, collected, filled, with_room};

/// Alignment in bytes that ggml needs to compute with a tensor in place.
const IN_PLACE: usize = 32;

/// A model's tensors: descriptions in the order of the forward pass, and their bytes on a device.
#[derive(Debug)]
pub(crate) struct Weights {
    device: Device,
    tensors: Vec<TensorInfo>,
    /// Where they are, in the same order; the descriptions lie in `_table`.
    placed: Vec<Tensor<'static>>,
    _table: TensorTable,
    // Declared before `source`, so that it is freed first.
    #[cfg_attr(not(feature = "convert"), allow(dead_code, reason = "keeps the tensors' memory"))]
    buffer: Buffer,
    /// The bytes that `buffer` wraps; `None` when they were copied to the device.
    source: Option<FileBytes>,
}

// SAFETY: the descriptions belong to `_table`, which moves with them, and nobody changes them any more.
unsafe impl Send for Weights {}
// SAFETY: as above; through a shared `Weights` they are only read.
unsafe impl Sync for Weights {}

impl Weights {
    /// Puts `tensors`, whose ranges lie in `source`, on `device`, with rows as `layout` says: in place on the CPU if they lie so
    /// already, otherwise copied. `report` is called with the fraction copied, 0 to 1; its error cancels.
    pub(crate) fn new(
        device: Device,
        tensors: Vec<TensorInfo>,
        source: FileBytes,
        layout: &dyn Fn(&TensorInfo) -> Layout,
        report: &dyn Fn(f64) -> Result<()>,
    ) -> Result<Self> {
        let on_host = in_host_memory(device);
        let bytes = source.bytes();
        let start = NonNull::from(bytes).cast::<u8>();
        let mut table = TensorTable::allocate(tensors.len(), (0, 0))?;
        let aligned = |t: &TensorInfo| (start.addr().get() + t.range.start).is_multiple_of(IN_PLACE);
        if on_host && tensors.iter().all(|t| aligned(t) && layout(t) == t.layout) {
            // SAFETY: `source` is kept beside the buffer and dropped after it; weights are never written.
            let buffer = unsafe { Buffer::wrap(start, bytes.len())? };
            let mut placed = with_room(tensors.len())?;
            for tensor in &tensors {
                placed.push(table.add(tensor, Some((&buffer, tensor.range.start)))?);
            }
            return Ok(Self { device, tensors, placed, _table: table, buffer, source: Some(source) });
        }
        Self::copied(device, tensors, bytes, layout, report)
    }

    /// Copies `tensors`, whose ranges lie in `bytes`, to memory of `device`.
    fn copied(
        device: Device,
        mut tensors: Vec<TensorInfo>,
        bytes: &[u8],
        layout: &dyn Fn(&TensorInfo) -> Layout,
        report: &dyn Fn(f64) -> Result<()>,
    ) -> Result<Self> {
        let on_host = in_host_memory(device);
        let mut table = TensorTable::allocate(tensors.len(), (0, 0))?;
        let (places, size) = places(device, &tensors, layout)?;
        // On the host this is for a file inside a file, a caller's odd address, or another layout.
        let mut memory = if on_host { Some(Arena::allocate_in_huge_pages(size)?) } else { None };
        let buffer = match &memory {
            // SAFETY: the memory is kept beside the buffer and dropped after it.
            Some(memory) => unsafe { Buffer::wrap(memory.part(0, size)?, size)? },
            None => Buffer::allocate_for_weights(device, size)?,
        };
        let mut placed = with_room(tensors.len())?;
        for (tensor, place) in tensors.iter_mut().zip(places) {
            let layout = layout(tensor);
            let data = &*tensor.in_layout(bytes, layout)?;
            let end = place + data.len();
            let on_device = table.add(tensor, Some((&buffer, place)))?;
            match memory.as_mut().map(|memory| memory.bytes_mut().get_mut(place..end)) {
                Some(Some(to)) => to.copy_from_slice(data),
                Some(None) => return Err(Error::internal("a tensor beyond the memory for all")),
                None => upload(on_device, data)?,
            }
            placed.push(on_device);
            (tensor.range, tensor.layout) = (place..end, layout);
            report(end as f64 / size as f64)?;
        }
        let source = memory.map(FileBytes::Copy);
        Ok(Self { device, tensors, placed, _table: table, buffer, source })
    }

    /// The same tensors in memory of their own with plain rows, as ggml computes with them; `None` if they are so.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn in_plain_rows(&self) -> Result<Option<Self>> {
        if self.tensors.iter().all(|tensor| tensor.layout == Layout::Plain) {
            return Ok(None);
        }
        let source = self.source.as_ref().ok_or_else(|| Error::internal("panels on a device"))?;
        let tensors = collected(self.tensors.iter().cloned())?;
        Self::copied(self.device, tensors, source.bytes(), &|_| Layout::Plain, &|_| Ok(())).map(Some)
    }

    /// The device that the bytes are on.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The tensors' descriptions.
    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the tensors lie in, if the device computes with the host's memory.
    pub(crate) fn source(&self) -> Option<&FileBytes> {
        self.source.as_ref()
    }

    /// The bytes that the tensors' ranges lie in, if the device computes with the host's memory.
    pub(crate) fn host_bytes(&self) -> Option<&[u8]> {
        self.source.as_ref().map(FileBytes::bytes)
    }

    /// The bytes of `tensor`, the one with this number, with plain rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Internal`] if there is no such tensor.
    pub(crate) fn plain_rows(&self, number: usize, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        if let Some(bytes) = self.host_bytes() {
            return tensor.in_layout(bytes, Layout::Plain);
        }
        let placed = self.placed.get(number).filter(|placed| {
            // SAFETY: the tensor is valid.
            unsafe { ggml_sys::ggml_nbytes(placed.as_ptr()) == tensor.range.len() }
        });
        let placed = placed.ok_or_else(|| Error::internal("a tensor that is not on the device"))?;
        let mut rows = filled(tensor.range.len(), 0)?;
        // SAFETY: `rows` has the tensor's size, and the device writes no weights.
        unsafe {
            ggml_sys::ggml_backend_tensor_get(placed.as_ptr(), rows.as_mut_ptr().cast(), 0, rows.len());
        }
        Ok(Cow::Owned(rows))
    }

    /// Where a tensor's bytes are, if the CPU computes with them.
    #[cfg(feature = "convert")]
    pub(super) fn addresses(&self, tensor: &TensorInfo) -> Option<std::ops::Range<usize>> {
        let base = in_host_memory(self.device).then(|| self.buffer.base().addr())?;
        Some(base + tensor.range.start..base + tensor.range.end)
    }

    /// The tensors where they are.
    pub(super) fn placed(&self) -> &[Tensor<'static>] {
        &self.placed
    }
}

/// Where each tensor goes in a buffer of `device`, and the buffer's size. A device may pad a tensor, and clears what it
/// pads with: CUDA does so for quantized rows that are no multiple of 512 long.
fn places(
    device: Device,
    tensors: &[TensorInfo],
    layout: &dyn Fn(&TensorInfo) -> Layout,
) -> Result<(Vec<usize>, usize)> {
    let alignment = alignment(device).max(IN_PLACE);
    let mut table = TensorTable::allocate(tensors.len(), (0, 0))?;
    let mut size = 0usize;
    let mut places = with_room(tensors.len())?;
    for info in tensors {
        let tensor = table.add(info, None)?;
        places.push(size);
        // ggml does not know that panels are filled up.
        let len = info.len_in(layout(info)).unwrap_or_default();
        size = (size + alloc_size(device, tensor).max(len)).next_multiple_of(alignment);
    }
    Ok((places, size))
}

/// Copies `data` to where `tensor` is.
fn upload(tensor: Tensor<'_>, data: &[u8]) -> Result<()> {
    // SAFETY: the tensor is valid.
    if unsafe { ggml_sys::ggml_nbytes(tensor.as_ptr()) } != data.len() {
        return Err(Error::internal("a tensor's bytes are not as many as its shape says"));
    }
    // SAFETY: the tensor lies in a buffer and is as large as `data`.
    unsafe { ggml_sys::ggml_backend_tensor_set(tensor.as_ptr(), data.as_ptr().cast(), 0, data.len()) };
    Ok(())
}
