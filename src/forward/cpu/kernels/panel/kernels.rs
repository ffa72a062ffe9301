//! Which form of a panel is multiplied, and with how many rows together.

use std::ops::Range;

use super::block::PANEL_ROWS;
use super::micro_kernel::{Multiply, PackedWeights, PanelWeights};
use super::repack::Repacked;
use super::unpacked::{CHUNK, Unpacked, UnpackedWeights};
use super::{blocks, super_blocks};
use crate::forward::cpu::kernels::activations::{ActivationBlock, BLOCK};
use crate::forward::cpu::kernels::isa::Isa;
use crate::forward::cpu::kernels::macro_kernel::{Ahead, MicroKernel};
use crate::forward::cpu::kernels::weights::{ByteFormat, Matrix};
use crate::gguf::{Layout, TensorType};
use crate::simd::is_behind_in_order;

/// Calls `$do!(format)` with the [`BlockFormat`] of the quantized type `$ty`.
macro_rules! with_format {
    ($ty:expr, $do:ident) => {
        match $ty {
            TensorType::Q8_0 => $do!(blocks::Q8_0),
            TensorType::Q5_0 => $do!(blocks::Q5_0),
            TensorType::Q5_1 => $do!(blocks::Q5_1),
            TensorType::Q4_0 => $do!(blocks::Q4_0),
            TensorType::Q4_1 => $do!(blocks::Q4_1),
            TensorType::Iq4Nl => $do!(blocks::Iq4Nl),
            TensorType::Q6K => $do!(super_blocks::Q6K),
            TensorType::Q5K => $do!(super_blocks::Q5K),
            TensorType::Q4K => $do!(super_blocks::Q4K),
            TensorType::Q3K => $do!(super_blocks::Q3K),
            TensorType::Q2K => $do!(super_blocks::Q2K),
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => debug_assert!(false, "not quantized"),
        }
    };
}

#[cfg(test)]
pub(super) use with_format;

/// Multiplies P panels of a quantized matrix together.
pub(crate) struct PanelKernel<'a, I, const P: usize> {
    isa: I,
    w: Matrix<'a>,
    x: &'a [ActivationBlock],
    /// The columns of the panels at hand, where they lie in the file so.
    panels: [&'a [u8]; P],
    /// Otherwise these columns of one of them.
    repacked: Option<Repacked>,
    /// With many rows of activations: their columns as bytes.
    unpacked: Option<[Unpacked; P]>,
    /// How many panels are at hand.
    count: usize,
    /// Whether all rows of activations are multiplied together.
    few: bool,
}

/// Most rows of activations that one panel is multiplied with, as it is: with more rows [`Isa::PANELS`] are multiplied together.
#[inline(always)]
pub(crate) fn most_of_one_panel<I: Isa>(w: Matrix<'_>) -> usize {
    // Bytes need no unpacking, so that seven to ten rows are faster with two panels: by up to 15 % from memory, on a Zen 5.
    let most = most_together::<I>(ByteFormat::of(w.ty).group);
    if w.ty == TensorType::Q8_0 && w.layout == Layout::Panels { most.min(6) } else { most }
}

/// Most rows of activations for which nothing is prefetched, where panels are read as they lie: they are read nearly in order, and so
/// fast that the processor's own prefetching is ahead, where it is. (With more rows it falls behind. On a Zen 4 one row of q4_k from
/// memory takes 1.2 times as long with prefetch instructions, and one of q6_k, whose parts of a block are read by turns, a quarter; on
/// an Intel Xeon one of q4_k takes 1.4 times as long without.)
fn most_read_in_order(ty: TensorType) -> usize {
    if is_behind_in_order() {
        return 0;
    }
    match ty {
        TensorType::Q6K => 0,
        TensorType::Q5K | TensorType::Q3K | TensorType::Q2K => 3,
        _ => 4,
    }
}

/// Most rows of activations that are multiplied together with one panel whose scales are for groups of so many columns.
#[inline(always)]
const fn most_together<I: Isa>(group: usize) -> usize {
    if group == 16 { I::ROWS_OF_SIXTEENS } else { I::ROWS }
}

impl<'a, I: Isa, const P: usize> PanelKernel<'a, I, P> {
    /// For products with `rows` rows of activations `x`; P is [`Isa::PANELS`] if they are more than [`most_of_one_panel`], or
    /// else 1.
    #[inline(always)]
    pub(crate) fn new(isa: I, w: Matrix<'a>, x: &'a [ActivationBlock], rows: usize) -> Self {
        let in_rows = w.layout == Layout::Plain;
        let few = rows <= most_of_one_panel::<I>(w);
        // Bytes need no unpacking, unless they are wanted in another form.
        let unpack = !few && (in_rows || w.ty != TensorType::Q8_0 || I::PAIRS);
        Self {
            isa,
            w,
            x,
            panels: [&[]; P],
            repacked: in_rows.then(Repacked::new),
            unpacked: unpack.then(|| std::array::from_fn(|_| Unpacked::new())),
            count: 0,
            few,
        }
    }

    /// Whether few rows are multiplied with the panels as they lie in the file.
    fn is_direct(&self) -> bool {
        self.few && self.repacked.is_none()
    }

    /// Whether repacking takes longer than the products: the weights that come next are prefetched where the time is spent.
    fn is_mostly_repacking(&self) -> bool {
        self.few && self.repacked.is_some()
    }

