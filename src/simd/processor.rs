//! Whether the processor has the instructions that this build was compiled for.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use std::ffi::CStr;
#[cfg(target_arch = "x86_64")]
use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};

/// An instruction set that the compiler was allowed to use anywhere in this build and that the processor lacks, as after
/// `-C target-cpu=native` on another machine; `None` if there is none. [`Model::open`](crate::Model::open) fails then, but a
/// program of which all is compiled so may not come that far: it can ask this first, and only print what it is told.
#[inline]
pub fn missing_instructions() -> Option<&'static str> {
    found().map(|set| set.name)
}

/// What is said of [`missing_instructions`].
#[inline]
#[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "programs in C are told so"))]
pub(crate) fn missing_message() -> Option<&'static CStr> {
    found().map(|set| set.message)
}

/// Fails if there are [`missing_instructions`].
///
/// # Errors
/// [`Error::Unsupported`] naming one.
pub(crate) fn check_processor() -> Result<()> {
    match found() {
        None => Ok(()),
        Some(set) => Err(Error::Unsupported(set.message.to_string_lossy().into_owned())),
    }
}

/// An instruction set, and what is said if it is missing.
struct InstructionSet {
    name: &'static str,
    message: &'static CStr,
}

/// Whether an instruction set is missing: 0 is not known yet, 1 none, 2 the first of [`SETS`].
static MISSING: AtomicU8 = AtomicU8::new(0);

/// The instruction set that is missing.
#[inline]
fn found() -> Option<&'static InstructionSet> {
    let known = match MISSING.load(Ordering::Relaxed) {
        0 => look(),
        known => known,
    };
    SETS.get(usize::from(known).wrapping_sub(2))
}

#[cold]
#[inline(never)]
fn look() -> u8 {
    let known = missing().map_or(1, |number| number + 2);
    MISSING.store(known, Ordering::Relaxed);
    known
}

/// Names the instruction sets of x86-64 with the bits that CPUID reports them by: leaf, subleaf, register (`a` to `d`), bit.
/// `std`'s detection cannot be asked: where the build has an instruction set, it says so of the processor, too.
#[cfg(target_arch = "x86_64")]
macro_rules! instruction_sets {
    ($($name:literal, $leaf:literal, $subleaf:literal, $register:ident, $bit:literal, $state:expr;)*) => {
        const SETS: &[InstructionSet] = &[$(InstructionSet {
            name: $name,
            message: message(concat!(
                "this build of esolm needs instructions that the processor lacks, such as ",
                $name,
                "; build it for this machine, or portably (RUSTFLAGS=\"-C target-cpu=x86-64-v2\")\0"
            )),
        }),*];

        /// The number in [`SETS`] of one that the compiler may use anywhere and that the processor or the operating system
        /// lacks. This has to run without them itself (see [`Cpuid::has`]).
        #[inline(never)]
        fn missing() -> Option<u8> {
            let cpuid = Cpuid::new();
            let mut number = 0;
            $(
                if cfg!(target_feature = $name)
                    && !cpuid.has($leaf, $subleaf, |r| r.$register, const { 1 << $bit }, $state)
                {
                    return Some(number);
                }
                number += 1;
            )*
            let _ = number;
            None
        }

        /// The instruction sets that the compiler may use anywhere in this build.
        pub(crate) fn compiled_instructions() -> Vec<&'static str> {
            let mut names = Vec::new();
            $(if cfg!(target_feature = $name) { names.push($name); })*
            names
        }

        /// The instruction sets that the processor and the operating system have.
        pub(crate) fn processor_instructions() -> Vec<&'static str> {
            let cpuid = Cpuid::new();
            let mut names = Vec::new();
            $(if cpuid.has($leaf, $subleaf, |r| r.$register, 1 << $bit, $state) { names.push($name); })*
            names
        }
    };
}

#[cfg(target_arch = "x86_64")]
const fn message(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}

/// Registers that the operating system must save: those of x86-64, AVX's, or AVX-512's.
#[cfg(target_arch = "x86_64")]
mod state {
    pub(super) const BASE: u64 = 0x02;
    pub(super) const AVX: u64 = 0x06;
    pub(super) const AVX512: u64 = 0xe6;
}

