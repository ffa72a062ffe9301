//! Sixteen numbers at once, one for each row of a strip or slot of a cache: the instructions that the machine turns out
//! to have.
//!
//! A value of an [`Isa`] is the proof that the machine has its instructions, so its methods are safe.
//! [`Machine::detect`] makes one when a program starts to compute. All of them give the same bits, but for arrays in a
//! build for processors without fused multiplication and addition.

/// Runs tasks with some instructions. What it makes of a proof is safe: that there is one means that they are there.
#[cfg(target_arch = "x86_64")]
macro_rules! run_with {
    ($proof:ident, $features:literal) => {
        impl $proof {
            #[inline(always)]
            pub(crate) fn run(self, task: impl Task) {
                #[target_feature(enable = $features)]
                fn run(isa: $proof, task: impl Task) {
                    task.run(isa);
                }
                // SAFETY: `self` proves that the instructions are there.
                unsafe { run(self, task) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::f16;

/// Weight rows that are multiplied together.
pub(crate) const STRIP: usize = 16;
/// Bytes of four columns of a strip: those of the first row, then those of the second, and so on.
pub(crate) type FourColumns = [u8; 4 * STRIP];

/// For shuffles: four times the first byte of each row, for two rows and the two behind.
#[cfg(target_arch = "x86_64")]
const FIRST_BYTES: [i64; 2] = [0x0404_0404_0000_0000, 0x0c0c_0c0c_0808_0808];
/// One of four bits in each byte.
#[cfg(target_arch = "x86_64")]
const FOUR_BITS: i32 = 0x0804_0201;

/// A set of instructions.
pub(crate) trait Isa: Copy {
    /// Rows of a pass that are best multiplied together: 8, 4, 2 or 1, as registers allow.
    const ROWS: usize;

    /// [`FourColumns`].
    type Bytes: Copy;
    /// A whole number of 32 bits for each row.
    type Whole: Copy;
    /// A float for each row.
    type Float: Copy;

    fn load(self, x: &FourColumns) -> Self::Bytes;
    fn store(self, x: Self::Bytes, to: &mut FourColumns);
    /// Sixteen bytes of each of sixteen rows that lie `stride` apart, as four times [`FourColumns`].
    fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4];
    fn splat_byte(self, x: u8) -> Self::Bytes;
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Byte by byte, modulo 256.
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Of four bytes as one number. (What crosses from byte to byte is the caller's to mask.)
    fn shift_left<const N: u32>(self, x: Self::Bytes) -> Self::Bytes;
    /// As [`Isa::shift_left`]; zeros come in from above.
    fn shift_right<const N: u32>(self, x: Self::Bytes) -> Self::Bytes;
    /// Of each byte, 15 at most, what stands there in the table.
    fn look_up(self, table: &[u8; 16], x: Self::Bytes) -> Self::Bytes;
    /// The bits of each row's number of 32 bits, the lowest first, a byte for each: 255 where it is set, otherwise 0.
    fn bits(self, x: Self::Bytes) -> [Self::Bytes; 8];
    /// The lower two of each row's four bytes, a number in half precision.
    fn lower_half(self, x: Self::Bytes) -> Self::Float;
    /// The lowest of each row's four bytes.
    fn lowest_byte(self, x: Self::Bytes) -> Self::Float;

    /// `start` and the products of four times J columns of a strip with as many of M rows.
    ///
    /// No weight is above `MOST`, which is 63 at most, or 255. If it is 255, they are signed numbers and 128 more, and
    /// `start` is -128 times the sum of the row's columns.
    fn products<const J: usize, const M: usize, const MOST: u8>(
        self,
        weights: &[FourColumns; J],
        rows: [&[[i8; 4]; J]; M],
        start: [i32; M],
    ) -> [Self::Whole; M];

    fn to_float(self, x: Self::Whole) -> Self::Float;
    fn splat(self, x: f32) -> Self::Float;
    fn load_floats(self, x: &[f32; STRIP]) -> Self::Float;
    fn load_halves(self, x: &[f16; STRIP]) -> Self::Float;
    fn store_floats(self, x: Self::Float, to: &mut [f32; STRIP]);
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// a * b + c, rounded once.
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
}

/// Panics unless sixteen bytes of each of sixteen rows that lie `stride` apart are there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn check_rows(rows: &[u8], stride: usize) {
    assert!(stride.saturating_mul(STRIP - 1).saturating_add(16) <= rows.len());
}

/// A piece of work for any instructions.
pub(crate) trait Task {
    fn run<I: Isa>(self, isa: I);
}

/// The best instructions that a machine has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Machine {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(avx2::AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Portable(portable::Portable),
}

impl Machine {
    /// Asks the processor.
    pub(crate) fn detect() -> Self {
        Self::all().next().unwrap_or(Self::Portable(portable::Portable))
    }

    /// Whatever this machine has, the best first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [
            avx512::Avx512::detect().map(Self::Avx512),
            avx2::AvxVnni::detect().map(Self::AvxVnni),
            avx2::Avx2::detect().map(Self::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let special = [None; 0];
        special.into_iter().flatten().chain([Self::Portable(portable::Portable)])
    }

    /// Whether these give the bits that the others give.
    #[cfg(test)]
    pub(crate) fn is_fused(self) -> bool {
        !matches!(self, Self::Portable(_)) || portable::FUSED
    }

    /// Does a task with these instructions.
    pub(crate) fn run(self, task: impl Task) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => isa.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.run(task),
            Self::Portable(isa) => task.run(isa),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest weights times the largest numbers there are, of one sign.
    struct Largest;

    impl Task for Largest {
        fn run<I: Isa>(self, isa: I) {
            fn check<I: Isa, const J: usize, const MOST: u8>(isa: I) {
                // As signed numbers the largest is the least one.
                let (byte, weight) = if MOST == 255 { (0, -128) } else { (MOST, i32::from(MOST)) };
                for x in [127, -127] {
                    let sum = 4 * J as i32 * i32::from(x);
                    let start = if MOST == 255 { -128 * sum } else { 0 };
                    let [whole] =
                        isa.products::<J, 1, MOST>(&[[byte; 4 * STRIP]; J], [&[[x; 4]; J]], [start]);
                    let mut floats = [0.0; STRIP];
                    isa.store_floats(isa.to_float(whole), &mut floats);
                    assert_eq!(floats, [(weight * sum) as f32; STRIP], "{MOST}");
                }
            }
            check::<I, 8, 255>(isa);
            check::<I, 8, 31>(isa);
            check::<I, 8, 15>(isa);
            check::<I, 4, 63>(isa);
            check::<I, 4, 7>(isa);
            check::<I, 4, 3>(isa);
        }
    }

    #[test]
    fn the_largest_products_fit() {
        Machine::all().for_each(|machine| machine.run(Largest));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn rows_that_are_not_there_are_not_read() {
        let reads = |len: usize, stride: usize| {
            std::panic::catch_unwind(|| check_rows(&vec![0; len], stride)).is_ok()
        };
        assert!(reads(15 * 16 + 16, 16) && reads(15 * 34 + 16, 34) && reads(16, 0));
        assert!(!reads(15 * 16 + 15, 16) && !reads(15, 0));
        // Fifteen rows are longer than all that is there.
        assert!(!reads(100, 50) && !reads(100, usize::MAX));
    }
}
