//! Prefetching, which every x86-64 and 64-bit Arm processor has.

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
