//! The micro-kernel: one or more panels times some rows of quantized activations.

use std::marker::PhantomData;

use super::block::{BlockFormat, Factors, PANEL_ROWS, PanelBlock};
use crate::forward::cpu::kernels::activations::{ActivationBlock, BLOCK};
use crate::forward::cpu::kernels::isa::{Columns, Isa, Task};
use crate::forward::cpu::kernels::macro_kernel::Ahead;
use crate::forward::cpu::kernels::weights::ByteFormat;

/// Some columns of a panel, block by block.
pub(super) trait PanelWeights<I: Isa>: Copy {
    const FORMAT: ByteFormat;
    /// Columns of a block.
    const COLUMNS: usize;
    /// As [`BlockFormat::SHARED`].
    const SHARED: bool = false;
    /// Whether each two fours of columns have the form of [`Isa::pair`].
    const UNPACKED: bool = false;
    type Block: Copy;

    fn block(self, index: usize) -> Self::Block;

    /// Scales of a block's groups, and mins if they have any.
    fn factors(isa: I, block: Self::Block, to: &mut Factors<I>);

    /// The bytes of the four columns `i` of a group.
    fn four(isa: I, block: Self::Block, group: usize, i: usize) -> I::Bytes;
}

/// Weights in the panel's own form.
#[derive(Clone, Copy)]
pub(super) struct PackedWeights<'a, F> {
    panel: &'a [u8],
    format: PhantomData<F>,
}

impl<'a, F: BlockFormat> PackedWeights<'a, F> {
    #[inline(always)]
    pub(super) fn new(panel: &'a [u8], _: F) -> Self {
        Self { panel, format: PhantomData }
    }
}

impl<'a, I: Isa, F: BlockFormat> PanelWeights<I> for PackedWeights<'a, F> {
    const FORMAT: ByteFormat = F::FORMAT;
    const COLUMNS: usize = F::COLUMNS;
    const SHARED: bool = F::SHARED;
    type Block = PanelBlock<'a>;

    #[inline(always)]
    fn block(self, index: usize) -> PanelBlock<'a> {
        PanelBlock::new(self.panel, index, F::BYTES)
    }

    #[inline(always)]
    fn factors(isa: I, block: PanelBlock<'a>, to: &mut Factors<I>) {
        F::factors(isa, block, to);
    }

    #[inline(always)]
    fn four(isa: I, block: PanelBlock<'a>, group: usize, i: usize) -> I::Bytes {
        F::four(isa, block, group, i)
    }
}

/// A group of columns of P panels and M rows of activations.
struct Group<'a, I: Isa, W: PanelWeights<I>, const M: usize, const P: usize> {
    isa: I,
    blocks: &'a [W::Block; P],
    x: &'a [&'a ActivationBlock; M],
    /// Which of the block.
    number: usize,
    /// Where it begins in `x`, in fours of columns.
    first: usize,
}

impl<I: Isa, W: PanelWeights<I>, const M: usize, const P: usize> Columns<I> for Group<'_, I, W, M, P> {
    #[inline(always)]
    fn weights(&self, panel: usize, four: usize) -> I::Bytes {
        W::four(self.isa, self.blocks[panel], self.number, four)
    }

    #[inline(always)]
    fn activations(&self, row: usize, four: usize) -> [i8; 4] {
        self.x[row].values[self.first + four]
    }
}

/// Adds the products of columns of P panels with as many columns of M rows of activations to `sums`: for each row those
/// of the first panel, then those of the next.
pub(super) struct Multiply<'a, 'b, W, const M: usize, const P: usize> {
    pub(super) weights: [W; P],
    pub(super) x: [&'a [ActivationBlock]; M],
    pub(super) sums: &'a mut [[[f32; PANEL_ROWS]; P]; M],
    pub(super) ahead: &'a mut Ahead<'b>,
}

impl<I: Isa, W: PanelWeights<I>, const M: usize, const P: usize> Task<I> for Multiply<'_, '_, W, M, P> {
    #[inline(always)]
    fn run(self, isa: I) {
        let Self { weights, mut x, sums, ahead } = self;
        const { assert!(W::COLUMNS.is_multiple_of(BLOCK) && BLOCK.is_multiple_of(W::FORMAT.group)) };
        const { assert!(!W::SHARED || W::COLUMNS.is_multiple_of(2 * BLOCK)) };
        let mut totals = [[isa.splat(0.0); P]; M];
        for m in 0..M {
            for p in 0..P {
                totals[m][p] = isa.load_f32(&sums[m][p]);
            }
        }
        // One length for all lets the compiler see that every index is in bounds.
        let blocks = x[0].len();
        for x in &mut x {
            *x = &x[..blocks];
        }
        let (per_block, per_activations, fours) =
            (W::COLUMNS / BLOCK, BLOCK / W::FORMAT.group, W::FORMAT.group / 4);
        let mut factors = [Factors::new(isa); P];
        for index in 0..blocks / per_block {
            let mut blocks = [weights[0].block(index); P];
            for p in 0..P {
                blocks[p] = weights[p].block(index);
                W::factors(isa, blocks[p], &mut factors[p]);
            }
            // The products of one block of activations.
            macro_rules! activations {
                ($part:expr) => {{
                    let part = $part;
                    ahead.advance();
                    let mut at = [&x[0][0]; M];
                    for m in 0..M {
                        at[m] = &x[m][index * per_block + part];
                    }
                    for half in 0..per_activations {
                        let group = part * per_activations + half;
                        let mut start = [0; M];
                        if W::FORMAT.offset != 0 {
                            for m in 0..M {
                                start[m] = at[m].zero_points[half];
                            }
                        }
                        let columns = Group::<I, W, M, P> {
                            isa,
                            blocks: &blocks,
                            x: &at,
                            number: group,
                            first: half * fours,
                        };
                        let products = if const { W::UNPACKED } {
                            isa.products_of_pairs::<M, P>(W::FORMAT.range, fours, &columns, start)
                        } else {
                            isa.products::<M, P>(W::FORMAT.range, fours, &columns, start)
                        };
                        for m in 0..M {
                            let scale = isa.splat(at[m].scale);
                            for p in 0..P {
                                let scale = isa.mul(factors[p].scales[group], scale);
                                totals[m][p] = isa.mul_add(isa.to_f32(products[m][p]), scale, totals[m][p]);
                            }
                        }
                        if W::FORMAT.has_min {
                            for m in 0..M {
                                let sum = isa.splat(at[m].sums[half]);
                                for p in 0..P {
                                    totals[m][p] = isa.mul_add(factors[p].mins[group], sum, totals[m][p]);
                                }
                            }
                        }
                    }
                }};
            }
            if const { W::SHARED } {
                for pair in 0..per_block / 2 {
                    activations!(2 * pair);
                    activations!(2 * pair + 1);
                }
            } else {
                for part in 0..per_block {
                    activations!(part);
                }
            }
        }
        for m in 0..M {
            for p in 0..P {
                isa.store_f32(totals[m][p], &mut sums[m][p]);
            }
        }
    }
}
