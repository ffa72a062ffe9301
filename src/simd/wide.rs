//! Functions on [`F32x8`](super::F32x8) in builds for processors without AVX2: they are compiled a second time for those that have
//! it, and which one runs is decided by the processor. With fused multiply-add in both, they give the same bits.

/// Whether the processor has what the second copy is compiled for.
#[cfg(all(target_arch = "x86_64", not(target_feature = "avx2")))]
#[inline]
pub(crate) fn has_wide() -> bool {
    use std::arch::is_x86_feature_detected as has;

    has!("avx2") && has!("fma") && has!("f16c")
}

/// A function whose arrays of eight numbers become single registers where the processor has them. What it calls, up to
/// [`F32x8`](super::F32x8), has to be `#[inline(always)]`, or it stays as the build has it.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<const $n:ident: usize>)?
     ($($argument:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<const $n: usize>)? ($($argument: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn inlined $(<const $n: usize>)? ($($argument: $ty),*) $(-> $out)? $body

            #[cfg(all(target_arch = "x86_64", not(target_feature = "avx2")))]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn with_avx2 $(<const $n: usize>)? ($($argument: $ty),*) $(-> $out)? {
                    inlined($($argument),*)
                }
                if $crate::simd::has_wide() {
                    // SAFETY: the processor has the instructions, and there are no other conditions.
                    #[allow(unsafe_code, reason = "of simd/, where the macro is")]
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            inlined($($argument),*)
        }
    };
}
pub(crate) use wide;
