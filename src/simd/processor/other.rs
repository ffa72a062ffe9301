//! Elsewhere builds use the instructions that every processor of the kind has, or nobody says what the processor has.

use super::set::{Compiled, InstructionSet};

pub(super) const SETS: &[InstructionSet] = &[];

pub(super) fn missing() -> Option<(u8, Compiled)> {
    None
}

#[cfg(target_arch = "aarch64")]
macro_rules! arm_sets {
    ($($name:tt)*) => {
        pub(crate) fn compiled_instructions() -> Vec<&'static str> {
            let mut names = Vec::new();
            $(if cfg!(target_feature = $name) { names.push($name); })*
            names
        }

        pub(crate) fn processor_instructions() -> Vec<&'static str> {
            let mut names = Vec::new();
            $(if std::arch::is_aarch64_feature_detected!($name) { names.push($name); })*
            names
        }
    };
}
#[cfg(target_arch = "aarch64")]
arm_sets!("neon" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2");

#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn compiled_instructions() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn processor_instructions() -> Vec<&'static str> {
    Vec::new()
}
