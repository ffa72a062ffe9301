//! The types with 256 numbers per block. The fields of a block are named as in ggml: `d` and `dmin` are the scale and the
//! min of the whole block in half precision, `scales` the integer factors of both for groups of 32 or 16 numbers, `qs`
//! (or `ql`) the lower bits of the quants and `qh` or `hmask` their upper bits.

use super::block::{BlockFormat, Factors, PanelBlock};
use crate::forward::cpu::kernels::isa::Isa;
use crate::forward::cpu::kernels::weights::ByteFormat;

/// ql: 256 nibbles, qh: two upper bits of each number, scales: 16 signed bytes, d. Numbers are stored plus 32.
#[derive(Clone, Copy)]
pub(super) struct Q6K;

impl BlockFormat for Q6K {
    const FORMAT: ByteFormat = ByteFormat::with_offset(63, 32);
    const COLUMNS: usize = 256;
    const BYTES: usize = 210;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
        let (scale, more) = (isa.load_f16(&block.scales()), isa.splat_byte(128));
        let scales = block.fours::<4>(48);
        for i in 0..4 {
            times::<I, 128>(isa, isa.add(isa.load(&scales[i]), more), scale, &mut to.scales[4 * i..]);
        }
    }

    #[inline(always)]
    fn four<I: Isa>(isa: I, block: PanelBlock<'_>, group: usize, i: usize) -> I::Bytes {
        // Two halves of 128 numbers: first the low nibbles of 64 bytes, then the high ones. (Not by `Isa::nibbles`: which of
        // them is no constant here, and the compiler makes a branch of it.)
        let (first, quarter, half) = (group / 8, group / 2 % 4, group % 2);
        let ql = block.fours::<4>(16 * first + 8 * (quarter % 2) + 4 * half);
        let qh = block.fours::<4>(32 + 8 * first + 4 * half);
        let (lower_shift, upper_shift) = (4 * (quarter as u32 / 2), 2 * quarter as u32);
        six_bits(isa, isa.shift_right(isa.load(&ql[i]), lower_shift), isa.load(&qh[i]), upper_shift)
    }
}

/// d, dmin, scales: 6 bits of both for 8 groups in 12 bytes, qh: 32 bytes with the fifth bits, bit i for group i, qs: 128
/// bytes, of which each 32 hold a group in their low nibbles and the next in their high ones.
#[derive(Clone, Copy)]
pub(super) struct Q5K;

impl BlockFormat for Q5K {
    const FORMAT: ByteFormat = ByteFormat::small(31, 32);
    const COLUMNS: usize = 256;
    const BYTES: usize = 176;
    const SHARED: bool = true;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
        eight_groups(isa, block, to);
    }

    #[inline(always)]
    fn four<I: Isa>(isa: I, block: PanelBlock<'_>, group: usize, i: usize) -> I::Bytes {
        let qh = isa.load(&block.fours::<8>(4)[i]);
        let fifth = isa.and(isa.shift_right(qh, group as u32), isa.splat_byte(1));
        let qs = isa.load(&block.fours::<8>(12 + group / 2 * 8)[i]);
        isa.join_nibbles(isa.shift_right(qs, 4 * (group as u32 % 2)), fifth)
    }
}

/// As [`Q5K`] without qh.
#[derive(Clone, Copy)]
pub(super) struct Q4K;

impl BlockFormat for Q4K {
    const FORMAT: ByteFormat = ByteFormat::small(15, 32);
    const COLUMNS: usize = 256;
    const BYTES: usize = 144;
    const SHARED: bool = true;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
        eight_groups(isa, block, to);
    }

    #[inline(always)]
    fn four<I: Isa>(isa: I, block: PanelBlock<'_>, group: usize, i: usize) -> I::Bytes {
        nibbles(isa, block, 4, group, i)
    }
}

/// hmask: 32 bytes with the third bits, bit i for each 32 numbers, qs: 64 bytes with two bits for each quarter of one half
/// and then of the other, scales: 6 bits for each 16 numbers in 12 bytes, plus 32, d. Numbers are stored plus 4.
#[derive(Clone, Copy)]
pub(super) struct Q3K;

impl BlockFormat for Q3K {
    const FORMAT: ByteFormat = ByteFormat::with_offset(7, 4);
    const COLUMNS: usize = 256;
    const BYTES: usize = 110;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
        let scale = isa.load_f16(&block.scales());
        // Low nibbles of 8 groups, then the high ones, and the two upper bits of each four groups.
        let [near, far, upper] = block.fours::<3>(24);
        let (near, far, upper) = (isa.load(near), isa.load(far), isa.load(upper));
        let factors = [
            six_bits(isa, near, upper, 0),
            six_bits(isa, far, upper, 2),
            six_bits(isa, isa.shift_right(near, 4), upper, 4),
            six_bits(isa, isa.shift_right(far, 4), upper, 6),
        ];
        for i in 0..4 {
            times::<I, 32>(isa, factors[i], scale, &mut to.scales[4 * i..]);
        }
    }

    #[inline(always)]
    fn four<I: Isa>(isa: I, block: PanelBlock<'_>, group: usize, i: usize) -> I::Bytes {
        let hmask = isa.load(&block.fours::<4>(4 * (group % 2))[i]);
        let third = isa.and(isa.shift_right(hmask, group as u32 / 2), isa.splat_byte(1));
        isa.or(two_bits(isa, block, 8, group, i), isa.shift_left(third, 2))
    }
}

