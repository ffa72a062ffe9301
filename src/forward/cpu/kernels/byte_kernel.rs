//! Products of quantized weights and quantized activations, with panels of 16 rows.

use super::activations::ActivationBlock;
use super::isa::{Isa, WithIsa};
use super::macro_kernel::{Store, multiply_all};
use super::panel::{PANEL_ROWS, PanelKernel, most_of_one_panel};
use super::weights::Matrix;
use crate::forward::cpu::threads::team::WorkPieces;

/// A product of quantized weights and activations `x`.
pub(super) struct ByteProduct<'a, 'p> {
    pub(super) pieces: &'a mut WorkPieces<'p>,
    pub(super) w: Matrix<'a>,
    pub(super) x: &'a [ActivationBlock],
    pub(super) rows: usize,
    pub(super) store: Store<'a>,
}

/// Weight rows of a piece of the work with so many rows of activations.
pub(super) const fn rows_of_piece(rows: usize) -> usize {
    // With more than six rows two panels may be multiplied together, which reuses what is loaded of the activations
    // (`most_of_one_panel`). With fewer, shares are finer.
    if rows > 6 { 2 * PANEL_ROWS } else { PANEL_ROWS }
}

impl WithIsa for ByteProduct<'_, '_> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { pieces, w, x, rows, store } = self;
        let piece = rows_of_piece(rows);
        if const { I::PANELS == 2 } && rows > most_of_one_panel::<I>(w) {
            let mut kernel = PanelKernel::<_, 2>::new(isa, w, x, rows);
            multiply_all::<{ 2 * PANEL_ROWS }, _>(&mut kernel, pieces, piece, w, rows, store);
        } else {
            let mut kernel = PanelKernel::<_, 1>::new(isa, w, x, rows);
            multiply_all::<PANEL_ROWS, _>(&mut kernel, pieces, piece, w, rows, store);
        }
    }
}
