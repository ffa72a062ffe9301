//! Unpacked weights against ggml's.

use std::ops::Range;

use super::block::PANEL_ROWS;
use super::kernels::with_format;
use super::repack::Repacked;
use super::unpacked::{CHUNK, Unpacked};
use super::{blocks, super_blocks};
use crate::forward::cpu::kernels::isa::{ByteRange, Isa, Platform, WithIsa};
use crate::forward::cpu::kernels::macro_kernel::Ahead;
use crate::forward::cpu::kernels::testing::random;
use crate::forward::cpu::kernels::weights::{ByteFormat, Matrix};
use crate::gguf::{Layout, TensorType};

/// Unpacks columns of a panel.
struct Unpack<'a> {
    to: &'a mut Unpacked,
    w: Matrix<'a>,
    first: usize,
    columns: Range<usize>,
}

impl WithIsa for Unpack<'_> {
    fn run<I: Isa>(self, isa: I) {
        let Self { to, w, first, columns } = self;
        let mut repacked = Repacked::new();
        let panel = match w.layout {
            Layout::Plain => {
                repacked.fill(isa, w, first, columns.clone(), &mut Ahead::none());
                repacked.bytes()
            }
            Layout::Panels => w.panel_bytes(first, columns.clone()),
        };
        macro_rules! fill {
            ($format:path) => {
                to.fill(isa, $format, panel, columns.len())
            };
        }
        with_format!(w.ty, fill);
    }
}

/// Columns of a row that lie together in unpacked bytes.
struct Together<'a>(&'a mut usize);

impl WithIsa for Together<'_> {
    fn run<I: Isa>(self, _: I) {
        *self.0 = if I::PAIRS { 8 } else { 4 };
    }
}

/// The weights of a row, and the tolerance of each.
fn weights(
    unpacked: &Unpacked,
    together: usize,
    format: ByteFormat,
    row: usize,
    columns: usize,
) -> Vec<[f32; 2]> {
    let bytes = unpacked.bytes.as_flattened();
    let weight = |column: usize| {
        let byte = bytes[(column / together * PANEL_ROWS + row) * together + column % together];
        let number = match format.range {
            ByteRange::Signed => i32::from(byte as i8),
            ByteRange::Small(max) => {
                assert!(byte <= max, "{format:?}: {byte}");
                i32::from(byte) - format.offset
            }
        };
        let group = column / format.group;
        let product = number as f32 * unpacked.scales[group][row];
        let min = if format.has_min { unpacked.mins[group][row] } else { 0.0 };
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
            let plain = random(ty, rows, columns, rows as u64);
            let panels = plain.in_panels();
            let mut exact = vec![vec![0.0; columns]; rows];
            for (row, exact) in exact.iter_mut().enumerate() {
                crate::ggml::dequantize(ty, plain.matrix().rows_bytes(row..row + 1), exact).unwrap();
            }
            let mut finite = 0;
            for (w, platform) in [plain.matrix(), panels.matrix()]
                .into_iter()
                .flat_map(|w| Platform::all().map(move |m| (w, m)))
            {
                for (first, column) in (0..rows)
                    .step_by(PANEL_ROWS)
                    .flat_map(|row| (0..columns).step_by(CHUNK).map(move |c| (row, c)))
                {
                    let columns = column..columns.min(column + CHUNK);
                    let mut unpacked = Unpacked::new();
                    let mut together = 0;
                    platform.run(Together(&mut together));
                    platform.run(Unpack { to: &mut unpacked, w, first, columns: columns.clone() });
                    for (row, exact) in exact[first..].iter().take(PANEL_ROWS).enumerate() {
                        let weights = weights(&unpacked, together, format, row, columns.len());
                        for ([own, off], exact) in weights.into_iter().zip(&exact[columns.clone()]) {
                            let same = (own - exact).abs() <= off || !own.is_finite() && !exact.is_finite();
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
