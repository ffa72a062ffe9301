//! The types with 32 numbers per block, which are one group. The fields of a block are named as in ggml: `d` is the scale
//! and `m` the min, both in half precision; `qs` are the quants and `qh` their upper bits.

use super::block::{BlockFormat, Factors, PanelBlock};
use crate::forward::cpu::kernels::isa::Isa;
use crate::forward::cpu::kernels::weights::ByteFormat;

/// The values of type iq4_nl: ggml's `kvalues_iq4nl`.
const IQ4_NL: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// d
#[inline(always)]
fn scale<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
    to.scales[0] = isa.load_f16(&block.scales());
}

/// d, m
#[inline(always)]
fn scale_and_min<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
    let both = isa.load(&block.fours::<1>(0)[0]);
    to.scales[0] = isa.low_f16(both);
    to.mins[0] = isa.low_f16(isa.shift_right(both, 16));
}

/// Nibbles in sixteen bytes: the low ones are the first 16 numbers, the high ones the others. (Not by [`Isa::nibbles`]: here
/// `i` is a loop's, and the compiler leaves a branch in it with AVX2.)
#[inline(always)]
fn nibbles<I: Isa>(isa: I, block: PanelBlock<'_>, first: usize, i: usize) -> I::Bytes {
    let qs = isa.load(&block.fours::<4>(first)[i % 4]);
    isa.and(isa.shift_right(qs, if i < 4 { 0 } else { 4 }), isa.splat_byte(15))
}

/// As [`nibbles`], with the fifth bits of all numbers in the four bytes before.
#[inline(always)]
fn five_bits<I: Isa>(isa: I, block: PanelBlock<'_>, first: usize, i: usize) -> I::Bytes {
    let qh = isa.load(&block.fours::<1>(first)[0]);
    isa.or(nibbles(isa, block, first + 1, i), isa.and(isa.bits(qh, i), isa.splat_byte(16)))
}

macro_rules! format {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $format:expr, $factors:ident, |$isa:ident, $block:ident, $i:ident| $four:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl BlockFormat for $name {
            const FORMAT: ByteFormat = $format;
            const COLUMNS: usize = 32;
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
                $factors(isa, block, to);
            }

            #[inline(always)]
            fn four<I: Isa>($isa: I, $block: PanelBlock<'_>, _: usize, $i: usize) -> I::Bytes {
                $four
            }
        }
    };
}

format!(
    /// d, qs: 32 signed bytes.
    Q8_0, 34, ByteFormat::SIGNED, scale,
    |isa, block, i| isa.load(&block.fours::<8>(0)[i])
);

format!(
    /// d, qh, qs: 32 nibbles. Numbers are stored plus 16.
    Q5_0, 22, ByteFormat::SIGNED, scale,
    |isa, block, i| isa.add(five_bits(isa, block, 0, i), isa.splat_byte(240))
);

format!(
    /// d, m, qh, qs: 32 nibbles.
    Q5_1, 24, ByteFormat::small(31, 32), scale_and_min,
    |isa, block, i| five_bits(isa, block, 1, i)
);

format!(
    /// d, qs: 32 nibbles. Numbers are stored plus 8.
    Q4_0, 18, ByteFormat::SIGNED, scale,
    |isa, block, i| isa.add(nibbles(isa, block, 0, i), isa.splat_byte(248))
);

format!(
    /// d, m, qs: 32 nibbles.
    Q4_1, 20, ByteFormat::small(15, 32), scale_and_min,
    |isa, block, i| nibbles(isa, block, 1, i)
);

format!(
    /// d, qs: 32 nibbles, which are indices into a table.
    Iq4Nl, 18, ByteFormat::SIGNED, scale,
    |isa, block, i| isa.look_up(&IQ4_NL, nibbles(isa, block, 0, i))
);
