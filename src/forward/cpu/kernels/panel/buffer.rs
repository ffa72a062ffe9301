//! A panel, and the rows that it is packed from.

use crate::forward::cpu::kernels::isa::{FourColumns, Isa, WIDTH};

/// Weight rows of a panel.
pub(crate) const PANEL_ROWS: usize = WIDTH;
/// Most columns that are packed at once: they take a quarter of the smallest L1 caches.
pub(crate) const CHUNK: usize = 512;

/// Some columns of sixteen rows. What the bytes stand for is in `ByteFormat`.
#[repr(C, align(64))]
pub(crate) struct Panel {
    pub(super) bytes: [FourColumns; CHUNK / 4],
    /// Of each group of columns, 32 or 16.
    pub(super) scales: [[f32; PANEL_ROWS]; CHUNK / 16],
    pub(super) mins: [[f32; PANEL_ROWS]; CHUNK / 16],
}

impl Panel {
    pub(crate) fn new() -> Self {
        let groups = [[0.0; PANEL_ROWS]; CHUNK / 16];
        Self { bytes: [[0; 4 * PANEL_ROWS]; CHUNK / 4], scales: groups, mins: groups }
    }
}

/// The bytes of sixteen rows, which lie `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct SourceRows<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) stride: usize,
}

impl SourceRows<'_> {
    /// The same rows without their first `offset` bytes.
    #[inline(always)]
    pub(super) fn skip(self, offset: usize) -> Self {
        Self { bytes: &self.bytes[offset..], ..self }
    }

    /// Sixteen bytes of each row, from byte `offset` on.
    #[inline(always)]
    pub(super) fn sixteen<I: Isa>(self, isa: I, offset: usize) -> [I::Bytes; 4] {
        isa.transpose(&self.bytes[offset..], self.stride)
    }
}
