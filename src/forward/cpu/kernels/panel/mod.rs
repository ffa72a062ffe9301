//! Strips of a quantized matrix, ready to be multiplied: sixteen rows side by side, their weights as bytes.
//!
//! * `blocks`: the types that pack 32 numbers together. `super_blocks`: those that pack 256. `products`: strips and rows.

mod blocks;
mod products;
mod super_blocks;

use std::ops::Range;

use crate::forward::cpu::kernels::isa::{FourColumns, Isa, STRIP};
use crate::forward::cpu::kernels::weights::Matrix;
use crate::gguf::TensorType;

/// Most columns that are unpacked at once: a quarter of the smallest first-level caches.
pub(crate) const CHUNK: usize = 512;

/// How the bytes of a strip make weights. The number in a name is the largest byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// (byte - 128) scale, with a scale for 32 columns.
    Signed,
    /// byte scale + least, with both for 32 columns.
    Least15,
    /// The same.
    Least31,
    /// (byte - 32) scale, with a scale for 16 columns.
    Sixteen63,
    /// (byte - 4) scale, with a scale for 16 columns.
    Sixteen7,
    /// byte scale + least, with both for 16 columns.
    SixteenLeast3,
}

impl Kind {
    /// Of weights of a quantized type.
    pub(crate) fn of(ty: TensorType) -> Self {
        match ty {
            TensorType::Q4_1 | TensorType::Q4K => Self::Least15,
            TensorType::Q5_1 | TensorType::Q5K => Self::Least31,
            TensorType::Q6K => Self::Sixteen63,
            TensorType::Q3K => Self::Sixteen7,
            TensorType::Q2K => Self::SixteenLeast3,
            _ => Self::Signed,
        }
    }

    /// Whether scales are those of 16 columns, not of 32.
    pub(crate) fn sixteen(self) -> bool {
        matches!(self, Self::Sixteen63 | Self::Sixteen7 | Self::SixteenLeast3)
    }

    /// What a byte is more than the number that it stands for.
    pub(crate) fn offset(self) -> i32 {
        match self {
            Self::Signed => 128,
            Self::Sixteen63 => 32,
            Self::Sixteen7 => 4,
            Self::Least15 | Self::Least31 | Self::SixteenLeast3 => 0,
        }
    }
}

/// Some columns of sixteen rows.
#[repr(C, align(64))]
pub(crate) struct Strip {
    bytes: [FourColumns; CHUNK / 4],
    /// Of each 32 columns, or of each 16.
    scales: [[f32; STRIP]; CHUNK / 16],
    leasts: [[f32; STRIP]; CHUNK / 16],
}

/// Blocks of sixteen rows that lie `stride` bytes apart.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl Rows<'_> {
    /// The same rows without their first bytes.
    #[inline(always)]
    fn from(self, at: usize) -> Self {
        Self { bytes: &self.bytes[at..], ..self }
    }

    /// Sixteen bytes of each row, from byte `at` on.
    #[inline(always)]
    fn sixteen<I: Isa>(self, isa: I, at: usize) -> [I::Bytes; 4] {
        isa.transpose(&self.bytes[at..], self.stride)
    }
}

impl Strip {
    pub(crate) fn new() -> Self {
        let parts = [[0.0; STRIP]; CHUNK / 16];
        Self { bytes: [[0; 4 * STRIP]; CHUNK / 4], scales: parts, leasts: parts }
    }

