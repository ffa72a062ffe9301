//! Columns of a panel, unpacked to bytes: for many rows of activations, so that the work is done once for all of them.

use std::marker::PhantomData;

use super::block::{BlockFormat, Factors, PANEL_ROWS, PanelBlock};
use super::micro_kernel::PanelWeights;
use crate::forward::cpu::kernels::activations::BLOCK;
use crate::forward::cpu::kernels::isa::{FourColumns, Isa};
use crate::forward::cpu::kernels::weights::ByteFormat;

/// Most columns that are multiplied at once: their bytes, of two panels, take a quarter of the smallest L1 caches.
pub(crate) const CHUNK: usize = 256;

/// Some columns of sixteen rows. What the bytes stand for is in [`ByteFormat`].
#[repr(C, align(64))]
pub(crate) struct Unpacked {
    /// Each two have the form of [`Isa::pair`].
    pub(super) bytes: [FourColumns; CHUNK / 4],
    /// Of each group of columns, 32 or 16.
    pub(super) scales: [[f32; PANEL_ROWS]; CHUNK / 16],
    pub(super) mins: [[f32; PANEL_ROWS]; CHUNK / 16],
}

impl Unpacked {
    pub(crate) fn new() -> Self {
        let groups = [[0.0; PANEL_ROWS]; CHUNK / 16];
        Self { bytes: [[0; 4 * PANEL_ROWS]; CHUNK / 4], scales: groups, mins: groups }
    }

    /// Unpacks `columns` columns from the blocks `panel`.
    #[inline(always)]
    pub(super) fn fill<I: Isa, F: BlockFormat>(&mut self, isa: I, _: F, panel: &[u8], columns: usize) {
        let (group, mut factors) = (F::FORMAT.group, Factors::new(isa));
        let groups = F::COLUMNS / group;
        for index in 0..columns / F::COLUMNS {
            let block = PanelBlock::new(panel, index, F::BYTES);
            F::factors(isa, block, &mut factors);
            let first = index * groups;
            let scales = &mut self.scales[first..][..groups];
            let mins = &mut self.mins[first..][..groups];
            for number in 0..groups {
                isa.store_f32(factors.scales[number], &mut scales[number]);
                if F::FORMAT.has_min {
                    isa.store_f32(factors.mins[number], &mut mins[number]);
                }
            }
            for number in 0..groups {
                let to = &mut self.bytes[(first + number) * group / 4..][..group / 4];
                for (i, [a, b]) in to.as_chunks_mut().0.iter_mut().enumerate() {
                    let four = F::four(isa, block, number, 2 * i);
                    let pair = isa.pair(four, F::four(isa, block, number, 2 * i + 1));
                    isa.store(pair[0], a);
                    isa.store(pair[1], b);
                }
            }
        }
    }
}

/// Unpacked weights with the [`ByteFormat`] of F.
#[derive(Clone, Copy)]
pub(super) struct UnpackedWeights<'a, F> {
    from: &'a Unpacked,
    format: PhantomData<F>,
}

impl<'a, F: BlockFormat> UnpackedWeights<'a, F> {
    #[inline(always)]
    pub(super) fn new(from: &'a Unpacked, _: F) -> Self {
        Self { from, format: PhantomData }
    }
}

/// [`BLOCK`] columns of unpacked weights.
#[derive(Clone, Copy)]
pub(super) struct UnpackedBlock<'a> {
    bytes: &'a [FourColumns; BLOCK / 4],
    scales: &'a [[f32; PANEL_ROWS]],
    mins: &'a [[f32; PANEL_ROWS]],
}

impl<'a, I: Isa, F: BlockFormat> PanelWeights<I> for UnpackedWeights<'a, F> {
    const FORMAT: ByteFormat = F::FORMAT;
    const COLUMNS: usize = BLOCK;
    const UNPACKED: bool = true;
    type Block = UnpackedBlock<'a>;

    #[inline(always)]
    fn block(self, index: usize) -> UnpackedBlock<'a> {
        let first = index * (BLOCK / F::FORMAT.group);
        UnpackedBlock {
            bytes: &self.from.bytes.as_chunks().0[index],
            scales: &self.from.scales[first..],
            mins: &self.from.mins[first..],
        }
    }

    #[inline(always)]
    fn factors(isa: I, block: UnpackedBlock<'a>, to: &mut Factors<I>) {
        for i in 0..BLOCK / F::FORMAT.group {
            to.scales[i] = isa.load_f32(&block.scales[i]);
            if F::FORMAT.has_min {
                to.mins[i] = isa.load_f32(&block.mins[i]);
            }
        }
    }

    #[inline(always)]
    fn four(isa: I, block: UnpackedBlock<'a>, group: usize, i: usize) -> I::Bytes {
        isa.load(&block.bytes[group * (F::FORMAT.group / 4) + i])
    }
}
