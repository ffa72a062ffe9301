//! Memory that ggml computes in: on a device, or wrapped host memory.

use std::ptr::NonNull;

use super::device::{Device, DeviceKind};
use crate::error::{Error, Result};

/// A ggml buffer. If it wraps host memory, its creator keeps that memory alive longer.
#[derive(Debug)]
pub(super) struct Buffer(NonNull<ggml_sys::ggml_backend_buffer>);

// SAFETY: a buffer may be used and freed on any thread; ggml does not bind it to one.
unsafe impl Send for Buffer {}
// SAFETY: through a shared `Buffer` only its address, size and kind are read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` bytes of the device's own memory.
    pub(super) fn allocate(device: Device, len: usize) -> Result<Self> {
        // SAFETY: the device is valid; its default buffer type lives as long as it.
        let handle = unsafe {
            ggml_sys::ggml_backend_buft_alloc_buffer(
                ggml_sys::ggml_backend_dev_buffer_type(device.as_ptr()),
                len.max(1),
            )
        };
        NonNull::new(handle).map(Self).ok_or_else(|| out_of_memory(device, len))
    }

    /// `len` bytes of the device's own memory for weights, which some backends place and pad on their own terms.
    pub(super) fn allocate_for_weights(device: Device, len: usize) -> Result<Self> {
        let buffer = Self::allocate(device, len)?;
        // SAFETY: the buffer is valid and nothing is in it.
        unsafe {
            ggml_sys::ggml_backend_buffer_set_usage(
                buffer.as_ptr(),
                ggml_sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
            );
        }
        Ok(buffer)
    }

    /// The CPU's view of `len` bytes at `start`.
    ///
    /// # Safety
    /// The bytes must stay valid as long as the buffer lives; nothing in it may be written if they are
    /// read-only.
    pub(super) unsafe fn wrap(start: NonNull<u8>, len: usize) -> Result<Self> {
        // ggml aborts on an address that is not aligned to its own 32 bytes.
        if !start.addr().get().is_multiple_of(32) {
            return Err(Error::internal("a buffer must be aligned to 32 bytes"));
        }
        // SAFETY: the caller vouches for the bytes.
        let handle = unsafe { ggml_sys::ggml_backend_cpu_buffer_from_ptr(start.as_ptr().cast(), len) };
        NonNull::new(handle).map(Self).ok_or_else(|| Error::OutOfMemory("a buffer's description".into()))
    }

    pub(super) fn as_ptr(&self) -> ggml_sys::ggml_backend_buffer_t {
        self.0.as_ptr()
    }

    /// The address of the first byte, in the device's own address space.
    pub(super) fn base(&self) -> *mut u8 {
        // SAFETY: the buffer is valid.
        unsafe { ggml_sys::ggml_backend_buffer_get_base(self.as_ptr()) }.cast()
    }

    pub(super) fn len(&self) -> usize {
        // SAFETY: the buffer is valid.
        unsafe { ggml_sys::ggml_backend_buffer_get_size(self.as_ptr()) }
    }

    /// Whether the CPU can read the bytes where they are.
    pub(super) fn is_host(&self) -> bool {
        // SAFETY: the buffer is valid.
        unsafe { ggml_sys::ggml_backend_buffer_is_host(self.as_ptr()) }
    }

    /// Sets every byte to zero.
    pub(super) fn clear(&mut self) {
        // SAFETY: the buffer is valid, and only buffers that may be written are ever borrowed mutably.
        unsafe { ggml_sys::ggml_backend_buffer_clear(self.as_ptr(), 0) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the buffer is valid and not used again.
        unsafe { ggml_sys::ggml_backend_buffer_free(self.as_ptr()) }
    }
}

/// What to say when `needed` bytes are not to be had on `device`.
pub(super) fn out_of_memory(device: Device, needed: usize) -> Error {
    let (name, free) = (device.name(), device.memory_free());
    Error::OutOfMemory(format!("{needed} bytes are needed on device {name}, and {free} are free there"))
}

/// What the address of a tensor on `device` must be a multiple of.
pub(crate) fn alignment(device: Device) -> usize {
    // SAFETY: the device is valid; its default buffer type lives as long as it.
    unsafe {
        ggml_sys::ggml_backend_buft_get_alignment(ggml_sys::ggml_backend_dev_buffer_type(device.as_ptr()))
    }
}

/// Whether a device computes in host memory.
pub(crate) fn in_host_memory(device: Device) -> bool {
    device.kind() == DeviceKind::Cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error_with_numbers() {
        let device = Device::find("cpu").unwrap();
        for allocate in [Buffer::allocate, Buffer::allocate_for_weights] {
            let error = allocate(device, 1 << 55).unwrap_err();
            let told = error.to_string();
            assert!(matches!(error, Error::OutOfMemory(_)), "{told}");
            assert!(told.contains("36028797018963968 bytes are needed on device cpu, and "), "{told}");
            assert!(told.contains(" are free there"), "{told}");
        }
    }
}
