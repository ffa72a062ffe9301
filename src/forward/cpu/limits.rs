//! The most that the processor can do with the instructions of the kernels, for `esolm bench` to time.

use std::hint::black_box;

use super::kernels::isa::{ByteRange, Columns, FourColumns, Isa, Platform, WIDTH, WithIsa};
use crate::error::Result;
use crate::memory::Arena;
use crate::simd::prefetch;

/// So many bytes to read, in huge pages where the system has them: no slower than weights can be.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub fn memory_to_read(len: usize) -> Result<impl AsRef<[u8]> + Sync> {
    let mut memory = Arena::allocate_in_huge_pages(len)?;
    memory.bytes_mut().fill(1);
    Ok(memory)
}

/// Reads whole cache lines of `bytes` from so many places at once (1, 2, 4 or 8), and prefetches each `lines_ahead` lines before.
/// (Lines that are left over are not read.)
pub fn read_memory(bytes: &[u8], places: usize, lines_ahead: usize) {
    Platform::detect().run(Read { lines: bytes.as_chunks().0, places, lines_ahead });
}

/// Multiplies bytes in registers. Returns how many operations that were: a multiplication and an addition are two.
pub fn multiply_bytes(rounds: usize) -> u64 {
    multiply(Numbers::Bytes, rounds)
}

/// As [`multiply_bytes`], with numbers of single precision.
pub fn multiply_floats(rounds: usize) -> u64 {
    multiply(Numbers::Floats, rounds)
}

struct Read<'a> {
    lines: &'a [FourColumns],
    places: usize,
    lines_ahead: usize,
}

impl WithIsa for Read<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.places {
            8.. => read::<I, 8>(isa, self.lines, self.lines_ahead),
            4.. => read::<I, 4>(isa, self.lines, self.lines_ahead),
            2.. => read::<I, 2>(isa, self.lines, self.lines_ahead),
            _ => read::<I, 1>(isa, self.lines, self.lines_ahead),
        }
    }
}

#[inline(always)]
fn read<I: Isa, const N: usize>(isa: I, lines: &[FourColumns], ahead: usize) {
    let each = lines.len() / N;
    let mut places = [lines; N];
    for (i, place) in places.iter_mut().enumerate() {
        *place = &lines[i * each..][..each];
    }
    let mut sums = [isa.splat_byte(0); N];
    for i in 0..each {
        for (sum, place) in sums.iter_mut().zip(places) {
            if ahead > 0 && i + ahead < each {
                prefetch(&place[i + ahead]);
            }
            *sum = isa.add(*sum, isa.load(&place[i]));
        }
    }
    let mut result = [[0; 4 * WIDTH]; N];
    sums.iter().zip(&mut result).for_each(|(sum, to)| isa.store(*sum, to));
    black_box(result);
}

enum Numbers {
    Bytes,
    Floats,
}

fn multiply(numbers: Numbers, rounds: usize) -> u64 {
    let mut operations = 0;
    Platform::detect().run(Multiplications { numbers, rounds, operations: &mut operations });
    operations
}

struct Multiplications<'a> {
    numbers: Numbers,
    rounds: usize,
    operations: &'a mut u64,
}

impl WithIsa for Multiplications<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { numbers, rounds, operations } = self;
        *operations = match numbers {
            // As many sums as the kernels for many rows have.
            Numbers::Bytes if I::PANELS == 2 => bytes::<I, 6, 2>(isa, rounds),
            Numbers::Bytes if I::ROWS == 4 => bytes::<I, 4, 1>(isa, rounds),
            Numbers::Bytes => bytes::<I, 2, 1>(isa, rounds),
            // As many as hide the latency and fit into the registers.
            Numbers::Floats if I::REGISTERS >= 32 => floats::<I, 12>(isa, rounds),
            Numbers::Floats => floats::<I, 5>(isa, rounds),
        };
    }
}

/// Fours of columns at a time: so many that what follows the products hardly counts.
const FOURS: usize = 64;

/// The same weights for all columns.
struct Same<'a, I: Isa, const M: usize, const P: usize> {
    weights: [I::Bytes; P],
    x: &'a [[[i8; 4]; FOURS]; M],
}

impl<I: Isa, const M: usize, const P: usize> Columns<I> for Same<'_, I, M, P> {
    #[inline(always)]
    fn weights(&self, panel: usize, _: usize) -> I::Bytes {
        self.weights[panel]
    }

    #[inline(always)]
    fn activations(&self, row: usize, four: usize) -> [i8; 4] {
        self.x[row][four]
    }
}

#[inline(always)]
fn bytes<I: Isa, const M: usize, const P: usize>(isa: I, rounds: usize) -> u64 {
    let weights = black_box([[7; 4 * WIDTH]; P]);
    let mut loaded = [isa.splat_byte(0); P];
    loaded.iter_mut().zip(&weights).for_each(|(to, weights)| *to = isa.load(weights));
    let x = [[[1i8, -2, 3, -4]; FOURS]; M];
    let mut totals = [[isa.splat(0.0); P]; M];
    for _ in 0..rounds {
        // Or else the compiler would multiply once.
        let x = black_box(&x);
        let columns = Same::<I, M, P> { weights: loaded, x };
        let (range, start) = (ByteRange::Small(15), [0; M]);
        // As the kernels for many rows do. Weights that are all alike are the same in pairs.
        let sums = match I::PAIRS {
            true => isa.products_of_pairs::<M, P>(range, FOURS, &columns, start),
            false => isa.products::<M, P>(range, FOURS, &columns, start),
        };
        for (totals, sums) in totals.iter_mut().zip(sums) {
            for (total, sums) in totals.iter_mut().zip(sums) {
                *total = isa.mul_add(isa.to_f32(sums), isa.splat(1.0), *total);
            }
        }
    }
    let mut result = [[[0.0; WIDTH]; P]; M];
    for (to, total) in result.as_flattened_mut().iter_mut().zip(totals.as_flattened()) {
        isa.store_f32(*total, to);
    }
    black_box(result);
    (2 * rounds * FOURS * 4 * WIDTH * M * P) as u64
}

#[inline(always)]
fn floats<I: Isa, const N: usize>(isa: I, rounds: usize) -> u64 {
    let (factor, addend) = (isa.splat(black_box(0.999)), isa.splat(black_box(0.001)));
    let mut sums = [isa.splat(0.0); N];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = isa.mul_add(*sum, factor, addend);
        }
    }
    let mut result = [[0.0; WIDTH]; N];
    sums.iter().zip(&mut result).for_each(|(sum, to)| isa.store_f32(*sum, to));
    black_box(result);
    (2 * rounds * WIDTH * N) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted() {
        assert!(multiply_bytes(3).is_multiple_of(3 * 2 * 64 * 4 * 16) && multiply_bytes(3) > 0);
        assert!(multiply_floats(3).is_multiple_of(3 * 2 * 16) && multiply_floats(3) > 0);
    }

    #[test]
    fn any_memory_can_be_read() {
        for len in [0, 1, 63, 64, 64 * 9 + 1] {
            for places in [0, 1, 2, 4, 8, 9] {
                for ahead in [0, 1, 100] {
                    read_memory(&vec![1; len], places, ahead);
                }
            }
        }
    }
}
