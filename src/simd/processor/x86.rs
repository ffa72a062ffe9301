//! The instruction sets of x86-64, by CPUID.

use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use std::hint::black_box;

use super::set::{Compiled, InstructionSet, text};

/// Whether [`Cpuid`] has a bit: leaf, subleaf, register, bit, and the registers that the system must save.
macro_rules! has {
    ($cpuid:expr, $leaf:literal, $subleaf:literal, $register:ident, $bit:literal, $state:expr) => {
        $cpuid.has($leaf, $subleaf, |r| r.$register, const { 1 << $bit }, $state)
    };
}

/// What ggml's kernels were compiled for.
mod ggml {
    ask_ggml!(ggml_cpu_has_ssse3 ggml_cpu_has_fma ggml_cpu_has_avx ggml_cpu_has_f16c ggml_cpu_has_avx2 ggml_cpu_has_bmi2);
    ask_ggml!(ggml_cpu_has_avx512 ggml_cpu_has_avx512_vbmi ggml_cpu_has_avx512_vnni ggml_cpu_has_avx512_bf16);
    ask_ggml!(ggml_cpu_has_sse3 ggml_cpu_has_avx_vnni);

    /// ggml does not say so of SSE4.2, but its build has a choice for that alone: SSSE3 that Rust was not told of comes with it.
    pub(super) fn has_sse42() -> bool {
        !cfg!(target_feature = "ssse3") && ggml_cpu_has_ssse3()
    }
}

/// Registers that the operating system must save: those of x86-64, AVX's, or AVX-512's.
mod state {
    pub(super) const BASE: u64 = 0x02;
    pub(super) const AVX: u64 = 0x06;
    pub(super) const AVX512: u64 = 0xe6;
}

instruction_sets! {
    Cpuid,
    "RUSTFLAGS=\"-C target-cpu=nehalem\"",
    "GGML_AVX=OFF GGML_AVX2=OFF GGML_FMA=OFF GGML_F16C=OFF GGML_BMI2=OFF in the environment";
    "sse3" (1, 0, ecx, 0, state::BASE) ggml_cpu_has_sse3;
    "pclmulqdq" (1, 0, ecx, 1, state::BASE);
    "ssse3" (1, 0, ecx, 9, state::BASE) ggml_cpu_has_ssse3;
    "fma" (1, 0, ecx, 12, state::AVX) ggml_cpu_has_fma;
    "cmpxchg16b" (1, 0, ecx, 13, state::BASE);
    "sse4.1" (1, 0, ecx, 19, state::BASE);
    "sse4.2" (1, 0, ecx, 20, state::BASE) has_sse42;
    "movbe" (1, 0, ecx, 22, state::BASE);
    "popcnt" (1, 0, ecx, 23, state::BASE);
    "aes" (1, 0, ecx, 25, state::BASE);
    "avx" (1, 0, ecx, 28, state::AVX) ggml_cpu_has_avx;
    "f16c" (1, 0, ecx, 29, state::AVX) ggml_cpu_has_f16c;
    "bmi1" (7, 0, ebx, 3, state::BASE);
    "avx2" (7, 0, ebx, 5, state::AVX) ggml_cpu_has_avx2;
    "bmi2" (7, 0, ebx, 8, state::BASE) ggml_cpu_has_bmi2;
    "avx512f" (7, 0, ebx, 16, state::AVX512) ggml_cpu_has_avx512;
    "avx512dq" (7, 0, ebx, 17, state::AVX512);
    "adx" (7, 0, ebx, 19, state::BASE);
    "avx512ifma" (7, 0, ebx, 21, state::AVX512);
    "avx512cd" (7, 0, ebx, 28, state::AVX512);
    "sha" (7, 0, ebx, 29, state::BASE);
    "avx512bw" (7, 0, ebx, 30, state::AVX512);
    "avx512vl" (7, 0, ebx, 31, state::AVX512);
    "avx512vbmi" (7, 0, ecx, 1, state::AVX512) ggml_cpu_has_avx512_vbmi;
    "avx512vbmi2" (7, 0, ecx, 6, state::AVX512);
    "gfni" (7, 0, ecx, 8, state::BASE);
    "vaes" (7, 0, ecx, 9, state::AVX);
    "vpclmulqdq" (7, 0, ecx, 10, state::AVX);
    "avx512vnni" (7, 0, ecx, 11, state::AVX512) ggml_cpu_has_avx512_vnni;
    "avx512bitalg" (7, 0, ecx, 12, state::AVX512);
    "avx512vpopcntdq" (7, 0, ecx, 14, state::AVX512);
    "avx512vp2intersect" (7, 0, edx, 8, state::AVX512);
    "avx512fp16" (7, 0, edx, 23, state::AVX512);
    "avxvnni" (7, 1, eax, 4, state::AVX) ggml_cpu_has_avx_vnni;
    "avx512bf16" (7, 1, eax, 5, state::AVX512) ggml_cpu_has_avx512_bf16;
    "avxifma" (7, 1, eax, 23, state::AVX);
    "lzcnt" (0x8000_0001, 0, ecx, 5, state::BASE);
    "sse4a" (0x8000_0001, 0, ecx, 6, state::BASE);
}

