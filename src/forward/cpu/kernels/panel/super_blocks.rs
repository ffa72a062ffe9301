//! Types that pack 256 numbers of a row together, with scales (and least values) for parts of 32 or 16 numbers that are
//! whole multiples of one in half precision.

use super::{Rows, Strip};
use crate::forward::cpu::kernels::isa::{Isa, STRIP};

impl Strip {
    /// 128 bytes of lower halves, 64 bytes of upper quarters, 16 signed scales of 16 numbers each, and one for all: 32
    /// more than the numbers.
    #[inline(always)]
    pub(super) fn q6_k<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        for block in 0..columns / 256 {
            let rows = rows.from(210 * block);
            // The first 64 lower bytes and 32 upper ones make the first 128 numbers; `half` counts groups of 16 of
            // the upper ones.
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
                meanwhile();
                meanwhile();
            }
            // The last of these dwords are two factors and the scale of all.
            let [.., last] = rows.sixteen(isa, 194);
            let unit = isa.lower_half(isa.shift_right::<16>(last));
            let scales = self.scales[16 * block..].as_chunks_mut::<4>().0;
            for (to, x) in scales.iter_mut().zip(rows.sixteen(isa, 192)) {
                times::<I, 128>(isa, isa.add(x, isa.splat_byte(128)), unit, to);
            }
        }
    }

    /// Eight parts: a scale and a least value for all, 6-bit factors of both for each part in 12 bytes, 32 bytes that
    /// hold the fifth bits of each part, and 128 bytes, of which each 32 hold a part in their lower halves and the next
    /// in their upper ones.
    #[inline(always)]
    pub(super) fn q5_k<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let (fifteen, sixteen) = (isa.splat_byte(15), isa.splat_byte(16));
        let join =
            |lower: I::Bytes, fifth: I::Bytes| isa.or(isa.and(lower, fifteen), isa.and(fifth, sixteen));
        for block in 0..columns / 256 {
            let rows = rows.from(176 * block);
            self.eight_parts(isa, rows.sixteen(isa, 0), 8 * block);
            for half in 0..2 {
                // Those of the next two parts are always the lowest.
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
                    meanwhile();
                }
            }
        }
    }

    /// As q5_k, without fifth bits.
    #[inline(always)]
    pub(super) fn q4_k<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let fifteen = isa.splat_byte(15);
        for block in 0..columns / 256 {
            let rows = rows.from(144 * block);
            self.eight_parts(isa, rows.sixteen(isa, 0), 8 * block);
            for pair in 0..4 {
                let parts = &mut self.bytes[64 * block + 16 * pair..][..16];
                let (low, high) = parts.split_at_mut(8);
                for half in 0..2 {
                    let four = rows.sixteen(isa, 16 + 32 * pair + 16 * half);
                    let to = low[4 * half..].iter_mut().zip(&mut high[4 * half..]);
                    for ((low, high), both) in to.zip(four) {
                        isa.store(isa.and(both, fifteen), low);
                        isa.store(isa.and(isa.shift_right::<4>(both), fifteen), high);
                    }
                    meanwhile();
                }
            }
        }
    }

    /// Scales and least values of the eight parts from `part` on, from a block's first sixteen bytes.
    #[inline(always)]
    fn eight_parts<I: Isa>(&mut self, isa: I, [both, a, b, c]: [I::Bytes; 4], part: usize) {
        let (scale, least) = scale_and_least(isa, both);
        // Six bits each: of the first four parts the lower bits of a and b; of the others two bits there and four in c.
        let (six, four, two) = (isa.splat_byte(0x3f), isa.splat_byte(0x0f), isa.splat_byte(0x30));
        let upper =
            |low: I::Bytes, x: I::Bytes| isa.or(isa.and(low, four), isa.and(isa.shift_right::<2>(x), two));
        let scales = [isa.and(a, six), upper(c, a)];
        let leasts = [isa.and(b, six), upper(isa.shift_right::<4>(c), b)];
        for (four, (scales, leasts)) in scales.into_iter().zip(leasts).enumerate() {
            let part = part + 4 * four;
            times::<I, 0>(isa, scales, scale, &mut self.scales[part..][..4]);
            times::<I, 0>(isa, leasts, least, &mut self.leasts[part..][..4]);
        }
    }

    /// 32 bytes that hold a third bit for each eighth of the numbers, 64 bytes that hold two bits for each quarter of one
    /// half and then of the other, 6-bit factors of the scale for each 16 numbers in 12 bytes, 32 added, and the scale: 4
    /// more than the numbers.
    #[inline(always)]
    pub(super) fn q3_k<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let (three, four) = (isa.splat_byte(3), isa.splat_byte(4));
        let join = |lower: I::Bytes, third: I::Bytes| isa.or(isa.and(lower, three), isa.and(third, four));
        for block in 0..columns / 256 {
            let rows = rows.from(110 * block);
            for half in 0..2 {
                // Those of the next four eighths are always the lowest.
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
                    meanwhile();
                    meanwhile();
                }
            }
            // The last sixteen bytes are two of the numbers', then the factors: lower halves of 8 and of the next 8, and
            // 4 times 2 upper bits.
            let [a, b, c, d] = rows.sixteen(isa, 94);
            let unit = isa.lower_half(isa.shift_right::<16>(d));
            let shifted =
                |a: I::Bytes, b: I::Bytes| isa.or(isa.shift_right::<16>(a), isa.shift_left::<16>(b));
            let factors = six_bits(isa, shifted(a, b), shifted(b, c), shifted(c, d));
            for (to, x) in self.scales[16 * block..].as_chunks_mut::<4>().0.iter_mut().zip(factors) {
                times::<I, 32>(isa, x, unit, to);
            }
        }
    }

    /// 16 bytes with factors for 16 numbers each, of the scale in their lower halves and of the least value in their upper
    /// ones, 64 bytes as those of q3_k, and the scale and the least value.
    #[inline(always)]
    pub(super) fn q2_k<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let (three, fifteen) = (isa.splat_byte(3), isa.splat_byte(15));
        for block in 0..columns / 256 {
            let rows = rows.from(84 * block);
            for (first, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let to = &mut self.bytes[64 * block + 32 * first + 4 * half..];
                for (i, x) in rows.sixteen(isa, 16 + 32 * first + 16 * half).into_iter().enumerate() {
                    isa.store(isa.and(x, three), &mut to[i]);
                    isa.store(isa.and(isa.shift_right::<2>(x), three), &mut to[8 + i]);
                    isa.store(isa.and(isa.shift_right::<4>(x), three), &mut to[16 + i]);
                    isa.store(isa.and(isa.shift_right::<6>(x), three), &mut to[24 + i]);
                }
                meanwhile();
                meanwhile();
            }
            let [.., both] = rows.sixteen(isa, 68);
            let (scale, least) = scale_and_least(isa, both);
            for (four, x) in rows.sixteen(isa, 0).into_iter().enumerate() {
                let part = 16 * block + 4 * four;
                let upper = isa.and(isa.shift_right::<4>(x), fifteen);
                times::<I, 0>(isa, isa.and(x, fifteen), scale, &mut self.scales[part..][..4]);
                times::<I, 0>(isa, upper, least, &mut self.leasts[part..][..4]);
            }
        }
    }
}