#[cfg(target_arch = "x86_64")]
instruction_sets! {
    "sse3", 1, 0, ecx, 0, state::BASE;
    "pclmulqdq", 1, 0, ecx, 1, state::BASE;
    "ssse3", 1, 0, ecx, 9, state::BASE;
    "fma", 1, 0, ecx, 12, state::AVX;
    "cmpxchg16b", 1, 0, ecx, 13, state::BASE;
    "sse4.1", 1, 0, ecx, 19, state::BASE;
    "sse4.2", 1, 0, ecx, 20, state::BASE;
    "movbe", 1, 0, ecx, 22, state::BASE;
    "popcnt", 1, 0, ecx, 23, state::BASE;
    "aes", 1, 0, ecx, 25, state::BASE;
    "avx", 1, 0, ecx, 28, state::AVX;
    "f16c", 1, 0, ecx, 29, state::AVX;
    "bmi1", 7, 0, ebx, 3, state::BASE;
    "avx2", 7, 0, ebx, 5, state::AVX;
    "bmi2", 7, 0, ebx, 8, state::BASE;
    "avx512f", 7, 0, ebx, 16, state::AVX512;
    "avx512dq", 7, 0, ebx, 17, state::AVX512;
    "adx", 7, 0, ebx, 19, state::BASE;
    "avx512ifma", 7, 0, ebx, 21, state::AVX512;
    "avx512cd", 7, 0, ebx, 28, state::AVX512;
    "sha", 7, 0, ebx, 29, state::BASE;
    "avx512bw", 7, 0, ebx, 30, state::AVX512;
    "avx512vl", 7, 0, ebx, 31, state::AVX512;
    "avx512vbmi", 7, 0, ecx, 1, state::AVX512;
    "avx512vbmi2", 7, 0, ecx, 6, state::AVX512;
    "gfni", 7, 0, ecx, 8, state::BASE;
    "vaes", 7, 0, ecx, 9, state::AVX;
    "vpclmulqdq", 7, 0, ecx, 10, state::AVX;
    "avx512vnni", 7, 0, ecx, 11, state::AVX512;
    "avx512bitalg", 7, 0, ecx, 12, state::AVX512;
    "avx512vpopcntdq", 7, 0, ecx, 14, state::AVX512;
    "avx512vp2intersect", 7, 0, edx, 8, state::AVX512;
    "avx512fp16", 7, 0, edx, 23, state::AVX512;
    "avxvnni", 7, 1, eax, 4, state::AVX;
    "avx512bf16", 7, 1, eax, 5, state::AVX512;
    "avxifma", 7, 1, eax, 23, state::AVX;
    "lzcnt", 0x8000_0001, 0, ecx, 5, state::BASE;
    "sse4a", 0x8000_0001, 0, ecx, 6, state::BASE;
}

/// CPUID's answers.
#[cfg(target_arch = "x86_64")]
struct Cpuid {
    /// The highest leaf, and the highest extended one.
    highest: [u32; 2],
    /// XCR0: the registers that the operating system saves.
    saved_state: u64,
}

#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
fn saved_state() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CPUID says that the instruction is enabled; register 0 always exists.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Elsewhere builds use the instructions that every processor of the kind has.
#[cfg(not(target_arch = "x86_64"))]
fn missing() -> Option<u8> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
const SETS: &[InstructionSet] = &[];

/// The instruction sets of Arm that kernels are, or may be, written for.
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

/// Not looked at elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn compiled_instructions() -> Vec<&'static str> {
    Vec::new()
}

/// Not looked at elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn processor_instructions() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_processor_has_what_the_build_needs() {
        check_processor().unwrap();
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn registers_that_are_not_saved_count_as_missing() {
        let cpuid = Cpuid { saved_state: state::BASE, ..Cpuid::new() };
        assert!(cpuid.has(1, 0, |r| r.ecx, 1, state::BASE));
        assert!(!cpuid.has(1, 0, |r| r.ecx, 1 << 28, state::AVX));
        assert!(!cpuid.has(0x4000_0000, 0, |r| r.eax, 1, state::BASE), "a leaf that is not there");
    }

    #[cfg(target_arch = "x86_64")]
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
}
