//! Strips of a quantized matrix, ready to be multiplied: sixteen rows side by side, their weights as bytes.

use std::ops::Range;

use super::isa::{FourColumns, Isa, STRIP};
use super::rounded::{self, BLOCK, Rounded};
use super::simd::LANES;
use super::unpack::Matrix;
use crate::gguf::TensorType;

/// Most columns that are unpacked at once: a quarter of the smallest first-level caches.
pub(super) const CHUNK: usize = 512;

/// How the bytes of a strip make weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// (byte - 128) scale, with a scale for 32 columns.
    Signed,
    /// byte scale + least, with both for 32 columns; bytes up to 15.
    Least,
    /// (byte - 32) scale, with a scale for 16 columns; bytes up to 63.
    Sixteen,
}

impl Kind {
    /// Of weights of a quantized type.
    pub(super) fn of(ty: TensorType) -> Self {
        match ty {
            TensorType::Q4K => Self::Least,
            TensorType::Q6K => Self::Sixteen,
            _ => Self::Signed,
        }
    }
}

/// Some columns of sixteen rows.
#[repr(C, align(64))]
pub(super) struct Strip {
    bytes: [FourColumns; CHUNK / 4],
    /// Of each 32 columns, or of each 16.
    scales: [[f32; STRIP]; CHUNK / 16],
    leasts: [[f32; STRIP]; CHUNK / 32],
}

impl Strip {
    pub(super) fn new() -> Self {
        let (scales, leasts) = ([[0.0; STRIP]; CHUNK / 16], [[0.0; STRIP]; CHUNK / 32]);
        Self { bytes: [[0; 4 * STRIP]; CHUNK / 4], scales, leasts }
    }

    /// Unpacks columns of the rows from `first` on. Rows behind the last one are anything. `columns` begin at a
    /// chunk's beginning. `meanwhile` is called after each 32 columns.
    #[inline(always)]
    pub(super) fn unpack<I: Isa>(
        &mut self,
        isa: I,
        w: Matrix<'_>,
        first: usize,
        columns: Range<usize>,
        mut meanwhile: impl FnMut(),
    ) {
        if !matches!(w.ty, TensorType::Q8_0 | TensorType::Q4_0 | TensorType::Q4K | TensorType::Q6K) {
            self.round(isa, w, first, columns.clone());
            return columns.step_by(32).for_each(|_| meanwhile());
        }
        let (bytes, stride) = w.from(first, columns.start);
        let row_bytes = w.columns_bytes(first, columns.clone()).len();
        if w.rows - first >= STRIP {
            self.unpack_rows(isa, w.ty, (bytes, stride), columns.len(), meanwhile);
        } else {
            /// Bytes of a row's columns at most: those of q8_0.
            const MOST: usize = CHUNK / 32 * 34;
            let mut padded = [[0; MOST]; STRIP];
            for (to, from) in padded.iter_mut().zip(bytes.chunks(stride)) {
                to[..row_bytes].copy_from_slice(&from[..row_bytes]);
            }
            self.unpack_rows(isa, w.ty, (padded.as_flattened(), MOST), columns.len(), meanwhile);
        }
    }

    /// Unpacks `columns` columns of sixteen rows that lie `stride` apart.
    #[inline(always)]
    fn unpack_rows<I: Isa>(
        &mut self,
        isa: I,
        ty: TensorType,
        rows: (&[u8], usize),
        columns: usize,
        meanwhile: impl FnMut(),
    ) {
        match ty {
            TensorType::Q4_0 => self.q4_0(isa, rows, columns, meanwhile),
            TensorType::Q4K => self.q4_k(isa, rows, columns, meanwhile),
            TensorType::Q6K => self.q6_k(isa, rows, columns, meanwhile),
            _ => self.q8_0(isa, rows, columns, meanwhile),
        }
    }

