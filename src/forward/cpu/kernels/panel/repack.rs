//! Rows of a file that lie one after the other, brought into the form of a panel.

use super::block::PANEL_ROWS;
use super::unpacked::CHUNK;
use crate::forward::cpu::kernels::isa::{FourColumns, Isa};
use crate::forward::cpu::kernels::macro_kernel::Ahead;
use crate::forward::cpu::kernels::weights::Matrix;
use crate::gguf::TensorType;
use std::ops::Range;

/// Most bytes of a row's columns: those of q8_0.
const ROW_BYTES: usize = CHUNK / 32 * 34;

/// Columns of sixteen rows in the form of a panel.
#[repr(C, align(64))]
pub(crate) struct Repacked([u8; PANEL_ROWS * ROW_BYTES]);

impl Repacked {
    pub(crate) fn new() -> Self {
        Self([0; PANEL_ROWS * ROW_BYTES])
    }

    /// How often [`Repacked::fill`] advances `ahead` for a block of each row.
    pub(super) fn advances(ty: TensorType) -> usize {
        ty.block_bytes() / 16
    }

    /// The panel.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Brings columns of the sixteen rows of `w` from `first` on into the form of a panel. Rows behind the last one have any
    /// values. `columns` start at a multiple of [`CHUNK`].
    #[inline(always)]
    pub(crate) fn fill<I: Isa>(
        &mut self,
        isa: I,
        w: Matrix<'_>,
        first: usize,
        columns: Range<usize>,
        ahead: &mut Ahead<'_>,
    ) {
        let (bytes, stride) = w.bytes_from(first, columns.start);
        let mut padded;
        let (bytes, stride) = if w.rows - first >= PANEL_ROWS {
            (bytes, stride)
        } else {
            padded = [[0; ROW_BYTES]; PANEL_ROWS];
            let row_bytes = w.columns_bytes(first, columns.clone()).len();
            for (to, from) in padded.iter_mut().zip(bytes.chunks(stride)) {
                to[..row_bytes].copy_from_slice(&from[..row_bytes]);
            }
            (padded.as_flattened(), ROW_BYTES)
        };
        let (row_bytes, half) = (w.ty.block_bytes(), w.ty.half_field());
        for block in 0..columns.len() / w.ty.block_len() {
            let rows = &bytes[block * row_bytes..];
            let to = &mut self.0[block * row_bytes * PANEL_ROWS..][..row_bytes * PANEL_ROWS];
            let (to_half, to_fours) = to.split_at_mut(row_bytes % 4 * PANEL_ROWS);
            let mut start = 0;
            if let (Some(at), Some(to)) = (half, to_half.first_chunk_mut()) {
                // At the start or the end of a block of at least sixteen bytes.
                let halves = if at == 0 {
                    start = 2;
                    isa.transpose(rows, stride)[0]
                } else {
                    isa.shift_right(isa.transpose(&rows[row_bytes - 16..], stride)[3], 16)
                };
                isa.store_low_halves(halves, to);
            }
            fours(isa, &rows[start..], stride, to_fours.as_chunks_mut().0, ahead);
        }
    }
}

/// Four bytes of each of sixteen rows that lie `stride` apart, and the next four, and so on.
#[inline(always)]
fn fours<I: Isa>(isa: I, rows: &[u8], stride: usize, to: &mut [FourColumns], ahead: &mut Ahead<'_>) {
    let (to, rest) = to.as_chunks_mut::<4>();
    let mut at = 0;
    for to in to {
        ahead.advance();
        let bytes = isa.transpose(&rows[at..], stride);
        for i in 0..4 {
            isa.store(bytes[i], &mut to[i]);
        }
        at += 16;
    }
    for to in rest {
        for (to, row) in to.as_chunks_mut::<4>().0.iter_mut().zip(rows[at..].chunks(stride)) {
            to.copy_from_slice(&row[..4]);
        }
        at += 4;
    }
}
