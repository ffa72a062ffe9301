//! The bytes of sixteen rows' blocks, as they lie in a panel (`gguf/panels.rs`).

use half::f16;

use crate::forward::cpu::kernels::isa::{FourColumns, Isa, WIDTH};
use crate::forward::cpu::kernels::weights::ByteFormat;

/// Weight rows of a panel: those of the file's, each in its lane of a vector.
pub(crate) const PANEL_ROWS: usize = crate::gguf::PANEL_ROWS;
const _: () = assert!(PANEL_ROWS == WIDTH);

/// One block of each of sixteen rows.
#[derive(Clone, Copy)]
pub(crate) struct PanelBlock<'a> {
    /// The two bytes of each row that are no part of `fours`; all types that have such have their scale there.
    half: &'a [u8; 2 * PANEL_ROWS],
    /// The other bytes, four of each row together.
    fours: &'a [FourColumns],
}

impl<'a> PanelBlock<'a> {
    /// Block `index` of a panel whose blocks have `bytes` bytes per row.
    #[inline(always)]
    pub(super) fn new(panel: &'a [u8], index: usize, bytes: usize) -> Self {
        let block = &panel[index * bytes * PANEL_ROWS..][..bytes * PANEL_ROWS];
        let (half, fours) = block.split_at(bytes % 4 * PANEL_ROWS);
        Self { half: half.as_chunks().0.first().unwrap_or(&[0; 32]), fours: fours.as_chunks().0 }
    }

    /// The scales in [`PanelBlock::half`].
    #[inline(always)]
    pub(super) fn scales(self) -> [f16; PANEL_ROWS] {
        let mut scales = [f16::ZERO; PANEL_ROWS];
        for row in 0..PANEL_ROWS {
            scales[row] = f16::from_le_bytes([self.half[2 * row], self.half[2 * row + 1]]);
        }
        scales
    }

    /// N times four bytes of each row, from `first` on.
    #[inline(always)]
    pub(super) fn fours<const N: usize>(self, first: usize) -> &'a [FourColumns; N] {
        &self.fours[first..].as_chunks().0[0]
    }
}

/// What the numbers of a block's groups are multiplied with, and what is added.
#[derive(Clone, Copy)]
pub(super) struct Factors<I: Isa> {
    pub(super) scales: [I::F32; MAX_GROUPS],
    pub(super) mins: [I::F32; MAX_GROUPS],
}

/// Most groups of a block.
const MAX_GROUPS: usize = 16;

impl<I: Isa> Factors<I> {
    #[inline(always)]
    pub(super) fn new(isa: I) -> Self {
        Self { scales: [isa.splat(0.0); MAX_GROUPS], mins: [isa.splat(0.0); MAX_GROUPS] }
    }
}

/// How a type's blocks become bytes, scales and mins.
pub(super) trait BlockFormat: Copy {
    const FORMAT: ByteFormat;
    /// Numbers of a block.
    const COLUMNS: usize;
    /// Bytes of a row's block.
    const BYTES: usize;
    /// Whether an even group of 32 and the next share bytes, so that both are best taken in one turn of the loop.
    const SHARED: bool = false;

    /// Scales of a block's groups, and mins if they have any.
    fn factors<I: Isa>(isa: I, block: PanelBlock<'_>, to: &mut Factors<I>);

    /// The bytes of the four columns `i` of a group. (No closure: see [`Columns`](crate::forward::cpu::kernels::isa::Columns).)
    fn four<I: Isa>(isa: I, block: PanelBlock<'_>, group: usize, i: usize) -> I::Bytes;
}
