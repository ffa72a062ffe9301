//! Functions on vectors ([`F32x8`](super::F32x8)). For x86-64 they are compiled twice: for the processors of the build, and for those that
//! have AVX2; which one runs is decided by the processor. With fused multiply-add in both, they give the same bits.

/// Whether the processor has what the second copy is compiled for. Where the build has it, this is `true` for the compiler.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_wide() -> bool {
    use std::arch::is_x86_feature_detected as has;

    has!("avx2") && has!("fma") && has!("f16c")
}

/// A function that is generic over its vectors, `V`, and takes the best that the processor has. What it calls, down to
/// [`F32x8`](super::F32x8), has to be `#[inline(always)]`, with loops over indices rather than `map` of arrays: what the compiler
/// does not put into its caller is compiled without the instructions, and calls each of them (`ffi-tests/intrinsics` looks for such).
/// The loops of products, attention and sums of weights have no `zip` or `from_fn` either, which stay calls where a program's profile
/// has `lto = "off"`.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident <$vector:ident $(, const $n:ident: usize)?>
     ($($argument:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<const $n: usize>)? ($($argument: $ty),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters, reason = "plain loops need no vector type")]
            fn inlined<$vector: $crate::simd::F32x8 $(, const $n: usize)?> ($($argument: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn with_avx2 $(<const $n: usize>)? ($($argument: $ty),*) $(-> $out)? {
                    inlined::<$crate::simd::Avx2 $(, $n)?>($($argument),*)
                }
                if $crate::simd::has_wide() {
                    // SAFETY: the processor has the instructions, and there are no other conditions.
                    #[allow(unsafe_code, reason = "of simd/, where the macro is")]
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            inlined::<$crate::simd::Native $(, $n)?>($($argument),*)
        }
    };
}
pub(crate) use wide;
