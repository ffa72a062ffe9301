//! Weights in the form in which they lie in the file, and how to dequantize them.

use std::ops::Range;

use half::f16;

use super::isa::ByteRange;
use crate::gguf::{Layout, PANEL_ROWS, TensorInfo, TensorType, copy_block};
use crate::simd::{F32x8, LANES, wide};

/// How the bytes of quantized weights stand for the weights: (byte - offset) * scale + min, with a scale and a min for each
/// group of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteFormat {
    pub(crate) range: ByteRange,
    /// Columns of a group: 32 or 16.
    pub(crate) group: usize,
    /// The byte of a weight of 0, if bytes are unsigned. Signed ones may be taken as unsigned ones, 128 more than they are: it
    /// is 128 for them. It is 0 if the groups have a min.
    pub(crate) offset: i32,
    /// Whether the groups have a min (ggml: dmin). It is 0 otherwise.
    pub(crate) has_min: bool,
}

impl ByteFormat {
    /// Signed bytes in groups of 32.
    pub(crate) const SIGNED: Self = Self { range: ByteRange::Signed, group: 32, offset: 128, has_min: false };

    /// Bytes up to `max` in groups with a min.
    pub(crate) const fn small(max: u8, group: usize) -> Self {
        Self { range: ByteRange::Small(max), group, offset: 0, has_min: true }
    }

    /// Bytes up to `max`, of which `offset` is 0, in groups of 16.
    pub(crate) const fn with_offset(max: u8, offset: i32) -> Self {
        Self { range: ByteRange::Small(max), group: 16, offset, has_min: false }
    }

    /// The format of a quantized type.
    pub(crate) fn of(ty: TensorType) -> Self {
        match ty {
            TensorType::Q4_1 | TensorType::Q4K => Self::small(15, 32),
            TensorType::Q5_1 | TensorType::Q5K => Self::small(31, 32),
            TensorType::Q6K => Self::with_offset(63, 32),
            TensorType::Q3K => Self::with_offset(7, 4),
            TensorType::Q2K => Self::small(3, 16),
            TensorType::Q8_0 | TensorType::Q5_0 | TensorType::Q4_0 | TensorType::Iq4Nl => Self::SIGNED,
            // Not quantized.
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => Self::SIGNED,
        }
    }
}

/// A matrix in a model file, [columns, rows].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    bytes: &'a [u8],
    pub(crate) ty: TensorType,
    pub(crate) layout: Layout,
    row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<'a> Matrix<'a> {
    /// The tensor `info` of the file `bytes`. A vector is one row.
    pub(crate) fn new(bytes: &'a [u8], info: &TensorInfo) -> Option<Self> {
        let (&columns, rest) = info.dims.split_first()?;
        let (rows, row_bytes) = (rest.iter().product(), info.ty.row_bytes(columns)?);
        let bytes = bytes.get(info.range.clone())?;
        let (ty, layout) = (info.ty, info.layout);
        let len = layout.padded(rows) * row_bytes;
        (bytes.len() == len).then_some(Self { bytes, ty, layout, row_bytes, rows, columns })
    }

    /// Rows `first..first + rows`; in panels, `first` is a panel's first row.
    pub(crate) fn part(self, first: usize, rows: usize) -> Self {
        Self { bytes: self.rows_bytes(first..first + rows), rows, ..self }
    }

    /// The bytes of some columns of the panel that begins at row `first`.
    #[inline(always)]
    pub(crate) fn panel_bytes(&self, first: usize, columns: Range<usize>) -> &'a [u8] {
        let bytes = |column: usize| column / self.ty.block_len() * self.ty.block_bytes() * PANEL_ROWS;
        &self.bytes[first * self.row_bytes..][bytes(columns.start)..bytes(columns.end)]
    }

    /// The bytes of some columns of a row, from the start of a block to the start of another.
    #[inline(always)]
    pub(crate) fn columns_bytes(&self, row: usize, columns: Range<usize>) -> &'a [u8] {
        let bytes = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        let offset = |column: usize| column / self.ty.block_len() * self.ty.block_bytes();
        &bytes[offset(columns.start)..offset(columns.end)]
    }

    /// The bytes from a column of a row on, and the number of bytes from one row to the next.
    #[inline(always)]
    pub(crate) fn bytes_from(&self, row: usize, column: usize) -> (&'a [u8], usize) {
        let start = row * self.row_bytes + column / self.ty.block_len() * self.ty.block_bytes();
        (&self.bytes[start..], self.row_bytes)
    }

    /// The bytes of some rows, or of the panels with them.
    pub(crate) fn rows_bytes(&self, rows: Range<usize>) -> &'a [u8] {
        let len = self.layout.padded(rows.len()) * self.row_bytes;
        &self.bytes[rows.start * self.row_bytes..][..len]
    }

    /// Columns of a row from `first` on, a multiple of 256, as many as `to` holds, in single precision.
    #[inline]
    pub(crate) fn dequantize(&self, row: usize, first: usize, to: &mut [[f32; LANES]]) {
        match self.layout {
            Layout::Plain => {
                dequantize(self.ty, self.columns_bytes(row, first..first + to.len() * LANES), to);
            }
            Layout::Panels => {
                // Block by block, where rows are looked up in what is multiplied otherwise.
                let mut block = Block([0; MAX_BLOCK_BYTES]);
                let block = &mut block.0[..self.ty.block_bytes()];
                let (len, in_panel) = (self.ty.block_len(), row % PANEL_ROWS);
                for (number, to) in to.chunks_mut(len / LANES).enumerate() {
                    let start = first + number * len;
                    let panel = self.panel_bytes(row - in_panel, start..start + len);
                    copy_block(self.ty, in_panel, panel, block);
                    dequantize(self.ty, block, to);
                }
            }
        }
    }
}

