//! Packing the types with 32 numbers per block. The fields of a block are named as in ggml: `d` is the scale and `m` the
//! min, both in half precision; `qs` are the quants and `qh` their upper bits.

use super::buffer::{Panel, SourceRows};
use crate::forward::cpu::kernels::isa::Isa;

/// The values of type iq4_nl, plus 128: ggml's `kvalues_iq4nl`.
const IQ4_NL: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

impl Panel {
    /// Stores the scale of a block, from its first bytes.
    #[inline(always)]
    fn scale<I: Isa>(&mut self, isa: I, [first, ..]: [I::Bytes; 4], block: usize) {
        isa.store_f32(isa.low_f16(first), &mut self.scales[block]);
    }

    /// Stores scale and min of a block, from its first bytes.
    #[inline(always)]
    fn scale_and_min<I: Isa>(&mut self, isa: I, first: [I::Bytes; 4], block: usize) {
        self.scale(isa, first, block);
        isa.store_f32(isa.low_f16(isa.shift_right::<16>(first[0])), &mut self.mins[block]);
    }

    /// Stores a block from sixteen bytes, whose low nibbles are the first 16 numbers and whose high nibbles are the
    /// others. `make` turns the nibbles of four columns into bytes; it gets the number of the four, from 0 to 7, too.
    #[inline(always)]
    fn nibbles<I: Isa>(
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

    /// Stores sixteen signed columns, plus 128, from column `to` on.
    #[inline(always)]
    fn signed<I: Isa>(&mut self, isa: I, bytes: [I::Bytes; 4], to: usize) {
        let more = isa.splat_byte(128);
        for (to, x) in self.bytes[to / 4..][..4].iter_mut().zip(bytes) {
            isa.store(isa.add(x, more), to);
        }
    }

    /// d, qs: 32 signed bytes.
    #[inline(always)]
    pub(super) fn q8_0<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        for block in 0..columns / 32 {
            let rows = rows.skip(34 * block);
            self.scale(isa, rows.sixteen(isa, 0), block);
            self.signed(isa, rows.sixteen(isa, 2), 32 * block);
            self.signed(isa, rows.sixteen(isa, 18), 32 * block + 16);
            prefetch_next();
        }
    }

    /// d, qh: the fifth bits of all numbers, qs: 32 nibbles. Numbers are stored plus 16.
    #[inline(always)]
    pub(super) fn q5_0<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        // Packed bytes are the number plus 128.
        let (sixteen, more) = (isa.splat_byte(16), isa.splat_byte(112));
        for block in 0..columns / 32 {
            let rows = rows.skip(22 * block);
            let first = rows.sixteen(isa, 0);
            self.scale(isa, first, block);
            let fifth = isa.or(isa.shift_right::<16>(first[0]), isa.shift_left::<16>(first[1]));
            let fifth = isa.bits(fifth);
            self.nibbles(isa, rows.sixteen(isa, 6), block, |i, x| {
                isa.add(isa.or(x, isa.and(fifth[i], sixteen)), more)
            });
            prefetch_next();
        }
    }

    /// d, m, qh: the fifth bits of all numbers, qs: 32 nibbles.
    #[inline(always)]
    pub(super) fn q5_1<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        let sixteen = isa.splat_byte(16);
        for block in 0..columns / 32 {
            let rows = rows.skip(24 * block);
            let first = rows.sixteen(isa, 0);
            self.scale_and_min(isa, first, block);
            let fifth = isa.bits(first[1]);
            self.nibbles(isa, rows.sixteen(isa, 8), block, |i, x| isa.or(x, isa.and(fifth[i], sixteen)));
            prefetch_next();
        }
    }

    /// d, qs: 32 nibbles. Numbers are stored plus 8.
    #[inline(always)]
    pub(super) fn q4_0<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        prefetch_next: impl FnMut(),
    ) {
        // Packed bytes are the number plus 128.
        let more = isa.splat_byte(120);
        self.scaled_nibbles(isa, rows, columns, prefetch_next, |x| isa.add(x, more));
    }

    /// d, m, qs: 32 nibbles.
    #[inline(always)]
    pub(super) fn q4_1<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
    ) {
        for block in 0..columns / 32 {
            let rows = rows.skip(20 * block);
            self.scale_and_min(isa, rows.sixteen(isa, 0), block);
            self.nibbles(isa, rows.sixteen(isa, 4), block, |_, x| x);
            prefetch_next();
        }
    }

    /// d, qs: 32 nibbles, which are indices into a table.
    #[inline(always)]
    pub(super) fn iq4_nl<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        prefetch_next: impl FnMut(),
    ) {
        self.scaled_nibbles(isa, rows, columns, prefetch_next, |x| isa.look_up(&IQ4_NL, x));
    }

    /// d, qs: 32 nibbles, which `make` turns into bytes.
    #[inline(always)]
    fn scaled_nibbles<I: Isa>(
        &mut self,
        isa: I,
        rows: SourceRows<'_>,
        columns: usize,
        mut prefetch_next: impl FnMut(),
        make: impl Fn(I::Bytes) -> I::Bytes,
    ) {
        for block in 0..columns / 32 {
            let rows = rows.skip(18 * block);
            self.scale(isa, rows.sixteen(isa, 0), block);
            self.nibbles(isa, rows.sixteen(isa, 2), block, |_, x| make(x));
            prefetch_next();
        }
    }
}