    /// Multiplies rows of activations from `first` on: as many together as there are registers for their sums, and fewer at
    /// the end.
    #[inline(always)]
    fn multiply_rows<W: PanelWeights<I>>(
        &self,
        weights: [W; P],
        first: usize,
        columns: Range<usize>,
        sums: &mut [[[f32; PANEL_ROWS]; P]],
        ahead: &mut Ahead<'_>,
    ) {
        let row = |i: usize| {
            &self.x[((first + i) * self.w.columns + columns.start) / BLOCK..][..columns.len() / BLOCK]
        };
        let (mut sums, mut i) = (sums, 0);
        macro_rules! together {
            ($($($m:literal)* if $is_used:expr;)*) => {$($(
                if const { $is_used } {
                    let (some, rest) = sums.as_chunks_mut::<$m>();
                    for sums in some {
                        let mut x = [row(i); $m];
                        for k in 0..$m {
                            x[k] = row(i + k);
                        }
                        self.isa.call(Multiply { weights, x, sums, ahead });
                        i += $m;
                    }
                    sums = rest;
                }
            )*)*};
        }
        together! {
            10 9 8 7 if P == 1 && most_together::<I>(W::FORMAT.group) >= 10;
            6 5 if P == 2 || most_together::<I>(W::FORMAT.group) >= 6;
            4 3 if most_together::<I>(W::FORMAT.group) >= 4;
            2 if most_together::<I>(W::FORMAT.group) >= 2;
            1 if true;
        }
        debug_assert!(sums.is_empty());
    }
}

impl<I: Isa, const P: usize, const G: usize> MicroKernel<G> for PanelKernel<'_, I, P> {
    fn together(&self) -> usize {
        if P == 2 { 6 } else { most_together::<I>(ByteFormat::of(self.w.ty).group) }
    }

    fn columns(&self) -> usize {
        // A few rows are multiplied together, so that they are read once for each panel: chunks of columns would save nothing.
        // (Not even where the rows are more than the L1 cache holds: on a Zen 5 a weight takes no longer with ten rows of 8192
        // columns than of 1024.)
        if self.is_direct() { self.w.columns } else { CHUNK }
    }

    fn advances(&self, rows: usize, in_order: bool) -> usize {
        if in_order && self.is_direct() && rows <= most_read_in_order(self.w.ty) {
            0
        } else if self.is_mostly_repacking() {
            self.w.columns / self.w.ty.block_len() * Repacked::advances(self.w.ty)
        } else {
            // What is left of the rows is multiplied together, too.
            self.w.columns / BLOCK * rows.div_ceil(<Self as MicroKernel<G>>::together(self))
        }
    }

    #[inline(always)]
    fn pack(&mut self, rows: Range<usize>, columns: Range<usize>, ahead: &mut Ahead<'_>) {
        self.count = 0;
        let mut none = Ahead::none();
        let ahead = if self.is_mostly_repacking() { ahead } else { &mut none };
        for (p, first) in rows.step_by(PANEL_ROWS).enumerate() {
            let panel = match &mut self.repacked {
                Some(repacked) => {
                    repacked.fill(self.isa, self.w, first, columns.clone(), ahead);
                    repacked.bytes()
                }
                None => {
                    self.panels[p] = self.w.panel_bytes(first, columns.clone());
                    self.panels[p]
                }
            };
            if const { P == I::PANELS }
                && let Some(unpacked) = &mut self.unpacked
            {
                macro_rules! fill {
                    ($format:path) => {
                        unpacked[p].fill(self.isa, $format, panel, columns.len())
                    };
                }
                with_format!(self.w.ty, fill);
            }
            self.count += 1;
        }
    }

    #[inline(always)]
    fn multiply(&self, first: usize, columns: Range<usize>, sums: &mut [[f32; G]], ahead: &mut Ahead<'_>) {
        const { assert!(G == P * PANEL_ROWS) };
        let mut none = Ahead::none();
        let ahead = if self.is_mostly_repacking() { &mut none } else { ahead };
        let sums = sums.as_flattened_mut().as_chunks_mut().0.as_chunks_mut().0;
        // Where a panel is missing at the end of the matrix, its sums have any values.
        let panel = |p: usize| p.min(self.count.saturating_sub(1));
        if const { P == I::PANELS }
            && let Some(unpacked) = &self.unpacked
        {
            macro_rules! unpacked {
                ($format:path) => {{
                    let weights = |p| UnpackedWeights::new(&unpacked[panel(p)], $format);
                    self.multiply_rows(std::array::from_fn(weights), first, columns, sums, ahead);
                }};
            }
            // One kernel per `ByteFormat`.
            match self.w.ty {
                TensorType::Q4_1 | TensorType::Q4K => unpacked!(super_blocks::Q4K),
                TensorType::Q5_1 | TensorType::Q5K => unpacked!(super_blocks::Q5K),
                TensorType::Q6K => unpacked!(super_blocks::Q6K),
                TensorType::Q3K => unpacked!(super_blocks::Q3K),
                TensorType::Q2K => unpacked!(super_blocks::Q2K),
                TensorType::Q8_0 | TensorType::Q5_0 | TensorType::Q4_0 | TensorType::Iq4Nl => {
                    unpacked!(blocks::Q8_0);
                }
                TensorType::F32 | TensorType::F16 | TensorType::Bf16 => debug_assert!(false, "not quantized"),
            }
            return;
        }
        let bytes = |p: usize| match &self.repacked {
            Some(repacked) => repacked.bytes(),
            None => self.panels[panel(p)],
        };
        macro_rules! packed {
            ($format:path) => {
                self.multiply_rows(
                    std::array::from_fn(|p| PackedWeights::new(bytes(p), $format)),
                    first,
                    columns,
                    sums,
                    ahead,
                )
            };
        }
        if const { P == 1 } {
            with_format!(self.w.ty, packed);
        } else {
            packed!(blocks::Q8_0);
        }
    }
}