/// Bytes of the largest block.
const MAX_BLOCK_BYTES: usize = 256;

/// A block as ggml wants it aligned.
#[repr(align(4))]
struct Block([u8; MAX_BLOCK_BYTES]);

wide! {
    /// Whole blocks in single precision.
    fn dequantize<V>(ty: TensorType, bytes: &[u8], to: &mut [[f32; LANES]]) {
        match ty {
            TensorType::F32 => each(bytes, to, V::load_bytes),
            TensorType::F16 => each(bytes, to, V::load_f16_bytes),
            TensorType::Bf16 => each(bytes, to, V::load_bf16_bytes),
            TensorType::Q8_0 => q8_0::<V>(bytes, to),
            TensorType::Q4_0 => q4_0::<V>(bytes, to),
            TensorType::Q4K => q4_k::<V>(bytes, to),
            // Cannot fail: whole blocks, aligned as the tensors of the file are.
            ty => assert!(crate::ggml::dequantize(ty, bytes, to.as_flattened_mut()).is_ok()),
        }
    }
}

#[inline(always)]
fn each<const N: usize, V: F32x8>(bytes: &[u8], to: &mut [[f32; LANES]], load: impl Fn(&[u8; N]) -> V) {
    for (to, from) in to.iter_mut().zip(bytes.as_chunks::<N>().0) {
        load(from).store(to);
    }
}

#[inline(always)]
fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Blocks of a scale and 32 signed bytes.
#[inline(always)]
fn q8_0<V: F32x8>(bytes: &[u8], to: &mut [[f32; LANES]]) {
    for (to, block) in to.as_chunks_mut::<4>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
        let scale = V::splat(half(block));
        for (to, from) in to.iter_mut().zip(block[2..].as_chunks::<8>().0) {
            V::load_i8(from).mul(scale).store(to);
        }
    }
}

/// Blocks of a scale and 16 bytes, whose low nibbles are the first 16 numbers plus 8.
#[inline(always)]
fn q4_0<V: F32x8>(bytes: &[u8], to: &mut [[f32; LANES]]) {
    for (to, block) in to.as_chunks_mut::<4>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
        let scale = half(block);
        let (scale, min) = (V::splat(scale), V::splat(-8.0 * scale));
        for (i, from) in block[2..].as_chunks::<8>().0.iter().enumerate() {
            let (low, high) = V::load_nibbles(from);
            low.mul_add(scale, min).store(&mut to[i]);
            high.mul_add(scale, min).store(&mut to[i + 2]);
        }
    }
}

/// Blocks of 256 numbers in 8 parts: a scale and a min for all, 6-bit factors of both for each part in 12 bytes, and 128
/// bytes, of which each 32 hold a part in their low nibbles and the next in their high ones.
#[inline(always)]
fn q4_k<V: F32x8>(bytes: &[u8], to: &mut [[f32; LANES]]) {
    for (to, block) in to.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<144>().0) {
        let (mut scales, mut mins) = ([0.0; LANES], [0.0; LANES]);
        let (scale, min) = q4_k_factors::<V>(block);
        scale.store(&mut scales);
        min.store(&mut mins);
        let both = |part: usize| (V::splat(scales[part]), V::splat(mins[part]));
        for (pair, from) in block[16..].as_chunks::<32>().0.iter().enumerate() {
            let (a, b) = (both(2 * pair), both(2 * pair + 1));
            for (i, from) in from.as_chunks::<8>().0.iter().enumerate() {
                let (low, high) = V::load_nibbles(from);
                low.mul_add(a.0, a.1).store(&mut to[8 * pair + i]);
                high.mul_add(b.0, b.1).store(&mut to[8 * pair + 4 + i]);
            }
        }
    }
}

/// Scale and min of each part of a block of type q4_k.
#[inline(always)]
fn q4_k_factors<V: F32x8>(block: &[u8; 144]) -> (V, V) {
    let four = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (a, b, c) = (four(4), four(8), four(12));
    // Six bits each: of the first four parts the lower bits of a and b; of the others two bits there and four in c.
    let eight = |low: u32, high: u32| {
        let bytes = u64::from(low & 0x3f3f_3f3f) | u64::from(high) << 32;
        V::load_u8(&bytes.to_le_bytes())
    };
    let scales = eight(a, c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030);
    let mins = eight(b, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030);
    (scales.mul(V::splat(half(block))), mins.mul(V::splat(-half(&block[2..]))))
}

impl Matrix<'_> {
    /// A vector of floats, eight at a time. (Norms and biases are always f32, which the model's reader checks.)
    #[inline(always)]
    pub(crate) fn eights<V: F32x8>(&self) -> impl Iterator<Item = V> {
        self.bytes.as_chunks::<32>().0.iter().map(V::load_bytes)
    }

    /// A vector of floats from `first` on, a multiple of eight: the bytes of eight numbers at a time, and those of the rest one
    /// by one.
    #[inline(always)]
    pub(crate) fn from(&self, first: usize) -> (&[[u8; 4 * LANES]], &[[u8; 4]]) {
        let (eights, rest) = self.bytes[4 * first..].as_chunks();
        (eights, rest.as_chunks().0)
    }
}
