//! The devices that can run a model.

use std::ffi::c_char;

use super::args;
use super::params::{self, SizedStruct};
use super::status::{esolm_status, wrap};
use crate::error::Error;
use crate::ggml::{DeviceKind, devices};

/// The CPU and main memory.
pub const ESOLM_DEVICE_CPU: i32 = 0;
/// A GPU.
pub const ESOLM_DEVICE_GPU: i32 = 1;
/// Another accelerator.
pub const ESOLM_DEVICE_OTHER: i32 = 2;

/// A device. Set struct_size before esolm_device_info_get.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_device_info {
    /// sizeof(esolm_device_info)
    pub struct_size: usize,
    /// Free memory in bytes, as the device reports it. Of the CPU, on Linux: what can be had without swapping, as far as the
    /// process's control groups let it.
    pub memory_free: u64,
    /// Total memory in bytes, as the device reports it; of the CPU, at most what the control groups allow.
    pub memory_total: u64,
    /// ESOLM_DEVICE_CPU, ESOLM_DEVICE_GPU or ESOLM_DEVICE_OTHER.
    pub kind: i32,
    /// Reserved, always 0.
    pub reserved: u32,
    /// The name for esolm_model_params.device: "cpu", "cuda:0". NUL-terminated.
    pub name: [c_char; 64],
    /// The vendor's name for it. NUL-terminated, truncated if longer.
    pub description: [c_char; 192],
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_device_info {
    const NAME: &'static str = "esolm_device_info";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        memory_free: 0,
        memory_total: 0,
        kind: 0,
        reserved: 0,
        name: [0; 64],
        description: [0; 192],
    };
}

/// `text` followed by a NUL, truncated between characters if it is too long.
pub(super) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    let text = text.get(..text.floor_char_boundary(N.saturating_sub(1))).unwrap_or("");
    for (to, &from) in chars.iter_mut().zip(text.as_bytes()) {
        *to = from as c_char;
    }
    chars
}

/// Writes to *out the number of devices that this build finds on this machine, the CPU included. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_device_count(out: *mut usize) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a pointer valid for writing.
        let out = unsafe { args::out(out, 0, "out")? };
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(devices().len()) };
        Ok(())
    })
}

/// Describes device number index, from 0. info->struct_size must be set; on failure the other fields are 0. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_device_info_get(index: usize, info: *mut esolm_device_info) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a struct of as many bytes as its struct_size says.
        let place = unsafe { params::result(info)? };
        let devices = devices();
        let found = devices.get(index);
        let device = found.ok_or_else(|| Error::invalid(format!("there is no device {index}")))?;
        place.set(esolm_device_info {
            memory_free: device.memory_free as u64,
            memory_total: device.memory_total as u64,
            kind: match device.kind {
                DeviceKind::Cpu => ESOLM_DEVICE_CPU,
                DeviceKind::Gpu => ESOLM_DEVICE_GPU,
                DeviceKind::Other => ESOLM_DEVICE_OTHER,
            },
            name: fixed(&device.name),
            description: fixed(&device.description),
            ..esolm_device_info::DEFAULT
        });
        Ok(())
    })
}
