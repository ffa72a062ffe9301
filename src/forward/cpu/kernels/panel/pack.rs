//! Packing columns of a quantized matrix of any type.

use std::ops::Range;

use super::buffer::{CHUNK, PANEL_ROWS, Panel, SourceRows};
use crate::forward::cpu::kernels::isa::Isa;
use crate::forward::cpu::kernels::weights::Matrix;
use crate::gguf::TensorType;

impl Panel {
    /// Packs columns of the sixteen rows of `w` from `first` on. Rows behind the last one have any values. `columns` start
    /// at a multiple of [`CHUNK`]. `prefetch_next` is called after each 32 columns.
    #[inline(always)]
    pub(crate) fn pack<I: Isa>(
        &mut self,
        isa: I,
        w: Matrix<'_>,
        first: usize,
        columns: Range<usize>,
        prefetch_next: impl FnMut(),
    ) {
        /// Most bytes of a row's columns: those of q8_0.
        const MAX: usize = CHUNK / 32 * 34;
        let (bytes, stride) = w.bytes_from(first, columns.start);
        let mut padded;
        let rows = if w.rows - first >= PANEL_ROWS {
            SourceRows { bytes, stride }
        } else {
            padded = [[0; MAX]; PANEL_ROWS];
            let row_bytes = w.columns_bytes(first, columns.clone()).len();
            for (to, from) in padded.iter_mut().zip(bytes.chunks(stride)) {
                to[..row_bytes].copy_from_slice(&from[..row_bytes]);
            }
            SourceRows { bytes: padded.as_flattened(), stride: MAX }
        };
        let columns = columns.len();
        match w.ty {
            TensorType::Q8_0 => self.q8_0(isa, rows, columns, prefetch_next),
            TensorType::Q5_0 => self.q5_0(isa, rows, columns, prefetch_next),
            TensorType::Q5_1 => self.q5_1(isa, rows, columns, prefetch_next),
            TensorType::Q4_0 => self.q4_0(isa, rows, columns, prefetch_next),
            TensorType::Q4_1 => self.q4_1(isa, rows, columns, prefetch_next),
            TensorType::Iq4Nl => self.iq4_nl(isa, rows, columns, prefetch_next),
            TensorType::Q6K => self.q6_k(isa, rows, columns, prefetch_next),
            TensorType::Q5K => self.q5_k(isa, rows, columns, prefetch_next),
            TensorType::Q4K => self.q4_k(isa, rows, columns, prefetch_next),
            TensorType::Q3K => self.q3_k(isa, rows, columns, prefetch_next),
            TensorType::Q2K => self.q2_k(isa, rows, columns, prefetch_next),
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
                debug_assert!(false, "not quantized");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::isa::{Platform, WithIsa};
    use crate::forward::cpu::kernels::testing::random;
    use crate::forward::cpu::kernels::weights::ByteFormat;

    struct Pack<'a> {
        panel: &'a mut Panel,
        w: Matrix<'a>,
        first: usize,
        columns: Range<usize>,
    }

    impl WithIsa for Pack<'_> {
        fn run<I: Isa>(self, isa: I) {
            let mut calls = 0;
            self.panel.pack(isa, self.w, self.first, self.columns.clone(), || calls += 1);
            assert_eq!(calls, self.columns.len() / 32, "{}", self.w.ty.name());
        }
    }

    /// The weights of a row, and the tolerance of each.
    fn weights(panel: &Panel, format: ByteFormat, row: usize, columns: usize) -> Vec<[f32; 2]> {
        let weight = |column: usize| {
            let byte = panel.bytes[column / 4][4 * row + column % 4];
            assert!(byte <= format.max, "{format:?}: {byte}");
            let group = column / format.group;
            let product = (i32::from(byte) - format.offset) as f32 * panel.scales[group][row];
            let min = if format.has_min { panel.mins[group][row] } else { 0.0 };
            [product + min, 1e-6 * (product.abs() + min.abs())]
        };
        (0..columns).map(weight).collect()
    }

    #[test]
    fn unpacked_weights_match_ggml_for_any_bits() {
        for ty in TensorType::all().filter(|ty| ty.is_quantized()) {
            let format = ByteFormat::of(ty);
            // With and without a partial panel; with and without a partial chunk.
            for (rows, columns) in [(16, ty.block_len()), (37, 1024 + ty.block_len()), (15, 512)] {
                let packed = random(ty, rows, columns, rows as u64);
                let w = packed.matrix();
                let mut exact = vec![vec![0.0; columns]; rows];
                for (row, exact) in exact.iter_mut().enumerate() {
                    crate::ggml::dequantize(ty, w.rows_bytes(row..row + 1), exact).unwrap();
                }
                let mut finite = 0;
                for (platform, first) in
                    Platform::all().flat_map(|m| (0..rows).step_by(PANEL_ROWS).map(move |row| (m, row)))
                {
                    for column in (0..columns).step_by(CHUNK) {
                        let columns = column..columns.min(column + CHUNK);
                        let mut panel = Panel::new();
                        platform.run(Pack { panel: &mut panel, w, first, columns: columns.clone() });
                        for (row, exact) in exact[first..].iter().take(PANEL_ROWS).enumerate() {
                            let weights = weights(&panel, format, row, columns.len());
                            for ([own, off], exact) in weights.into_iter().zip(&exact[columns.clone()]) {
                                let same =
                                    (own - exact).abs() <= off || !own.is_finite() && !exact.is_finite();
                                assert!(same, "{} {platform:?}: {own} {exact}", ty.name());
                                finite += usize::from(exact.is_finite());
                            }
                        }
                    }
                }
                assert!(finite > rows * columns / 2, "{}", ty.name());
            }
        }
    }
}