    /// Sixteen columns as they lie in each row, 128 added, from column `to` on.
    #[inline(always)]
    fn signed<I: Isa>(&mut self, isa: I, rows: &[u8], stride: usize, to: usize) {
        let more = isa.splat_byte(128);
        for (to, x) in self.bytes[to / 4..][..4].iter_mut().zip(isa.transpose(rows, stride)) {
            isa.store(isa.add(x, more), to);
        }
    }

    /// The half-precision scale that a block begins with.
    #[inline(always)]
    fn half_scale<I: Isa>(&mut self, isa: I, rows: &[u8], stride: usize, block: usize) {
        let [scale, ..] = isa.transpose(rows, stride);
        isa.store_floats(isa.lower_half(scale), &mut self.scales[block]);
    }

    /// Blocks of a scale and 32 signed bytes.
    #[inline(always)]
    fn q8_0<I: Isa>(
        &mut self,
        isa: I,
        (rows, stride): (&[u8], usize),
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        for block in 0..columns / 32 {
            let at = 34 * block + 2;
            self.half_scale(isa, &rows[at - 2..], stride, block);
            self.signed(isa, &rows[at..], stride, 32 * block);
            self.signed(isa, &rows[at + 16..], stride, 32 * block + 16);
            meanwhile();
        }
    }

    /// Blocks of a scale and 16 bytes, whose low halves are the first 16 numbers, less 8.
    #[inline(always)]
    fn q4_0<I: Isa>(
        &mut self,
        isa: I,
        (rows, stride): (&[u8], usize),
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        // 128 more than the number.
        let (fifteen, more) = (isa.splat_byte(15), isa.splat_byte(120));
        for block in 0..columns / 32 {
            self.half_scale(isa, &rows[18 * block..], stride, block);
            let four = isa.transpose(&rows[18 * block + 2..], stride);
            let (low, high) = self.bytes[8 * block..][..8].split_at_mut(4);
            for ((low, high), both) in low.iter_mut().zip(high).zip(four) {
                isa.store(isa.add(isa.and(both, fifteen), more), low);
                isa.store(isa.add(isa.and(isa.shift_right::<4>(both), fifteen), more), high);
            }
            meanwhile();
        }
    }

    /// Blocks of 256 numbers in 8 parts: a scale and a least value for all, 6-bit factors of both for each part
    /// in 12 bytes, and 128 bytes, of which each 32 hold a part in their low halves and the next in their high ones.
    #[inline(always)]
    fn q4_k<I: Isa>(
        &mut self,
        isa: I,
        (rows, stride): (&[u8], usize),
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let fifteen = isa.splat_byte(15);
        for block in 0..columns / 256 {
            let rows = &rows[144 * block..];
            self.q4_k_scales(isa, isa.transpose(rows, stride), 8 * block);
            for pair in 0..4 {
                let parts = &mut self.bytes[64 * block + 16 * pair..][..16];
                let (low, high) = parts.split_at_mut(8);
                for half in 0..2 {
                    let four = isa.transpose(&rows[16 + 32 * pair + 16 * half..], stride);
                    let to = low[4 * half..].iter_mut().zip(&mut high[4 * half..]);
                    for ((low, high), both) in to.zip(four) {
                        isa.store(isa.and(both, fifteen), low);
                        isa.store(isa.and(isa.shift_right::<4>(both), fifteen), high);
                    }
                    meanwhile();
                }
            }
        }
    }

