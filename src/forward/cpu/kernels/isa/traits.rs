//! What an instruction set must be able to do, and what may be done with any.

use half::f16;

/// Numbers of a vector: the rows of a panel, the slots of a key group.
pub(crate) const WIDTH: usize = 16;
/// Bytes of four columns of a panel: four of the first row, then four of the second, and so on.
pub(crate) type FourColumns = [u8; 4 * WIDTH];

/// What the bytes of weights can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// From 0 to this, which is 63 at most. They may have an offset, which `start` of [`Isa::products`] takes into account.
    Small(u8),
    /// Signed numbers.
    Signed,
}

/// Columns of panels and of rows of activations, four at a time. (Not closures: these are functions of their own, not compiled for
/// the instruction set, and where the compiler does not put one into its caller, each instruction in it is a call.)
pub(crate) trait Columns<I: Isa> {
    fn weights(&self, panel: usize, four: usize) -> I::Bytes;
    fn activations(&self, row: usize, four: usize) -> [i8; 4];
}

/// An instruction set.
pub(crate) trait Isa: Copy {
    /// How many [`Isa::F32`] the registers hold.
    const REGISTERS: usize;
    /// Most rows of activations that are best multiplied with a panel as it is, and together: 10, 6, 4, 2 or 1.
    const ROWS: usize;
    /// As [`Isa::ROWS`], of types with a scale for each sixteen columns, whose sums are scaled more often.
    const ROWS_OF_SIXTEENS: usize = Self::ROWS;
    /// Panels that are best multiplied together with many rows: 2 or 1.
    const PANELS: usize;
    /// Whether unpacked weights of many rows are best multiplied in the form that [`Isa::pair`] makes.
    const PAIRS: bool = false;

    /// [`FourColumns`].
    type Bytes: Copy;
    /// An i32 for each row.
    type I32: Copy;
    /// A float for each row.
    type F32: Copy;

    /// Runs `task` in a function of its own that is compiled for these instructions: a compiler's time grows faster than its
    /// functions.
    fn call(self, task: impl Task<Self>);

    fn load(self, x: &FourColumns) -> Self::Bytes;
    fn store(self, x: Self::Bytes, to: &mut FourColumns);
    /// Sixteen bytes of each of sixteen rows that lie `stride` apart, as four times [`FourColumns`].
    fn transpose(self, rows: &[u8], stride: usize) -> [Self::Bytes; 4];
    fn splat_byte(self, x: u8) -> Self::Bytes;
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Byte by byte, modulo 256.
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Shifts each four bytes as one number. (The caller masks the bits that cross from byte to byte.)
    fn shift_left(self, x: Self::Bytes, by: u32) -> Self::Bytes;
    /// As [`Isa::shift_left`]; zeros are shifted in.
    fn shift_right(self, x: Self::Bytes, by: u32) -> Self::Bytes;
    /// The low four bits of each byte, or the high ones.
    #[inline(always)]
    fn nibbles(self, x: Self::Bytes, high: bool) -> Self::Bytes {
        self.and(self.shift_right(x, 4 * u32::from(high)), self.splat_byte(15))
    }
    /// The low four bits of each byte of `low`, and above them `high`, whose bytes are 15 at most.
    #[inline(always)]
    fn join_nibbles(self, low: Self::Bytes, high: Self::Bytes) -> Self::Bytes {
        self.or(self.and(low, self.splat_byte(15)), self.shift_left(high, 4))
    }
    /// `table[byte]` of each byte, which is 15 at most.
    fn look_up(self, table: &[i8; 16], x: Self::Bytes) -> Self::Bytes;
    /// Bits 4 * `four` to 4 * `four` + 3 of each row's number, the lowest first, as bytes: 255 where the bit is set,
    /// otherwise 0.
    fn bits(self, x: Self::Bytes, four: usize) -> Self::Bytes;
    /// The lower two of each row's four bytes, which are a number in half precision.
    fn low_f16(self, x: Self::Bytes) -> Self::F32;
    /// Stores the lower two of each row's four bytes.
    fn store_low_halves(self, x: Self::Bytes, to: &mut [u8; 2 * WIDTH]);
    /// Byte `which` of each row's four, as an unsigned integer.
    fn byte(self, x: Self::Bytes, which: u32) -> Self::F32;

    /// The products of `fours` times four columns of P panels with those of M rows. `start` is only for those that take signed
    /// weights as numbers from 0 to 255, 128 more than they are: it is -128 times the sum of the row's columns.
    fn products<const M: usize, const P: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; P]; M];

    /// Four columns and the next four, in the form for [`Isa::products_of_pairs`].
    #[inline(always)]
    fn pair(self, a: Self::Bytes, b: Self::Bytes) -> [Self::Bytes; 2] {
        [a, b]
    }

    /// As [`Isa::products`], of weights that [`Isa::pair`] has made.
    #[inline(always)]
    fn products_of_pairs<const M: usize, const P: usize>(
        self,
        range: ByteRange,
        fours: usize,
        columns: &impl Columns<Self>,
        start: [i32; M],
    ) -> [[Self::I32; P]; M] {
        self.products(range, fours, columns, start)
    }

    fn to_f32(self, x: Self::I32) -> Self::F32;
    fn splat(self, x: f32) -> Self::F32;
    fn load_f32(self, x: &[f32; WIDTH]) -> Self::F32;
    fn load_f16(self, x: &[f16; WIDTH]) -> Self::F32;
    fn load_i8(self, x: &[i8; WIDTH]) -> Self::F32;
    fn store_f32(self, x: Self::F32, to: &mut [f32; WIDTH]);
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a * b + c, rounded once.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
}

/// Something to do with an instruction set.
pub(crate) trait Task<I> {
    fn run(self, isa: I);
}

/// Something to do with any instruction set.
pub(crate) trait WithIsa {
    fn run<I: Isa>(self, isa: I);
}