    /// Unpacks columns of the rows from `first` on. Rows behind the last one are anything. `columns` begin at a
    /// chunk's beginning. `meanwhile` is called after each 32 columns.
    #[inline(always)]
    pub(crate) fn unpack<I: Isa>(
        &mut self,
        isa: I,
        w: Matrix<'_>,
        first: usize,
        columns: Range<usize>,
        meanwhile: impl FnMut(),
    ) {
        /// Bytes of a row's columns at most: those of q8_0.
        const MOST: usize = CHUNK / 32 * 34;
        let (bytes, stride) = w.from(first, columns.start);
        let mut padded;
        let rows = if w.rows - first >= STRIP {
            Rows { bytes, stride }
        } else {
            padded = [[0; MOST]; STRIP];
            let row_bytes = w.columns_bytes(first, columns.clone()).len();
            for (to, from) in padded.iter_mut().zip(bytes.chunks(stride)) {
                to[..row_bytes].copy_from_slice(&from[..row_bytes]);
            }
            Rows { bytes: padded.as_flattened(), stride: MOST }
        };
        let columns = columns.len();
        match w.ty {
            TensorType::Q8_0 => self.q8_0(isa, rows, columns, meanwhile),
            TensorType::Q5_0 => self.q5_0(isa, rows, columns, meanwhile),
            TensorType::Q5_1 => self.q5_1(isa, rows, columns, meanwhile),
            TensorType::Q4_0 => self.q4_0(isa, rows, columns, meanwhile),
            TensorType::Q4_1 => self.q4_1(isa, rows, columns, meanwhile),
            TensorType::Iq4Nl => self.iq4_nl(isa, rows, columns, meanwhile),
            TensorType::Q6K => self.q6_k(isa, rows, columns, meanwhile),
            TensorType::Q5K => self.q5_k(isa, rows, columns, meanwhile),
            TensorType::Q4K => self.q4_k(isa, rows, columns, meanwhile),
            TensorType::Q3K => self.q3_k(isa, rows, columns, meanwhile),
            TensorType::Q2K => self.q2_k(isa, rows, columns, meanwhile),
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
                debug_assert!(false, "floats are multiplied as floats");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::isa::{Machine, Task};
    use crate::forward::cpu::kernels::testing::random;

    struct Unpack<'a> {
        strip: &'a mut Strip,
        w: Matrix<'a>,
        first: usize,
        columns: Range<usize>,
    }

    impl Task for Unpack<'_> {
        fn run<I: Isa>(self, isa: I) {
            let mut moments = 0;
            self.strip.unpack(isa, self.w, self.first, self.columns.clone(), || moments += 1);
            assert_eq!(moments, self.columns.len() / 32, "{}", self.w.ty.name());
        }
    }

    /// The weights of a row of a strip, and what each may be off by.
    fn weights(strip: &Strip, kind: Kind, row: usize, columns: usize) -> Vec<[f32; 2]> {
        let most = match kind {
            Kind::Signed => 255,
            Kind::Least15 => 15,
            Kind::Least31 => 31,
            Kind::Sixteen63 => 63,
            Kind::Sixteen7 => 7,
            Kind::SixteenLeast3 => 3,
        };
        let weight = |column: usize| {
            let byte = strip.bytes[column / 4][4 * row + column % 4];
            assert!(byte <= most, "{kind:?}: {byte}");
            let part = column / if kind.sixteen() { 16 } else { 32 };
            let product = (i32::from(byte) - kind.offset()) as f32 * strip.scales[part][row];
            let least = if kind.offset() == 0 { strip.leasts[part][row] } else { 0.0 };
            [product + least, 1e-6 * (product.abs() + least.abs())]
        };
        (0..columns).map(weight).collect()
    }

    #[test]
    fn any_bits_are_the_weights_that_ggml_makes_of_them() {
        for ty in TensorType::all().filter(|ty| ty.is_quantized()) {
            let kind = Kind::of(ty);
            // Whole strips and the rest of one; whole chunks and the rest of one.
            for (rows, columns) in [(16, ty.block_len()), (37, 1024 + ty.block_len()), (15, 512)] {
                let packed = random(ty, rows, columns, rows as u64);
                let w = packed.matrix();
                let mut exact = vec![vec![0.0; columns]; rows];
                for (row, exact) in exact.iter_mut().enumerate() {
                    crate::ggml::dequantize(ty, w.rows_bytes(row..row + 1), exact).unwrap();
                }
                let mut finite = 0;
                for (machine, first) in
                    Machine::all().flat_map(|m| (0..rows).step_by(STRIP).map(move |row| (m, row)))
                {
                    for column in (0..columns).step_by(CHUNK) {
                        let columns = column..columns.min(column + CHUNK);
                        let mut strip = Strip::new();
                        machine.run(Unpack { strip: &mut strip, w, first, columns: columns.clone() });
                        for (row, exact) in exact[first..].iter().take(STRIP).enumerate() {
                            let weights = weights(&strip, kind, row, columns.len());
                            for ([own, off], exact) in weights.into_iter().zip(&exact[columns.clone()]) {
                                let same =
                                    (own - exact).abs() <= off || !own.is_finite() && !exact.is_finite();
                                assert!(same, "{} {machine:?}: {own} {exact}", ty.name());
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
