//! Weights as they lie in the file, unpacked into floats.

use half::f16;

use super::simd::{F32x8, LANES};
use crate::gguf::{TensorInfo, TensorType};

/// A matrix in a model file: `rows` of `columns` numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    bytes: &'a [u8],
    ty: TensorType,
    row_bytes: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<'a> Matrix<'a> {
    /// The tensor `info` of the file `bytes`. A vector is one row.
    pub(super) fn new(bytes: &'a [u8], info: &TensorInfo) -> Option<Self> {
        let (&columns, rest) = info.dims.split_first()?;
        let (rows, row_bytes) = (rest.iter().product(), info.ty.row_bytes(columns)?);
        let bytes = bytes.get(info.range.clone())?;
        (bytes.len() == row_bytes * rows).then_some(Self { bytes, ty: info.ty, row_bytes, rows, columns })
    }

    /// Rows `first..first + rows`.
    pub(super) fn part(self, first: usize, rows: usize) -> Self {
        Self { bytes: &self.bytes[first * self.row_bytes..(first + rows) * self.row_bytes], rows, ..self }
    }

    /// Unpacks `to.len()` groups of eight columns from column `first`, a multiple of 256, of one row.
    #[inline]
    pub(super) fn unpack(&self, row: usize, first: usize, to: &mut [[f32; LANES]]) {
        let bytes = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        let block = self.ty.block_len();
        let from = first / block * self.ty.block_bytes();
        let bytes = &bytes[from..][..to.len() * LANES / block * self.ty.block_bytes()];
        match self.ty {
            TensorType::F32 => each(bytes, to, F32x8::load_bytes),
            TensorType::F16 => each(bytes, to, F32x8::load_f16_bytes),
            TensorType::Bf16 => each(bytes, to, F32x8::load_bf16_bytes),
            TensorType::Q8_0 => q8_0(bytes, to),
            TensorType::Q4_0 => q4_0(bytes, to),
            TensorType::Q4K => q4_k(bytes, to),
            // Whole blocks, aligned as the file's tensors are: ggml always unpacks them.
            ty => assert!(crate::ggml::dequantize(ty, bytes, to.as_flattened_mut()).is_ok()),
        }
    }
}

#[inline(always)]
fn each<const N: usize>(bytes: &[u8], to: &mut [[f32; LANES]], load: impl Fn(&[u8; N]) -> F32x8) {
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
fn q8_0(bytes: &[u8], to: &mut [[f32; LANES]]) {
    for (to, block) in to.as_chunks_mut::<4>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
        let scale = F32x8::splat(half(block));
        for (to, from) in to.iter_mut().zip(block[2..].as_chunks::<8>().0) {
            F32x8::load_i8(from).mul(scale).store(to);
        }
    }
}

/// Blocks of a scale and 16 bytes, whose low halves are the first 16 numbers, less 8.
#[inline(always)]
fn q4_0(bytes: &[u8], to: &mut [[f32; LANES]]) {
    for (to, block) in to.as_chunks_mut::<4>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
        let scale = half(block);
        let (scale, least) = (F32x8::splat(scale), F32x8::splat(-8.0 * scale));
        for (i, from) in block[2..].as_chunks::<8>().0.iter().enumerate() {
            let (low, high) = F32x8::load_nibbles(from);
            low.mul_add(scale, least).store(&mut to[i]);
            high.mul_add(scale, least).store(&mut to[i + 2]);
        }
    }
}

/// Blocks of 256 numbers in 8 parts: a scale and a least value for all, 6-bit factors of both for each part
/// in 12 bytes, and 128 bytes, of which each 32 hold a part in their low halves and the next in their high ones.
#[inline(always)]
fn q4_k(bytes: &[u8], to: &mut [[f32; LANES]]) {
    for (to, block) in to.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<144>().0) {
        let (scale, least) = (half(block), -half(&block[2..]));
        let s = &block[4..16];
        let factors = |part: usize| match part {
            0..4 => (s[part] & 63, s[part + 4] & 63),
            _ => (s[part + 4] & 15 | (s[part - 4] >> 6) << 4, s[part + 4] >> 4 | (s[part] >> 6) << 4),
        };
        let both = |part: usize| {
            let (a, b) = factors(part);
            (F32x8::splat(scale * f32::from(a)), F32x8::splat(least * f32::from(b)))
        };
        for (pair, from) in block[16..].as_chunks::<32>().0.iter().enumerate() {
            let (a, b) = (both(2 * pair), both(2 * pair + 1));
            for (i, from) in from.as_chunks::<8>().0.iter().enumerate() {
                let (low, high) = F32x8::load_nibbles(from);
                low.mul_add(a.0, a.1).store(&mut to[8 * pair + i]);
                high.mul_add(b.0, b.1).store(&mut to[8 * pair + 4 + i]);
            }
        }
    }
}

impl Matrix<'_> {
    /// A vector of floats (norms and biases are nothing else, the model's reader checks), eight at a time.
    pub(super) fn eights(&self) -> impl Iterator<Item = F32x8> {
        self.bytes.as_chunks::<32>().0.iter().map(F32x8::load_bytes)
    }

    /// One number of a vector of floats.
    #[inline(always)]
    pub(super) fn value(&self, index: usize) -> f32 {
        f32::from_le_bytes(self.bytes.as_chunks::<4>().0[index])
    }
}