/// scales: 16 bytes, for 16 numbers each, with the scale in the low nibble and the min in the high one, qs: as in [`Q3K`], d,
/// dmin.
#[derive(Clone, Copy)]
pub(super) struct Q2K;

impl BlockFormat for Q2K {
    const FORMAT: ByteFormat = ByteFormat::small(3, 16);
    const COLUMNS: usize = 256;
    const BYTES: usize = 84;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
        let (scale, min) = scale_and_min(isa, isa.load(&block.fours::<1>(20)[0]));
        let both = block.fours::<4>(0);
        for i in 0..4 {
            let both = isa.load(&both[i]);
            times::<I, 0>(isa, isa.nibbles(both, false), scale, &mut to.scales[4 * i..]);
            times::<I, 0>(isa, isa.nibbles(both, true), min, &mut to.mins[4 * i..]);
        }
    }

    #[inline(always)]
    fn four<I: Isa>(isa: I, block: PanelBlock<'_>, group: usize, i: usize) -> I::Bytes {
        two_bits(isa, block, 4, group, i)
    }
}

/// The nibbles of a group of 32: each 32 bytes have one in their low nibbles and the next in their high ones.
#[inline(always)]
fn nibbles<I: Isa>(isa: I, block: PanelBlock<'_>, qs: usize, group: usize, i: usize) -> I::Bytes {
    let qs = block.fours::<8>(qs + group / 2 * 8);
    isa.nibbles(isa.load(&qs[i]), group % 2 == 1)
}

/// The two bits of each number of a group of 16: each 32 bytes have those of 128 numbers, the lowest bits those of the first 32.
#[inline(always)]
fn two_bits<I: Isa>(isa: I, block: PanelBlock<'_>, qs: usize, group: usize, i: usize) -> I::Bytes {
    let (first, quarter, half) = (group / 8, group as u32 / 2 % 4, group % 2);
    let qs = block.fours::<4>(qs + 8 * first + 4 * half);
    isa.and(isa.shift_right(isa.load(&qs[i]), 2 * quarter), isa.splat_byte(3))
}

/// Scales and mins of eight groups, from d, dmin and scales.
#[inline(always)]
fn eight_groups<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>) {
    let [both, a, b, c] = block.fours::<4>(0);
    let (both, a, b, c) = (isa.load(both), isa.load(a), isa.load(b), isa.load(c));
    let (scale, min) = scale_and_min(isa, both);
    // Six bits each: for the first four groups the lower bits of a and b, for the others two bits there and four in c.
    let six = isa.splat_byte(0x3f);
    let scales = [isa.and(a, six), six_bits(isa, c, a, 6)];
    let mins = [isa.and(b, six), six_bits(isa, isa.shift_right(c, 4), b, 6)];
    for i in 0..2 {
        times::<I, 0>(isa, scales[i], scale, &mut to.scales[4 * i..]);
        times::<I, 0>(isa, mins[i], min, &mut to.mins[4 * i..]);
    }
}

/// Numbers of six bits: the low four of each byte of `lower`, and above them the two of `upper` that begin at bit `from`.
#[inline(always)]
fn six_bits<I: Isa>(isa: I, lower: I::Bytes, upper: I::Bytes, from: u32) -> I::Bytes {
    isa.join_nibbles(lower, isa.and(isa.shift_right(upper, from), isa.splat_byte(3)))
}

/// d and -dmin, from the four bytes `both`.
#[inline(always)]
fn scale_and_min<I: Isa>(isa: I, both: I::Bytes) -> (I::F32, I::F32) {
    let min = isa.low_f16(isa.shift_right(both, 16));
    (isa.low_f16(both), isa.mul(min, isa.splat(-1.0)))
}

/// Each row's four bytes, the lowest first, minus `OFFSET` and times `scale`, to the first four of `to`. (No loop: the shifts are
/// to be constants.)
#[inline(always)]
fn times<I: Isa, const OFFSET: u8>(isa: I, x: I::Bytes, scale: I::F32, to: &mut [I::F32]) {
    to[0] = byte_times::<I, OFFSET>(isa, x, 0, scale);
    to[1] = byte_times::<I, OFFSET>(isa, x, 1, scale);
    to[2] = byte_times::<I, OFFSET>(isa, x, 2, scale);
    to[3] = byte_times::<I, OFFSET>(isa, x, 3, scale);
}

#[inline(always)]
fn byte_times<I: Isa, const OFFSET: u8>(isa: I, x: I::Bytes, which: u32, scale: I::F32) -> I::F32 {
    let factor = isa.byte(x, which);
    let less = isa.splat(-f32::from(OFFSET));
    let factor = if OFFSET > 0 { isa.mul_add(factor, isa.splat(1.0), less) } else { factor };
    isa.mul(factor, scale)
}
