//! The devices of ggml's registry: what this build supports and this machine has.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Once;

use crate::error::{Error, Result};
use crate::log::{LogLevel, log};
use crate::memory::HostMemory;

/// What kind of hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU and main memory.
    Cpu,
    /// A GPU, with its own memory or sharing main memory.
    Gpu,
    /// Another accelerator.
    Other,
}

/// A device's description.
#[derive(Debug, Clone)]
pub struct DeviceInfo {
    /// The name that [`Device::find`] takes: `cpu`, `cuda:0`.
    pub name: String,
    /// The vendor's name for it.
    pub description: String,
    /// What kind it is.
    pub kind: DeviceKind,
    /// Free memory in bytes, as the device reports it. Of the CPU, on Linux: what can be had without swapping, as far as the
    /// process's control groups let it.
    pub memory_free: usize,
    /// Total memory in bytes, as the device reports it; of the CPU, at most what the control groups allow.
    pub memory_total: usize,
}

/// A device of ggml's registry.
#[derive(Debug, Clone, Copy)]
pub struct Device(NonNull<ggml_sys::ggml_backend_device>);

// SAFETY: ggml's device objects live as long as the process and are not changed after registration.
unsafe impl Send for Device {}
// SAFETY: for the same reason any number of threads may read them at once.
unsafe impl Sync for Device {}

impl Device {
    /// The device called `name`: `auto` (the first GPU, else the CPU), `cpu`, or a name of [`devices`].
    ///
    /// # Errors
    /// [`Error::Device`] listing the devices that exist.
    pub fn find(name: &str) -> Result<Self> {
        let all: Vec<Self> = all().collect();
        let found = match name {
            "" | "auto" => {
                let gpu = all.iter().find(|d| d.kind() == DeviceKind::Gpu);
                gpu.or_else(|| all.iter().find(|d| d.kind() == DeviceKind::Cpu))
            }
            _ => all.iter().find(|d| d.name() == name.to_ascii_lowercase()),
        };
        found.copied().ok_or_else(|| {
            let names: Vec<String> = all.iter().map(Self::name).collect();
            let backends = [
                ("cuda", "CUDA", cfg!(feature = "cuda")),
                ("vulkan", "Vulkan", cfg!(feature = "vulkan")),
                ("metal", "Metal", cfg!(feature = "metal")),
            ];
            let asked = name.to_ascii_lowercase();
            let missing = backends.iter().find(|&&(feature, _, has)| !has && asked.starts_with(feature));
            let hint = missing.map_or_else(String::new, |(feature, backend, _)| {
                format!("; this build has no {backend} support (cargo feature `{feature}`)")
            });
            Error::Device(format!("no device '{name}' here; there is: {}{hint}", names.join(", ")))
        })
    }

    /// The name that [`Device::find`] takes.
    pub fn name(&self) -> String {
        // SAFETY: the device is valid and its name is a static C string.
        let name = text(unsafe { ggml_sys::ggml_backend_dev_name(self.as_ptr()) }).to_ascii_lowercase();
        match name.find(|c: char| c.is_ascii_digit()) {
            Some(at) if at > 0 => {
                let (backend, number) = name.split_at(at);
                // ggml's name for Metal's first device is MTL0.
                let backend = if backend == "mtl" { "metal" } else { backend };
                format!("{backend}:{number}")
            }
            _ => name,
        }
    }

    /// What kind of hardware it is.
    pub fn kind(&self) -> DeviceKind {
        // SAFETY: the device is valid.
        match unsafe { ggml_sys::ggml_backend_dev_type(self.as_ptr()) } {
            ggml_sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
            ggml_sys::GGML_BACKEND_DEVICE_TYPE_GPU | ggml_sys::GGML_BACKEND_DEVICE_TYPE_IGPU => {
                DeviceKind::Gpu
            }
            _ => DeviceKind::Other,
        }
    }

    /// Free memory and all memory in bytes, as far as system and device say.
    fn memory(&self) -> (usize, usize) {
        // ggml says that all of the machine's memory is free.
        if let (DeviceKind::Cpu, Some(memory)) = (self.kind(), HostMemory::now()) {
            return (bytes(memory.free), bytes(memory.total));
        }
        let (mut free, mut total) = (0, 0);
        // SAFETY: the device is valid and both pointers are to live variables.
        unsafe { ggml_sys::ggml_backend_dev_memory(self.as_ptr(), &mut free, &mut total) };
        (free, total)
    }

    pub(super) fn memory_free(&self) -> usize {
        self.memory().0
    }

    pub(super) fn memory_total(&self) -> usize {
        self.memory().1
    }

    fn info(&self) -> DeviceInfo {
        let (memory_free, memory_total) = self.memory();
        // SAFETY: the device is valid and its description is a C string that lives as long as it.
        let description = text(unsafe { ggml_sys::ggml_backend_dev_description(self.as_ptr()) });
        DeviceInfo { name: self.name(), description, kind: self.kind(), memory_free, memory_total }
    }

    pub(super) fn as_ptr(&self) -> ggml_sys::ggml_backend_dev_t {
        self.0.as_ptr()
    }
}

fn bytes(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Lists every device of this build and machine, the CPU included.
pub fn devices() -> Vec<DeviceInfo> {
    all().map(|d| d.info()).collect()
}

fn all() -> impl Iterator<Item = Device> {
    route_log();
    // SAFETY: ggml initialises the registry on first use, under its own lock.
    let count = unsafe { ggml_sys::ggml_backend_dev_count() };
    // SAFETY: `i` is below the count.
    (0..count).filter_map(|i| NonNull::new(unsafe { ggml_sys::ggml_backend_dev_get(i) }).map(Device))
}

/// Sends ggml's messages to the library's log; by default ggml writes to stderr.
pub(super) fn route_log() {
    static ONCE: Once = Once::new();
    extern "C" fn receive(level: ggml_sys::ggml_log_level, message: *const c_char, _: *mut c_void) {
        let level = match level {
            ggml_sys::GGML_LOG_LEVEL_ERROR => LogLevel::Error,
            ggml_sys::GGML_LOG_LEVEL_WARN => LogLevel::Warn,
            ggml_sys::GGML_LOG_LEVEL_INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        };
        // A receiver's panic must not unwind into ggml.
        let _ = std::panic::catch_unwind(|| log(level, text(message).trim_end()));
    }
    // SAFETY: `receive` has the type that ggml requires, never unwinds, and uses no user data.
    ONCE.call_once(|| unsafe { ggml_sys::ggml_log_set(Some(receive), std::ptr::null_mut()) });
}

/// A C string of ggml's.
pub(super) fn text(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: ggml's strings are NUL-terminated.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}