    /// Scales and least values of a block of type q4_k from its first sixteen bytes, for the parts from `part` on.
    #[inline(always)]
    fn q4_k_scales<I: Isa>(&mut self, isa: I, [both, a, b, c]: [I::Bytes; 4], part: usize) {
        let (scale, least) = (isa.lower_half(both), isa.lower_half(isa.shift_right::<16>(both)));
        let least = isa.mul(least, isa.splat(-1.0));
        // Six bits each: of the first four parts the lower bits of a and b; of the others two bits there and four in c.
        let (six, four, two) = (isa.splat_byte(0x3f), isa.splat_byte(0x0f), isa.splat_byte(0x30));
        let upper =
            |low: I::Bytes, x: I::Bytes| isa.or(isa.and(low, four), isa.and(isa.shift_right::<2>(x), two));
        let scales = [isa.and(a, six), upper(c, a)];
        let leasts = [isa.and(b, six), upper(isa.shift_right::<4>(c), b)];
        for (four, (scales, leasts)) in scales.into_iter().zip(leasts).enumerate() {
            let part = part + 4 * four;
            for (to, factor) in self.scales[part..part + 4].iter_mut().zip(each_byte(isa, scales)) {
                isa.store_floats(isa.mul(factor, scale), to);
            }
            for (to, factor) in self.leasts[part..part + 4].iter_mut().zip(each_byte(isa, leasts)) {
                isa.store_floats(isa.mul(factor, least), to);
            }
        }
    }

    /// Blocks of 256 numbers: 128 bytes of lower halves, 64 bytes of upper quarters, 16 scales of 16 numbers each, and
    /// one for all.
    #[inline(always)]
    fn q6_k<I: Isa>(
        &mut self,
        isa: I,
        (rows, stride): (&[u8], usize),
        columns: usize,
        mut meanwhile: impl FnMut(),
    ) {
        let (fifteen, two) = (isa.splat_byte(15), isa.splat_byte(0x30));
        let join = |lower: I::Bytes, upper: I::Bytes| isa.or(isa.and(lower, fifteen), isa.and(upper, two));
        for block in 0..columns / 256 {
            let rows = &rows[210 * block..];
            // The first 64 lower bytes and 32 upper ones make the first 128 numbers; `half` counts groups of 16 of
            // the upper ones.
            for (first, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let lower = |k: usize| isa.transpose(&rows[64 * first + 32 * k + 16 * half..], stride);
                let (near, far) = (lower(0), lower(1));
                let upper = isa.transpose(&rows[128 + 32 * first + 16 * half..], stride);
                let to = &mut self.bytes[64 * block + 32 * first + 4 * half..];
                for (i, ((near, far), upper)) in near.into_iter().zip(far).zip(upper).enumerate() {
                    isa.store(join(near, isa.shift_left::<4>(upper)), &mut to[i]);
                    isa.store(join(far, isa.shift_left::<2>(upper)), &mut to[8 + i]);
                    isa.store(join(isa.shift_right::<4>(near), upper), &mut to[16 + i]);
                    isa.store(join(isa.shift_right::<4>(far), isa.shift_right::<2>(upper)), &mut to[24 + i]);
                }
                meanwhile();
                meanwhile();
            }
            // The last of these dwords are two factors and the scale of all.
            let [.., last] = isa.transpose(&rows[194..], stride);
            let unit = isa.lower_half(isa.shift_right::<16>(last));
            let scales = self.scales[16 * block..].as_chunks_mut::<4>().0.iter_mut();
            for (to, x) in scales.zip(isa.transpose(&rows[192..], stride)) {
                let above = each_byte(isa, isa.add(x, isa.splat_byte(128)));
                for (to, above) in to.iter_mut().zip(above) {
                    let factor = isa.mul_add(above, isa.splat(1.0), isa.splat(-128.0));
                    isa.store_floats(isa.mul(factor, unit), to);
                }
            }
        }
    }

    /// Any other type by way of floats, which are rounded to 8 bits with a scale for each 32 of them.
    #[inline(never)]
    fn round<I: Isa>(&mut self, isa: I, w: Matrix<'_>, first: usize, columns: Range<usize>) {
        let mut bytes = [[0; CHUNK]; STRIP];
        let mut floats = [[0.0; LANES]; CHUNK / LANES];
        let floats = &mut floats[..columns.len() / LANES];
        for (row, to) in (first..w.rows).zip(&mut bytes) {
            w.unpack(row, columns.start, floats);
            let blocks = to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(&mut self.scales);
            for (x, (to, scales)) in floats.as_chunks::<{ BLOCK / LANES }>().0.iter().zip(blocks) {
                let rounded = rounded::round(x, Kind::Signed);
                to.iter_mut().zip(rounded.values.as_flattened()).for_each(|(to, &x)| *to = x as u8);
                scales[row - first] = rounded.unit;
            }
        }
        for to in (0..columns.len()).step_by(16) {
            self.signed(isa, &bytes.as_flattened()[to..], CHUNK, to);
        }
    }

