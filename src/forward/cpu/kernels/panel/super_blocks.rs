//! Packing the types with 256 numbers per block. The fields of a block are named as in ggml: `d` and `dmin` are the scale
//! and the min of the whole block in half precision, `scales` the integer factors of both for groups of 32 or 16
//! numbers, `qs` (or `ql`) the lower bits of the quants and `qh` or `hmask` their upper bits.

use super::buffer::{PANEL_ROWS, Panel, SourceRows};
use crate::forward::cpu::kernels::isa::Isa;

impl Panel {
    /// ql: 256 nibbles, qh: two upper bits of each number, scales: 16 signed bytes, d. Numbers are stored plus 32.
    #[inline(always)]
    pub(super) fn q6_k<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        for block in 0..columns / 256 {
            let rows = rows.skip(210 * block);
            // The first 64 bytes of ql and 32 of qh are the first 128 numbers; `half` counts groups of 16 bytes of qh.
            for (first, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let lower = |k: usize| rows.sixteen(isa, 64 * first + 32 * k + 16 * half);
                let (near, far) = (lower(0), lower(1));
                let upper = rows.sixteen(isa, 128 + 32 * first + 16 * half);
                let to = &mut self.bytes[64 * block + 32 * first + 4 * half..];
                for (i, ((near, far), upper)) in near.into_iter().zip(far).zip(upper).enumerate() {
                    for (k, six) in six_bits(isa, near, far, upper).into_iter().enumerate() {
                        isa.store(six, &mut to[8 * k + i]);
                    }
                }
                prefetch_next();
                prefetch_next();
            }
            // The last four bytes are two of the scales and d.
            let [.., last] = rows.sixteen(isa, 194);
            let scale = isa.low_f16(isa.shift_right::<16>(last));
            let scales = self.scales[16 * block..].as_chunks_mut::<4>().0;
            for (to, x) in scales.iter_mut().zip(rows.sixteen(isa, 192)) {
                times::<I, 128>(isa, isa.add(x, isa.splat_byte(128)), scale, to);
            }
        }
    }

    /// d, dmin, scales: 6 bits of both for 8 groups in 12 bytes, qh: 32 bytes with the fifth bits, bit i for group i, qs:
    /// 128 bytes, of which each 32 hold a group in their low nibbles and the next in their high ones.
    #[inline(always)]
    pub(super) fn q5_k<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        let (fifteen, sixteen) = (isa.splat_byte(15), isa.splat_byte(16));
        let join =
            |lower: I::Bytes, fifth: I::Bytes| isa.or(isa.and(lower, fifteen), isa.and(fifth, sixteen));
        for block in 0..columns / 256 {
            let rows = rows.skip(176 * block);
            self.eight_groups(isa, rows.sixteen(isa, 0), 8 * block);
            for half in 0..2 {
                // The bits of the next two groups are always the lowest.
                let mut fifth = rows.sixteen(isa, 16 + 16 * half);
                for pair in 0..4 {
                    let to = &mut self.bytes[64 * block + 16 * pair + 4 * half..];
                    let four = rows.sixteen(isa, 48 + 32 * pair + 16 * half);
                    for (i, (both, fifth)) in four.into_iter().zip(&mut fifth).enumerate() {
                        isa.store(join(both, isa.shift_left::<4>(*fifth)), &mut to[i]);
                        isa.store(
                            join(isa.shift_right::<4>(both), isa.shift_left::<3>(*fifth)),
                            &mut to[8 + i],
                        );
                        *fifth = isa.shift_right::<2>(*fifth);
                    }
                    prefetch_next();
                }
            }
        }
    }

    /// As q5_k without qh.
    #[inline(always)]
    pub(super) fn q4_k<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        let fifteen = isa.splat_byte(15);
        for block in 0..columns / 256 {
            let rows = rows.skip(144 * block);
            self.eight_groups(isa, rows.sixteen(isa, 0), 8 * block);
            for pair in 0..4 {
                let groups = &mut self.bytes[64 * block + 16 * pair..][..16];
                let (low, high) = groups.split_at_mut(8);
                for half in 0..2 {
                    let four = rows.sixteen(isa, 16 + 32 * pair + 16 * half);
                    let to = low[4 * half..].iter_mut().zip(&mut high[4 * half..]);
                    for ((low, high), both) in to.zip(four) {
                        isa.store(isa.and(both, fifteen), low);
                        isa.store(isa.and(isa.shift_right::<4>(both), fifteen), high);
                    }
                    prefetch_next();
                }
            }
        }
    }

    /// Stores scales and mins of the eight groups from `group` on, from a block's first sixteen bytes.
    #[inline(always)]
    fn eight_groups<I: Isa>(&mut self, isa: I, [both, a, b, c]: [I::Bytes; 4], group: usize) {
        let (scale, min) = scale_and_min(isa, both);
        // Six bits each: for the first four groups the lower bits of a and b, for the others two bits there and four in c.
        let (six, four, two) = (isa.splat_byte(0x3f), isa.splat_byte(0x0f), isa.splat_byte(0x30));
        let upper =
            |low: I::Bytes, x: I::Bytes| isa.or(isa.and(low, four), isa.and(isa.shift_right::<2>(x), two));
        let scales = [isa.and(a, six), upper(c, a)];
        let mins = [isa.and(b, six), upper(isa.shift_right::<4>(c), b)];
        for (four, (scales, mins)) in scales.into_iter().zip(mins).enumerate() {
            let group = group + 4 * four;
            times::<I, 0>(isa, scales, scale, &mut self.scales[group..][..4]);
            times::<I, 0>(isa, mins, min, &mut self.mins[group..][..4]);
        }
    }

    /// hmask: 32 bytes with the third bits, bit i for each 32 numbers, qs: 64 bytes with two bits for each quarter of one
    /// half and then of the other, scales: 6 bits for each 16 numbers in 12 bytes, plus 32, d. Numbers are stored plus 4.
    #[inline(always)]
    pub(super) fn q3_k<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        let (three, four) = (isa.splat_byte(3), isa.splat_byte(4));
        let join = |lower: I::Bytes, third: I::Bytes| isa.or(isa.and(lower, three), isa.and(third, four));
        for block in 0..columns / 256 {
            let rows = rows.skip(110 * block);
            for half in 0..2 {
                // The bits of the next 128 numbers are always the lowest.
                let mut third = rows.sixteen(isa, 16 * half);
                for first in 0..2 {
                    let to = &mut self.bytes[64 * block + 32 * first + 4 * half..];
                    let lower = rows.sixteen(isa, 32 + 32 * first + 16 * half);
                    for (i, (lower, third)) in lower.into_iter().zip(&mut third).enumerate() {
                        isa.store(join(lower, isa.shift_left::<2>(*third)), &mut to[i]);
                        isa.store(
                            join(isa.shift_right::<2>(lower), isa.shift_left::<1>(*third)),
                            &mut to[8 + i],
                        );
                        isa.store(join(isa.shift_right::<4>(lower), *third), &mut to[16 + i]);
                        isa.store(
                            join(isa.shift_right::<6>(lower), isa.shift_right::<1>(*third)),
                            &mut to[24 + i],
                        );
                        *third = isa.shift_right::<4>(*third);
                    }
                    prefetch_next();
                    prefetch_next();
                }
            }
            // The last sixteen bytes are two of qs, the scales' low nibbles (of 8, of the next 8) and four times two upper
            // bits, and d.
            let [a, b, c, d] = rows.sixteen(isa, 94);
            let scale = isa.low_f16(isa.shift_right::<16>(d));
            let shifted =
                |a: I::Bytes, b: I::Bytes| isa.or(isa.shift_right::<16>(a), isa.shift_left::<16>(b));
            let factors = six_bits(isa, shifted(a, b), shifted(b, c), shifted(c, d));
            for (to, x) in self.scales[16 * block..].as_chunks_mut::<4>().0.iter_mut().zip(factors) {
                times::<I, 32>(isa, x, scale, to);
            }
        }
    }

    /// scales: 16 bytes, for 16 numbers each, with the scale in the low nibble and the min in the high one, qs: as q3_k,
    /// d, dmin.
    #[inline(always)]
    pub(super) fn q2_k<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        let (three, fifteen) = (isa.splat_byte(3), isa.splat_byte(15));
        for block in 0..columns / 256 {
            let rows = rows.skip(84 * block);
            for (first, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let to = &mut self.bytes[64 * block + 32 * first + 4 * half..];
                for (i, x) in rows.sixteen(isa, 16 + 32 * first + 16 * half).into_iter().enumerate() {
                    isa.store(isa.and(x, three), &mut to[i]);
                    isa.store(isa.and(isa.shift_right::<2>(x), three), &mut to[8 + i]);
                    isa.store(isa.and(isa.shift_right::<4>(x), three), &mut to[16 + i]);
                    isa.store(isa.and(isa.shift_right::<6>(x), three), &mut to[24 + i]);
                }
                prefetch_next();
                prefetch_next();
            }
            let [.., both] = rows.sixteen(isa, 68);
            let (scale, min) = scale_and_min(isa, both);
            for (four, x) in rows.sixteen(isa, 0).into_iter().enumerate() {
                let group = 16 * block + 4 * four;
                let upper = isa.and(isa.shift_right::<4>(x), fifteen);
                times::<I, 0>(isa, isa.and(x, fifteen), scale, &mut self.scales[group..][..4]);
                times::<I, 0>(isa, upper, min, &mut self.mins[group..][..4]);
            }
        }
    }
}

