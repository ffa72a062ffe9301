//! Prefetching, which every x86-64 and 64-bit Arm processor has.

use std::sync::OnceLock;

/// Whether memory that is read in order comes faster if it is prefetched by instructions, too: so on Intel's processors (measured on
/// a Xeon of 2023, docs/benchmarks.md), as their own prefetching is at most 20 cache lines ahead. On a Zen 4 it is slower.
pub(crate) fn is_behind_in_order() -> bool {
    static IS_BEHIND: OnceLock<bool> = OnceLock::new();
    *IS_BEHIND.get_or_init(is_from_intel)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn is_from_intel() -> bool {
    #[allow(unused_unsafe, reason = "the oldest Rust that builds this needs it")]
    // SAFETY: every x86-64 processor has CPUID.
    let of = unsafe { std::arch::x86_64::__cpuid(0) };
    [of.ebx, of.edx, of.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn is_from_intel() -> bool {
    false
}

/// Prefetches numbers that will be read soon, into the L1 cache. Elsewhere nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(x: &[T]) {
    prefetch_to::<false, T>(x);
}

/// As [`prefetch`], into the L2 cache.
#[inline(always)]
pub(crate) fn prefetch_to_l2<T>(x: &[T]) {
    prefetch_to::<true, T>(x);
}

#[inline(always)]
fn prefetch_to<const L2: bool, T>(x: &[T]) {
    for line in (0..size_of_val(x)).step_by(64) {
        let address = x.as_ptr().cast::<u8>().wrapping_add(line);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program sees, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
            match L2 {
                false => _mm_prefetch::<_MM_HINT_T0>(address.cast()),
                true => _mm_prefetch::<_MM_HINT_T1>(address.cast()),
            }
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: as above.
        unsafe {
            use std::arch::asm;
            match L2 {
                false => {
                    asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags))
                }
                true => {
                    asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags))
                }
            }
        }
        let _ = address;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux says of the processor.
    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
    fn intel_is_found_by_its_name() {
        let told = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let vendor = told.lines().find(|line| line.starts_with("vendor_id")).unwrap();
        assert_eq!(is_behind_in_order(), vendor.ends_with("GenuineIntel"), "{vendor}");
    }
}
