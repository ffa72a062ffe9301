//! What the library is, has and found on this machine, for reports of bugs.

use super::cores::count_threads;
use super::cpu::Platform;
use crate::ggml;
use crate::simd::{compiled_instructions, processor_instructions};

/// One line about the library and this machine: its version, the optional features of the build, the devices here, the default number of threads
/// and the processors of the process, the kernels that it uses here, the instruction sets that the build needs and that the
/// processor has, ggml's version and what ggml was compiled with. For people: its form may change. (llama.h's
/// `llama_print_system_info`.)
pub fn system_info() -> String {
    let threads = count_threads(0).unwrap_or(1);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let features = [
        ("chat", cfg!(feature = "chat")),
        ("grammar", cfg!(feature = "grammar")),
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
    ];
    let features = features.into_iter().filter_map(|(name, is_there)| is_there.then_some(name));
    let devices: Vec<String> = ggml::devices().into_iter().map(|device| device.name).collect();
    format!(
        "esolm {} ({} {}) | features: {} | devices: {} | threads = {threads} / {processors} | kernels = {} | compiled for: {} | \
         processor: {} | {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        list(features.collect()),
        devices.join(" "),
        Platform::detect().name(),
        list(compiled_instructions()),
        list(processor_instructions()),
        ggml::system_info(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_what_reports_need() {
        let line = system_info();
        let version = concat!("esolm ", env!("CARGO_PKG_VERSION"));
        for part in [version, "features: ", "threads = ", "kernels = ", "ggml 0.", "CPU: "] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(line.contains("grammar"), cfg!(feature = "grammar"), "{line}");
        assert!(!line.contains('\n') && !line.contains('\0'));
        // What the build needs, the processor has.
        let has = processor_instructions();
        assert!(compiled_instructions().iter().all(|name| has.contains(name)), "{line}");
    }
}