/// Four bytes of six bits: the lower four are the lower halves of `near` and of `far`, then their upper halves, and the
/// other two are those of `upper`, the lowest first.
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

/// Two numbers in half precision: the scale of all factors, and what multiplied with the others is to be taken away.
#[inline(always)]
fn scale_and_least<I: Isa>(isa: I, both: I::Bytes) -> (I::Float, I::Float) {
    let least = isa.lower_half(isa.shift_right::<16>(both));
    (isa.lower_half(both), isa.mul(least, isa.splat(-1.0)))
}

/// Each row's four bytes, the lowest first, less `OFFSET` and times `unit`.
#[inline(always)]
fn times<I: Isa, const OFFSET: u8>(isa: I, x: I::Bytes, unit: I::Float, to: &mut [[f32; STRIP]]) {
    let each = [
        isa.lowest_byte(x),
        isa.lowest_byte(isa.shift_right::<8>(x)),
        isa.lowest_byte(isa.shift_right::<16>(x)),
        isa.lowest_byte(isa.shift_right::<24>(x)),
    ];
    for (to, factor) in to.iter_mut().zip(each) {
        let less = isa.splat(-f32::from(OFFSET));
        let factor = if OFFSET > 0 { isa.mul_add(factor, isa.splat(1.0), less) } else { factor };
        isa.store_floats(isa.mul(factor, unit), to);
    }
}
