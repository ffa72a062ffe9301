//! Types that pack 32 numbers of a row together, with a scale in half precision first.

use super::{Rows, Strip};
use crate::forward::cpu::kernels::isa::Isa;

/// The numbers of type iq4_nl, 128 added: ggml's `kvalues_iq4nl`.
const IQ4_NL: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

impl Strip {
    /// The half-precision scale of a block from its first bytes.
    #[inline(always)]
    fn scale<I: Isa>(&mut self, isa: I, [first, ..]: [I::Bytes; 4], block: usize) {
        isa.store_floats(isa.lower_half(first), &mut self.scales[block]);
    }

    /// The half-precision scale and least value.
    #[inline(always)]
    fn scale_and_least<I: Isa>(&mut self, isa: I, first: [I::Bytes; 4], block: usize) {
        self.scale(isa, first, block);
        isa.store_floats(isa.lower_half(isa.shift_right::<16>(first[0])), &mut self.leasts[block]);
    }

    /// A block from sixteen bytes, whose lower halves are the first 16 numbers: what `make` makes of four columns at a
    /// time, counted from 0 to 7.
    #[inline(always)]
    fn halves<I: Isa>(
        &mut self,
        isa: I,
        bytes: [I::Bytes; 4],
        block: usize,
        make: impl Fn(usize, I::Bytes) -> I::Bytes,
    ) {
        let fifteen = isa.splat_byte(15);
        let (low, high) = self.bytes[8 * block..][..8].split_at_mut(4);
        for (i, ((low, high), both)) in low.iter_mut().zip(high).zip(bytes).enumerate() {
            isa.store(make(i, isa.and(both, fifteen)), low);
            isa.store(make(4 + i, isa.and(isa.shift_right::<4>(both), fifteen)), high);
        }
    }

    /// Sixteen columns as they lie in each row, 128 added, from column `to` on.
    #[inline(always)]
    fn signed<I: Isa>(&mut self, isa: I, bytes: [I::Bytes; 4], to: usize) {
        let more = isa.splat_byte(128);
        for (to, x) in self.bytes[to / 4..][..4].iter_mut().zip(bytes) {
            isa.store(isa.add(x, more), to);
        }
    }

    /// A scale and 32 signed bytes.
    #[inline(always)]
    pub(super) fn q8_0<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        for block in 0..columns / 32 {
            let rows = rows.from(34 * block);
            self.scale(isa, rows.sixteen(isa, 0), block);
            self.signed(isa, rows.sixteen(isa, 2), 32 * block);
            self.signed(isa, rows.sixteen(isa, 18), 32 * block + 16);
            meanwhile();
        }
    }

    /// A scale, the fifth bits of all numbers, and halves of 16 bytes: 16 more than the numbers.
    #[inline(always)]
    pub(super) fn q5_0<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        // 128 more than the number.
        let (sixteen, more) = (isa.splat_byte(16), isa.splat_byte(112));
        for block in 0..columns / 32 {
            let rows = rows.from(22 * block);
            let first = rows.sixteen(isa, 0);
            self.scale(isa, first, block);
            let fifth = isa.or(isa.shift_right::<16>(first[0]), isa.shift_left::<16>(first[1]));
            let fifth = isa.bits(fifth);
            self.halves(isa, rows.sixteen(isa, 6), block, |i, x| {
                isa.add(isa.or(x, isa.and(fifth[i], sixteen)), more)
            });
            meanwhile();
        }
    }

    /// A scale, a least value, the fifth bits of all numbers, and halves of 16 bytes.
    #[inline(always)]
    pub(super) fn q5_1<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let sixteen = isa.splat_byte(16);
        for block in 0..columns / 32 {
            let rows = rows.from(24 * block);
            let first = rows.sixteen(isa, 0);
            self.scale_and_least(isa, first, block);
            let fifth = isa.bits(first[1]);
            self.halves(isa, rows.sixteen(isa, 8), block, |i, x| isa.or(x, isa.and(fifth[i], sixteen)));
            meanwhile();
        }
    }

    /// A scale and halves of 16 bytes: 8 more than the numbers.
    #[inline(always)]
    pub(super) fn q4_0<I: Isa>(&mut self, isa: I, rows: Rows<'_>, columns: usize, meanwhile: impl FnMut()) {
        // 128 more than the number.
        let more = isa.splat_byte(120);
        self.scaled_halves(isa, rows, columns, meanwhile, |x| isa.add(x, more));
    }

    /// A scale, a least value, and halves of 16 bytes.
    #[inline(always)]
    pub(super) fn q4_1<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        for block in 0..columns / 32 {
            let rows = rows.from(20 * block);
            self.scale_and_least(isa, rows.sixteen(isa, 0), block);
            self.halves(isa, rows.sixteen(isa, 4), block, |_, x| x);
            meanwhile();
        }
    }

    /// A scale and halves of 16 bytes: places of a table.
    #[inline(always)]
    pub(super) fn iq4_nl<I: Isa>(&mut self, isa: I, rows: Rows<'_>, columns: usize, meanwhile: impl FnMut()) {
        self.scaled_halves(isa, rows, columns, meanwhile, |x| isa.look_up(&IQ4_NL, x));
    }

    /// A scale and halves of 16 bytes, of which `make` makes the numbers.
    #[inline(always)]
    fn scaled_halves<I: Isa>(
        &mut self,
        isa: I,
        rows: Rows<'_>,
        columns: usize,
        mut meanwhile: impl FnMut(),
        make: impl Fn(I::Bytes) -> I::Bytes,
    ) {
        for block in 0..columns / 32 {
            let rows = rows.from(18 * block);
            self.scale(isa, rows.sixteen(isa, 0), block);
            self.halves(isa, rows.sixteen(isa, 2), block, |_, x| make(x));
            meanwhile();
        }
    }
}
