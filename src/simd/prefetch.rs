//! Prefetching, which every x86-64 and 64-bit Arm processor has.

/// Prefetches numbers that will be read soon, into the L1 cache. Elsewhere nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(x: &[T]) {
    lines(x, |address| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program sees, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
        let _ = address;
    });
}

/// As [`prefetch`], into the L2 cache.
#[inline(always)]
pub(crate) fn prefetch_to_l2<T>(x: &[T]) {
    lines(x, |address| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program sees, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(address.cast());
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
        let _ = address;
    });
}

/// Calls `each` with the address of each line of 64 bytes.
#[inline(always)]
fn lines<T>(x: &[T], each: impl Fn(*const u8)) {
    for line in (0..size_of_val(x)).step_by(64) {
        each(x.as_ptr().cast::<u8>().wrapping_add(line));
    }
}
