//! Products of bytes without AVX-VNNI: pairs of them are added in 16 bits.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Avx2;
use crate::forward::cpu::kernels::isa::traits::Columns;
use crate::forward::cpu::kernels::isa::unroll::each;

impl Avx2 {
    /// [`Isa::products`](crate::forward::cpu::kernels::isa::Isa::products) of small weights, of which `together` pairs are added in 16 bits.
    #[inline(always)]
    pub(super) fn small_products<const M: usize, const P: usize>(
        self,
        together: usize,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[[__m256i; 2]; P]; M] {
        // SAFETY: `self` proves the instructions; there are no pointers.
        unsafe {
            let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
            let mut sums = [[[zero; 2]; P]; M];
            for m in 0..M {
                sums[m] = [[_mm256_set1_epi32(start[m]); 2]; P];
            }
            let mut pairs = [[[zero; 2]; P]; M];
            for eight in (0..fours).step_by(8) {
                each!(I in 0 2 4 6, {
                    let j = eight + I;
                    if j < fours {
                        let (mut weights, mut next) = ([[zero; 2]; P], [[zero; 2]; P]);
                        for p in 0..P {
                            (weights[p], next[p]) = (columns.weights(p, j), columns.weights(p, j + 1));
                        }
                        for m in 0..M {
                            let x = self.broadcast(columns.activations(m, j));
                            let next_x = self.broadcast(columns.activations(m, j + 1));
                            for p in 0..P {
                                for half in 0..2 {
                                    let mut products = _mm256_maddubs_epi16(weights[p][half], x);
                                    let more = _mm256_maddubs_epi16(next[p][half], next_x);
                                    products = _mm256_add_epi16(products, more);
                                    if !I.is_multiple_of(together) {
                                        products = _mm256_add_epi16(pairs[m][p][half], products);
                                    }
                                    let products = in_order(products);
                                    pairs[m][p][half] = products;
                                    if (I + 2).is_multiple_of(together) || j + 2 == fours {
                                        let products = _mm256_madd_epi16(products, ones);
                                        sums[m][p][half] = in_order(_mm256_add_epi32(sums[m][p][half], products));
                                    }
                                }
                            }
                        }
                    }
                });
            }
            sums
        }
    }

    /// [`Isa::products`](crate::forward::cpu::kernels::isa::Isa::products) of signed weights.
    #[inline(always)]
    pub(super) fn signed_products<const M: usize, const P: usize>(
        self,
        fours: usize,
        columns: &impl Columns<Self>,
    ) -> [[[__m256i; 2]; P]; M] {
        // SAFETY: `self` proves the instructions; there are no pointers.
        unsafe {
            let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
            let mut sums = [[[zero; 2]; P]; M];
            for j in 0..fours {
                let mut weights = [[zero; 2]; P];
                for p in 0..P {
                    weights[p] = columns.weights(p, j);
                }
                for m in 0..M {
                    let x = self.broadcast(columns.activations(m, j));
                    for p in 0..P {
                        let ([low, high], [low_sum, high_sum]) = (weights[p], sums[m][p]);
                        sums[m][p] = [
                            in_order(_mm256_add_epi32(low_sum, signed(low, x, ones))),
                            in_order(_mm256_add_epi32(high_sum, signed(high, x, ones))),
                        ];
                    }
                }
            }
            sums
        }
    }
}

/// The sums of four products of signed bytes each; `ones` are 16-bit ones.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(weights: __m256i, x: __m256i, ones: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
    _mm256_madd_epi16(pairs, ones)
}

/// `x`, made where it stands: what is passed through this function stays in the order of the program. Otherwise the compiler adds the
/// products of a block in another order, those of one row of activations and then the next row's, and keeps on the stack meanwhile what
/// the registers do not hold. (On a Zen 3, from the caches, for 64 weights: two rows of q8_0 4.2 in place of 3.6 ns.)
#[inline]
#[target_feature(enable = "avx")]
fn in_order(mut x: __m256i) -> __m256i {
    // SAFETY: the function is for processors that have the register; nothing is done.
    unsafe { asm!("/* {} */", inout(ymm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}