/// CPUID's answers.
struct Cpuid {
    /// The highest leaf, and the highest extended one.
    highest: [u32; 2],
    /// XCR0: the registers that the operating system saves.
    saved_state: u64,
}

impl Cpuid {
    fn new() -> Self {
        #[allow(unused_unsafe, reason = "the oldest Rust that builds this needs it")]
        // SAFETY: every x86-64 processor has CPUID.
        let (base, extended, features) =
            unsafe { (__cpuid(0).eax, __cpuid(0x8000_0000).eax, __cpuid_count(1, 0).ecx) };
        // Bit 27: the operating system has enabled XGETBV.
        let saved_state = if black_box(features & 1 << 27) != 0 { saved_state() } else { state::BASE };
        Self { highest: [base, extended], saved_state }
    }

    /// Whether the bit `mask` of a register of a leaf is set, and the system saves the registers `state`.
    ///
    /// This has no shifts, and the compiler is kept from combining an "and" with what follows: there are newer instructions
    /// for both, which it would use.
    #[inline(never)]
    fn has(&self, leaf: u32, subleaf: u32, register: fn(&CpuidResult) -> u32, mask: u32, state: u64) -> bool {
        let Some(found) = self.leaf(leaf, subleaf) else { return false };
        black_box(register(&found) & mask) != 0 && black_box(self.saved_state & state) == state
    }

    fn leaf(&self, leaf: u32, subleaf: u32) -> Option<CpuidResult> {
        let [base, extended] = self.highest;
        let highest = if leaf >= 0x8000_0000 { extended } else { base };
        let ask = |leaf, subleaf| {
            #[allow(unused_unsafe, reason = "as above")]
            // SAFETY: every x86-64 processor has CPUID.
            unsafe {
                std::arch::x86_64::__cpuid_count(leaf, subleaf)
            }
        };
        // Leaf 7 says itself how many subleaves it has. A leaf that is not there answers with another's bits.
        if leaf > highest || (leaf == 7 && subleaf > ask(7, 0).eax) {
            return None;
        }
        Some(ask(leaf, subleaf))
    }
}

/// XCR0.
fn saved_state() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CPUID says that the instruction is enabled; register 0 always exists.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_are_not_saved_count_as_missing() {
        let cpuid = Cpuid { saved_state: state::BASE, ..Cpuid::new() };
        assert!(cpuid.has(1, 0, |r| r.ecx, 1, state::BASE));
        assert!(!cpuid.has(1, 0, |r| r.ecx, 1 << 28, state::AVX));
        assert!(!cpuid.has(0x4000_0000, 0, |r| r.eax, 1, state::BASE), "a leaf that is not there");
    }

    #[test]
    fn bits_agree_with_the_standard_library() {
        let found = processor_instructions();
        macro_rules! agrees {
            ($($name:tt)*) => { $(
                assert_eq!(found.contains(&$name), is_x86_feature_detected!($name), "{}", $name);
            )* };
        }
        agrees!("sse3" "pclmulqdq" "ssse3" "fma" "sse4.1" "sse4.2" "movbe" "popcnt" "aes" "avx" "f16c" "bmi1" "avx2" "bmi2");
        agrees!("avx512f" "avx512dq" "adx" "avx512ifma" "avx512cd" "sha" "avx512bw" "avx512vl" "avx512vbmi" "avx512vbmi2");
        agrees!("gfni" "vaes" "vpclmulqdq" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512vp2intersect" "avx512fp16");
        agrees!("avxvnni" "avx512bf16" "avxifma" "lzcnt" "sse4a" "cmpxchg16b");
    }

    /// As after a build that sees no `.cargo/config.toml`: ggml's kernels may need what Rust's code does not.
    #[test]
    fn a_processor_that_lacks_what_ggml_needs_is_found() {
        let known: Vec<&str> = SETS.iter().map(|set| set.name).collect();
        let needed = ggml_instructions();
        assert!(needed.iter().all(|name| known.contains(name)), "{needed:?}");
        // A processor of 2003, and a system that saves no registers of AVX.
        let old = Cpuid { highest: [0, 0], saved_state: state::BASE };
        let expected =
            known.iter().find(|name| compiled_instructions().contains(name) || needed.contains(name));
        let found = missing_of(&old).map(|(number, _)| SETS[usize::from(number)].name);
        assert_eq!(found, expected.copied());
        // What is said of each, by name, and what to do.
        for set in SETS {
            for message in [set.message, set.message_of_ggml] {
                let message = message.to_str().unwrap();
                assert!(message.contains(&format!("lacks, such as {};", set.name)), "{message}");
            }
            assert!(set.message_of_ggml.to_str().unwrap().contains("GGML_AVX2=OFF"));
        }
    }
}
