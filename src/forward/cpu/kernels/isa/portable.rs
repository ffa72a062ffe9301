//! Arrays, which the compiler vectorizes; the reference for the others.

use half::f16;

use super::traits::{ByteRange, Columns, FourColumns, Isa, Task, WIDTH};
use crate::simd::mul_add;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each<T: Copy, U: Copy, const N: usize>(a: [T; N], f: impl Fn(T) -> U) -> [U; N] {
    let mut to = [f(a[0]); N];
    for i in 1..N {
        to[i] = f(a[i]);
    }
    to
}

#[inline(always)]
fn both<T: Copy, const N: usize>(a: [T; N], b: [T; N], f: impl Fn(T, T) -> T) -> [T; N] {
    let mut to = a;
    for i in 0..N {
        to[i] = f(a[i], b[i]);
    }
    to
}

#[inline(always)]
fn numbers(x: FourColumns) -> [u32; WIDTH] {
    let mut to = [0; WIDTH];
    for i in 0..WIDTH {
        to[i] = u32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]);
    }
    to
}

#[inline(always)]
fn bytes(x: [u32; WIDTH]) -> FourColumns {
    let mut to = [0; 4 * WIDTH];
    for i in 0..WIDTH {
        [to[4 * i], to[4 * i + 1], to[4 * i + 2], to[4 * i + 3]] = x[i].to_le_bytes();
    }
    to
}

impl Isa for Portable {
    const REGISTERS: usize = 8;
    const ROWS: usize = 1;
    const PANELS: usize = 1;

    type Bytes = FourColumns;
    type I32 = [i32; WIDTH];
    type F32 = [f32; WIDTH];

    #[inline(always)]
    fn call(self, task: impl Task<Self>) {
        #[inline(never)]
        fn call(task: impl Task<Portable>) {
            task.run(Portable);
        }
        call(task);
    }

    fn load(self, x: &FourColumns) -> Self::Bytes {
        *x
    }

    fn store(self, x: Self::Bytes, to: &mut FourColumns) {
        *to = x;
    }

    fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4] {
        let mut to = [[0; 4 * WIDTH]; 4];
        for four in 0..4 {
            for i in 0..4 * WIDTH {
                let (row, column) = (i / 4, i % 4);
                to[four][i] = rows[row * stride + 4 * four + column];
            }
        }
        to
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

    fn shift_left(self, x: Self::Bytes, by: u32) -> Self::Bytes {
        bytes(each(numbers(x), |x| x << by))
    }

    fn shift_right(self, x: Self::Bytes, by: u32) -> Self::Bytes {
        bytes(each(numbers(x), |x| x >> by))
    }

    fn look_up(self, table: &[i8; 16], x: Self::Bytes) -> Self::Bytes {
        each(x, |x| table[usize::from(x & 15)] as u8)
    }

    fn bits(self, x: Self::Bytes, four: usize) -> Self::Bytes {
        let (x, mut to) = (numbers(x), [0; 4 * WIDTH]);
        for i in 0..4 * WIDTH {
            let (row, column) = (i / 4, i % 4);
            to[i] = if x[row] >> (4 * four + column) & 1 == 1 { 255 } else { 0 };
        }
        to
    }

    fn low_f16(self, x: Self::Bytes) -> Self::F32 {
        each(numbers(x), |x| f16::from_bits(x as u16).to_f32())
    }

    fn store_low_halves(self, x: Self::Bytes, to: &mut [u8; 2 * WIDTH]) {
        for row in 0..WIDTH {
            (to[2 * row], to[2 * row + 1]) = (x[4 * row], x[4 * row + 1]);
        }
    }

    fn byte(self, x: Self::Bytes, which: u32) -> Self::F32 {
        each(numbers(x), |x| (x >> (8 * which) & 0xff) as f32)
    }

    fn products<const M: usize, const P: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; P]; M] {
        // Signed weights need no start.
        let (sign, start) = match range {
            ByteRange::Signed => (true, [0; M]),
            ByteRange::Small(_) => (false, start),
        };
        let number = |x: u8| if sign { i32::from(x as i8) } else { i32::from(x) };
        let mut sums = [[[0; WIDTH]; P]; M];
        for m in 0..M {
            sums[m] = [[start[m]; WIDTH]; P];
        }
        for j in 0..fours {
            for p in 0..P {
                let weights = columns.weights(p, j);
                for m in 0..M {
                    let x = columns.activations(m, j);
                    for row in 0..WIDTH {
                        for column in 0..4 {
                            sums[m][p][row] += number(weights[4 * row + column]) * i32::from(x[column]);
                        }
                    }
                }
            }
        }
        sums
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
        each(*x, f16::to_f32)
    }

    fn load_i8(self, x: &[i8; WIDTH]) -> Self::F32 {
        each(*x, f32::from)
    }

    fn store_f32(self, x: Self::F32, to: &mut [f32; WIDTH]) {
        *to = x;
    }

    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both(a, b, |a, b| a * b)
    }

    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        let mut to = c;
        for i in 0..WIDTH {
            to[i] = mul_add(a[i], b[i], c[i]);
        }
        to
    }
}
