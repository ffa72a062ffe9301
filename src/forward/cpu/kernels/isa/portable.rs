//! Arrays, which the compiler vectorizes; the reference for the others.

use half::f16;

use super::traits::{FourColumns, Isa, WIDTH};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// Whether multiply-add rounds once. Without an instruction for it that would be a function call per number, so it rounds
/// twice there.
pub(crate) const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

fn each<T: Copy, U>(a: [T; WIDTH], f: impl Fn(T) -> U) -> [U; WIDTH] {
    a.map(f)
}

fn both<T: Copy, const N: usize>(a: [T; N], b: [T; N], f: impl Fn(T, T) -> T) -> [T; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

fn numbers(x: FourColumns) -> [u32; WIDTH] {
    std::array::from_fn(|i| u32::from_le_bytes(x.as_chunks().0[i]))
}

fn bytes(x: [u32; WIDTH]) -> FourColumns {
    let mut to = [0; 4 * WIDTH];
    to.as_chunks_mut().0.iter_mut().zip(x).for_each(|(to, x)| *to = x.to_le_bytes());
    to
}

impl Isa for Portable {
    const ROWS: usize = 1;

    type Bytes = FourColumns;
    type I32 = [i32; WIDTH];
    type F32 = [f32; WIDTH];

    fn load(self, x: &FourColumns) -> Self::Bytes {
        *x
    }

    fn store(self, x: Self::Bytes, to: &mut FourColumns) {
        *to = x;
    }

    fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4] {
        std::array::from_fn(|four| {
            std::array::from_fn(|i| {
                let (row, column) = (i / 4, i % 4);
                rows[row * stride + 4 * four + column]
            })
        })
    }

    fn splat_byte(self, x: u8) -> Self::Bytes {
        [x; 4 * WIDTH]
    }

    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        both(a, b, |a, b| a & b)
    }

    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        both(a, b, |a, b| a | b)
    }

    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        both(a, b, u8::wrapping_add)
    }

    fn shift_left<const N: u32>(self, x: Self::Bytes) -> Self::Bytes {
        bytes(each(numbers(x), |x| x << N))
    }

    fn shift_right<const N: u32>(self, x: Self::Bytes) -> Self::Bytes {
        bytes(each(numbers(x), |x| x >> N))
    }

    fn look_up(self, table: &[u8; 16], x: Self::Bytes) -> Self::Bytes {
        x.map(|x| table[usize::from(x & 15)])
    }

    fn bits(self, x: Self::Bytes) -> [Self::Bytes; 8] {
        let x = numbers(x);
        std::array::from_fn(|four| {
            std::array::from_fn(|i| {
                let (row, column) = (i / 4, i % 4);
                if x[row] >> (4 * four + column) & 1 == 1 { 255 } else { 0 }
            })
        })
    }

    fn low_f16(self, x: Self::Bytes) -> Self::F32 {
        each(numbers(x), |x| f16::from_bits(x as u16).to_f32())
    }

    fn low_byte(self, x: Self::Bytes) -> Self::F32 {
        each(numbers(x), |x| (x & 0xff) as f32)
    }

    fn products<const J: usize, const M: usize, const MAX: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Self::I32; M] {
        std::array::from_fn(|m| {
            let mut sums = [start[m]; WIDTH];
            for (weights, x) in weights.iter().zip(rows[m]) {
                for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
                    let products = weights.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x));
                    *sum += products.sum::<i32>();
                }
            }
            sums
        })
    }

    fn to_f32(self, x: Self::I32) -> Self::F32 {
        each(x, |x| x as f32)
    }

    fn splat(self, x: f32) -> Self::F32 {
        [x; WIDTH]
    }

    fn load_f32(self, x: &[f32; WIDTH]) -> Self::F32 {
        *x
    }

    fn load_f16(self, x: &[f16; WIDTH]) -> Self::F32 {
        x.map(f16::to_f32)
    }

    fn store_f32(self, x: Self::F32, to: &mut [f32; WIDTH]) {
        *to = x;
    }

    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both(a, b, |a, b| a * b)
    }

    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }
}