    /// Adds the products of as many columns of M rows with the strip to `sums`.
    #[inline(always)]
    pub(super) fn add<I: Isa, const M: usize>(
        &self,
        isa: I,
        kind: Kind,
        x: [&[Rounded]; M],
        sums: &mut [[f32; STRIP]; M],
    ) {
        let mut totals = sums.each_ref().map(|sums| isa.load_floats(sums));
        // One length for all lets the compiler see that every index is inside.
        let blocks = x[0].len();
        let x = x.map(|x| &x[..blocks]);
        let (weights, scales) = (&self.bytes.as_chunks::<{ BLOCK / 4 }>().0[..blocks], &self.scales);
        match kind {
            Kind::Signed => {
                for (b, (weights, scale)) in weights.iter().zip(scales).enumerate() {
                    let x = x.map(|x| &x[b]);
                    let whole =
                        isa.products::<8, M, 255>(weights, x.map(|x| &x.values), x.map(|x| x.starts[0]));
                    scale_add(isa, &mut totals, whole, scale, x);
                }
            }
            Kind::Least => {
                for (b, ((weights, scale), least)) in weights.iter().zip(scales).zip(&self.leasts).enumerate()
                {
                    let x = x.map(|x| &x[b]);
                    let whole = isa.products::<8, M, 15>(weights, x.map(|x| &x.values), [0; M]);
                    scale_add(isa, &mut totals, whole, scale, x);
                    let least = isa.load_floats(least);
                    for (total, x) in totals.iter_mut().zip(x) {
                        *total = isa.mul_add(least, isa.splat(x.total), *total);
                    }
                }
            }
            Kind::Sixteen => {
                for (b, (weights, scales)) in weights.iter().zip(scales.as_chunks::<2>().0).enumerate() {
                    let x = x.map(|x| &x[b]);
                    let weights = weights.as_chunks::<4>().0;
                    for (half, (weights, scale)) in weights.iter().zip(scales).enumerate() {
                        let values = x.map(|x| &x.values.as_chunks::<4>().0[half]);
                        let whole = isa.products::<4, M, 63>(weights, values, x.map(|x| x.starts[half]));
                        scale_add(isa, &mut totals, whole, scale, x);
                    }
                }
            }
        }
        for (sums, total) in sums.iter_mut().zip(totals) {
            isa.store_floats(total, sums);
        }
    }
}

/// Adds whole numbers times the scales of both factors.
#[inline(always)]
fn scale_add<I: Isa, const M: usize>(
    isa: I,
    totals: &mut [I::Float; M],
    whole: [I::Whole; M],
    scale: &[f32; STRIP],
    x: [&Rounded; M],
) {
    let scale = isa.load_floats(scale);
    for ((total, whole), x) in totals.iter_mut().zip(whole).zip(x) {
        let scale = isa.mul(scale, isa.splat(x.unit));
        *total = isa.mul_add(isa.to_float(whole), scale, *total);
    }
}

/// Each row's four bytes, the lowest first.
#[inline(always)]
fn each_byte<I: Isa>(isa: I, x: I::Bytes) -> [I::Float; 4] {
    [
        isa.lowest_byte(x),
        isa.lowest_byte(isa.shift_right::<8>(x)),
        isa.lowest_byte(isa.shift_right::<16>(x)),
        isa.lowest_byte(isa.shift_right::<24>(x)),
    ]
}
