//! The micro-kernel in bytes, for quantized weights: panels of 16 rows, multiplied with quantized activations.

use std::ops::Range;

use super::activations::{ActivationBlock, BLOCK};
use super::isa::{Isa, WithIsa};
use super::macro_kernel::{MicroKernel, Store, multiply_all};
use super::panel::{CHUNK, PANEL_ROWS, Panel};
use super::weights::{ByteFormat, Matrix};
use crate::forward::cpu::threads::team::WorkPieces;

/// A product of quantized weights and activations `x`.
pub(super) struct ByteProduct<'a, 'p> {
    pub(super) pieces: &'a mut WorkPieces<'p>,
    pub(super) w: Matrix<'a>,
    pub(super) x: &'a [ActivationBlock],
    pub(super) rows: usize,
    pub(super) store: Store<'a>,
}

impl WithIsa for ByteProduct<'_, '_> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { pieces, w, x, rows, store } = self;
        let mut kernel =
            ByteKernel { isa, x, columns: w.columns, format: ByteFormat::of(w.ty), panel: Panel::new() };
        multiply_all(&mut kernel, pieces, w, rows, store);
    }
}

struct ByteKernel<'a, I> {
    isa: I,
    x: &'a [ActivationBlock],
    columns: usize,
    format: ByteFormat,
    panel: Panel,
}

impl<I: Isa> MicroKernel<PANEL_ROWS> for ByteKernel<'_, I> {
    const COLUMNS: usize = CHUNK;
    const TOGETHER: usize = I::ROWS;

    #[inline(always)]
    fn pack(
        &mut self,
        w: Matrix<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        prefetch_next: impl FnMut(),
    ) {
        self.panel.pack(self.isa, w, rows.start, columns, prefetch_next);
    }

    #[inline(always)]
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; PANEL_ROWS]]) {
        let row = |i: usize| {
            &self.x[((first + i) * self.columns + columns.start) / BLOCK..][..columns.len() / BLOCK]
        };
        let (panel, mut sums, mut i) = (&self.panel, sums, 0);
        // As many rows together as there are registers for their sums, and fewer at the end.
        macro_rules! together {
            ($($m:literal)*) => {$(
                if I::ROWS >= $m {
                    let (some, rest) = sums.as_chunks_mut::<$m>();
                    for sums in some {
                        panel.multiply::<_, $m>(self.isa, self.format, std::array::from_fn(|k| row(i + k)), sums);
                        i += $m;
                    }
                    sums = rest;
                }
            )*};
        }
        together!(8 4 2 1);
        debug_assert!(sums.is_empty());
    }
}
