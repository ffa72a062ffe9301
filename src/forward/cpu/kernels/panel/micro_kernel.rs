//! The micro-kernel: a panel times some rows of quantized activations.

use super::buffer::{PANEL_ROWS, Panel};
use crate::forward::cpu::kernels::activations::{ActivationBlock, BLOCK};
use crate::forward::cpu::kernels::isa::Isa;
use crate::forward::cpu::kernels::weights::ByteFormat;

impl Panel {
    /// Adds the products of the panel with as many columns of M rows of activations to `sums`.
    #[inline(always)]
    pub(crate) fn multiply<I: Isa, const M: usize>(
        &self,
        isa: I,
        format: ByteFormat,
        x: [&[ActivationBlock]; M],
        sums: &mut [[f32; PANEL_ROWS]; M],
    ) {
        // One kernel per `ByteFormat`, which its largest byte tells apart. (The order is that of the fewest instructions:
        // callgrind sees 2 % in it.)
        match format.max {
            255 => self.multiply_groups::<I, M, 1, 8, 255, false>(isa, x, sums),
            15 => self.multiply_groups::<I, M, 1, 8, 15, true>(isa, x, sums),
            31 => self.multiply_groups::<I, M, 1, 8, 31, true>(isa, x, sums),
            63 => self.multiply_groups::<I, M, 2, 4, 63, false>(isa, x, sums),
            7 => self.multiply_groups::<I, M, 2, 4, 7, false>(isa, x, sums),
            _ => self.multiply_groups::<I, M, 2, 4, 3, true>(isa, x, sums),
        }
    }

    /// As [`Panel::multiply`], for weights in GROUPS groups of 4 * J columns per block, with bytes up to `MAX`, and with a
    /// min or without.
    #[inline(always)]
    fn multiply_groups<
        I: Isa,
        const M: usize,
        const GROUPS: usize,
        const J: usize,
        const MAX: u8,
        const HAS_MIN: bool,
    >(
        &self,
        isa: I,
        mut x: [&[ActivationBlock]; M],
        sums: &mut [[f32; PANEL_ROWS]; M],
    ) {
        const { assert!(4 * J * GROUPS == BLOCK) };
        let mut totals = sums.each_ref().map(|sums| isa.load_f32(sums));
        // One length for all lets the compiler see that every index is in bounds. (A loop: it does not always see through
        // `map`.)
        let blocks = x[0].len();
        for x in &mut x {
            *x = &x[..blocks];
        }
        let weights = &self.bytes.as_chunks::<{ BLOCK / 4 }>().0[..blocks];
        let factors = self.scales.as_chunks::<GROUPS>().0.iter().zip(self.mins.as_chunks::<GROUPS>().0);
        for (b, (weights, (scales, mins))) in weights.iter().zip(factors).enumerate() {
            let x = x.map(|x| &x[b]);
            let groups = weights.as_chunks::<J>().0.iter().zip(scales.iter().zip(mins));
            for (group, (weights, (scale, min))) in groups.enumerate() {
                let values = x.map(|x| &x.values.as_chunks::<J>().0[group]);
                let start = if HAS_MIN { [0; M] } else { x.map(|x| x.zero_points[group]) };
                let products = isa.products::<J, M, MAX>(weights, values, start);
                let scale = isa.load_f32(scale);
                for ((total, products), x) in totals.iter_mut().zip(products).zip(x) {
                    let scale = isa.mul(scale, isa.splat(x.scale));
                    *total = isa.mul_add(isa.to_f32(products), scale, *total);
                }
                if HAS_MIN {
                    let min = isa.load_f32(min);
                    for (total, x) in totals.iter_mut().zip(x) {
                        *total = isa.mul_add(min, isa.splat(x.sums[group]), *total);
                    }
                }
            }
        }
        for (sums, total) in sums.iter_mut().zip(totals) {
            isa.store_f32(total, sums);
        }
    }
}
