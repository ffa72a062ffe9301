//! The instruction sets of 64-bit Arm, by what Linux says of them when a program starts (AT_HWCAP, AT_HWCAP2).

use std::hint::black_box;

use super::set::{Compiled, InstructionSet, text};

/// Whether [`Reported`] has a bit of a word.
macro_rules! has {
    ($reported:expr, $word:ident, $bit:literal) => {
        black_box($reported.$word & 1 << $bit) != 0
    };
}

/// What ggml's kernels were compiled for.
mod ggml {
    ask_ggml!(ggml_cpu_has_fp16_va ggml_cpu_has_dotprod ggml_cpu_has_matmul_int8 ggml_cpu_has_sve ggml_cpu_has_sme);
}

instruction_sets! {
    Reported,
    "RUSTFLAGS=\"-C target-cpu=generic\"",
    "GGML_CPU_ARM_ARCH=armv8-a in the environment";
    "neon" (first, 1);
    "aes" (first, 3);
    "sha2" (first, 6);
    "crc" (first, 7);
    "lse" (first, 8);
    "fp16" (first, 10) ggml_cpu_has_fp16_va;
    "rdm" (first, 12);
    "jsconv" (first, 13);
    "fcma" (first, 14);
    "rcpc" (first, 15);
    "sha3" (first, 17);
    "dotprod" (first, 20) ggml_cpu_has_dotprod;
    "sve" (first, 22) ggml_cpu_has_sve;
    "flagm" (first, 27);
    "sve2" (second, 1);
    "frintts" (second, 8);
    "i8mm" (second, 13) ggml_cpu_has_matmul_int8;
    "bf16" (second, 14);
    "sme" (second, 23) ggml_cpu_has_sme;
}

/// The kernel's two words.
struct Reported {
    first: u64,
    second: u64,
}

impl Reported {
    fn new() -> Self {
        // SAFETY: it takes a number, and gives 0 for what it does not know.
        let [first, second] = [libc::AT_HWCAP, libc::AT_HWCAP2].map(|kind| unsafe { libc::getauxval(kind) });
        Self { first, second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_lacks_what_the_build_needs_is_found() {
        let none = Reported { first: 0, second: 0 };
        let (number, _) = missing_of(&none).unwrap();
        assert_eq!(SETS[usize::from(number)].name, "neon");
        assert!(missing_of(&Reported { first: u64::MAX, second: u64::MAX }).is_none());
        assert!(ggml_instructions().iter().all(|name| SETS.iter().any(|set| set.name == *name)));
    }

    #[test]
    fn bits_agree_with_the_standard_library() {
        let found = processor_instructions();
        macro_rules! agrees {
            ($($name:tt)*) => { $(
                assert_eq!(found.contains(&$name), std::arch::is_aarch64_feature_detected!($name), "{}", $name);
            )* };
        }
        agrees!("neon" "aes" "sha2" "crc" "lse" "fp16" "rdm" "jsconv" "fcma" "rcpc" "sha3" "dotprod" "sve" "flagm" "sve2");
        agrees!("frintts" "i8mm" "bf16");
    }
}
