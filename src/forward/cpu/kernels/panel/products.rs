//! Products of strips with rows.

use super::{Kind, Strip};
use crate::forward::cpu::kernels::activations::{BLOCK, Rounded};
use crate::forward::cpu::kernels::isa::{Isa, STRIP};

impl Strip {
    /// Adds the products of as many columns of M rows with the strip to `sums`.
    #[inline(always)]
    pub(crate) fn add<I: Isa, const M: usize>(
        &self,
        isa: I,
        kind: Kind,
        x: [&[Rounded]; M],
        sums: &mut [[f32; STRIP]; M],
    ) {
        match kind {
            Kind::Signed => self.add_parts::<I, M, 1, 8, 255, false>(isa, x, sums),
            Kind::Least15 => self.add_parts::<I, M, 1, 8, 15, true>(isa, x, sums),
            Kind::Least31 => self.add_parts::<I, M, 1, 8, 31, true>(isa, x, sums),
            Kind::Sixteen63 => self.add_parts::<I, M, 2, 4, 63, false>(isa, x, sums),
            Kind::Sixteen7 => self.add_parts::<I, M, 2, 4, 7, false>(isa, x, sums),
            Kind::SixteenLeast3 => self.add_parts::<I, M, 2, 4, 3, true>(isa, x, sums),
        }
    }

    /// Adds products of 32 columns in PARTS parts of four times J, whose bytes are `MOST` at most and which have a least
    /// value or none.
    #[inline(always)]
    fn add_parts<
        I: Isa,
        const M: usize,
        const PARTS: usize,
        const J: usize,
        const MOST: u8,
        const LEAST: bool,
    >(
        &self,
        isa: I,
        mut x: [&[Rounded]; M],
        sums: &mut [[f32; STRIP]; M],
    ) {
        const { assert!(4 * J * PARTS == BLOCK) };
        let mut totals = sums.each_ref().map(|sums| isa.load_floats(sums));
        // One length for all lets the compiler see that every index is inside (where it sees through this, which it does
        // not always with `map`).
        let blocks = x[0].len();
        for x in &mut x {
            *x = &x[..blocks];
        }
        let weights = &self.bytes.as_chunks::<{ BLOCK / 4 }>().0[..blocks];
        let scales = self.scales.as_chunks::<PARTS>().0.iter().zip(self.leasts.as_chunks::<PARTS>().0);
        for (b, (weights, (scales, leasts))) in weights.iter().zip(scales).enumerate() {
            let x = x.map(|x| &x[b]);
            let parts = weights.as_chunks::<J>().0.iter().zip(scales.iter().zip(leasts));
            for (part, (weights, (scale, least))) in parts.enumerate() {
                let values = x.map(|x| &x.values.as_chunks::<J>().0[part]);
                let starts = if LEAST { [0; M] } else { x.map(|x| x.starts[part]) };
                let whole = isa.products::<J, M, MOST>(weights, values, starts);
                let scale = isa.load_floats(scale);
                for ((total, whole), x) in totals.iter_mut().zip(whole).zip(x) {
                    let scale = isa.mul(scale, isa.splat(x.unit));
                    *total = isa.mul_add(isa.to_float(whole), scale, *total);
                }
                if LEAST {
                    let least = isa.load_floats(least);
                    for (total, x) in totals.iter_mut().zip(x) {
                        *total = isa.mul_add(least, isa.splat(x.totals[part]), *total);
                    }
                }
            }
        }
        for (sums, total) in sums.iter_mut().zip(totals) {
            isa.store_floats(total, sums);
        }
    }
}