/// Four times six bits: the lower four are the low nibbles of `near` and of `far`, then their high nibbles; the upper two
/// are those of `upper`, the lowest first.
#[inline(always)]
fn six_bits<I: Isa>(isa: I, near: I::Bytes, far: I::Bytes, upper: I::Bytes) -> [I::Bytes; 4] {
    let (fifteen, two) = (isa.splat_byte(15), isa.splat_byte(0x30));
    let join = |lower: I::Bytes, upper: I::Bytes| isa.or(isa.and(lower, fifteen), isa.and(upper, two));
    [
        join(near, isa.shift_left::<4>(upper)),
        join(far, isa.shift_left::<2>(upper)),
        join(isa.shift_right::<4>(near), upper),
        join(isa.shift_right::<4>(far), isa.shift_right::<2>(upper)),
    ]
}

/// d and -dmin, from the four bytes `both`.
#[inline(always)]
fn scale_and_min<I: Isa>(isa: I, both: I::Bytes) -> (I::F32, I::F32) {
    let min = isa.low_f16(isa.shift_right::<16>(both));
    (isa.low_f16(both), isa.mul(min, isa.splat(-1.0)))
}

/// Stores each row's four bytes, the lowest first, minus `OFFSET` and times `scale`.
#[inline(always)]
fn times<I: Isa, const OFFSET: u8>(isa: I, x: I::Bytes, scale: I::F32, to: &mut [[f32; PANEL_ROWS]]) {
    let each = [
        isa.low_byte(x),
        isa.low_byte(isa.shift_right::<8>(x)),
        isa.low_byte(isa.shift_right::<16>(x)),
        isa.low_byte(isa.shift_right::<24>(x)),
    ];
    for (to, factor) in to.iter_mut().zip(each) {
        let less = isa.splat(-f32::from(OFFSET));
        let factor = if OFFSET > 0 { isa.mul_add(factor, isa.splat(1.0), less) } else { factor };
        isa.store_f32(isa.mul(factor, scale), to);
    }
}
