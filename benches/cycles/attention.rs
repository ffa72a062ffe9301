//! The loops of attention, each in a function of its own, with a cache in f16.

use half::f16;

use super::kernels::attention::{CacheAhead, TILE, score, weighted_sums};
use super::kernels::isa::{Isa, Platform, WIDTH, WithIsa};

type Scores = [[[f32; WIDTH]; TILE]];

/// `R` queries and `N` key groups, `D` dimensions at once.
struct Keys<'a, const R: usize, const N: usize, const D: usize> {
    queries: [&'a [f32]; R],
    keys: [&'a [[f16; WIDTH]]; N],
    scores: &'a mut Scores,
    ahead: [&'a [f16]; 3],
}

impl<const R: usize, const N: usize, const D: usize> WithIsa for Keys<'_, R, N, D> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut ahead = CacheAhead::new(self.ahead, 0);
        score::<I, f16, R, N, D>(isa, self.queries, (self.keys, [&[]; N]), self.scores, &mut ahead);
    }
}

/// `R` queries and `V` vectors of values.
struct Values<'a, const R: usize, const V: usize> {
    scores: &'a Scores,
    values: &'a [f16],
    dh: usize,
    sums: &'a mut [[[f32; WIDTH]; V]; R],
    ahead: [&'a [f16]; 3],
}

impl<const R: usize, const V: usize> WithIsa for Values<'_, R, V> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut ahead = CacheAhead::new(self.ahead, 0);
        let sums = weighted_sums::<I, f16, R, V, true>(
            isa,
            self.scores,
            (self.values, &[]),
            (self.dh, 0),
            Some(&mut ahead),
        );
        for row in 0..R {
            for v in 0..V {
                isa.store_f32(sums[row][v], &mut self.sums[row][v]);
            }
        }
    }
}

/// What the functions below take.
pub struct Input<'a> {
    queries: &'a [f32],
    keys: &'a [[f16; WIDTH]],
    values: &'a [f16],
    scores: &'a mut Scores,
    ahead: [&'a [f16]; 3],
}

fn keys<const R: usize, const N: usize, const D: usize>(input: &mut Input<'_>) {
    let Input { queries, keys, scores, ahead, .. } = input;
    Platform::detect().run(Keys::<R, N, D> {
        queries: [*queries; R],
        keys: [*keys; N],
        scores,
        ahead: *ahead,
    });
}

fn values<const R: usize, const V: usize>(input: &Input<'_>, dh: usize) -> [[[f32; WIDTH]; V]; R] {
    let mut sums = [[[0.0; WIDTH]; V]; R];
    let Input { values, scores, ahead, .. } = input;
    Platform::detect().run(Values { scores, values, dh, sums: &mut sums, ahead: *ahead });
    sums
}

/// As many at once as `Attend` takes where the registers hold 32 vectors of sixteen numbers.
pub fn with_32_vectors(input: &mut Input<'_>, dh: usize) {
    keys::<1, 8, 1>(input);
    keys::<2, 8, 1>(input);
    keys::<4, 4, 2>(input);
    std::hint::black_box((values::<1, 4>(input, dh), values::<2, 4>(input, dh), values::<4, 4>(input, dh)));
}

/// And where they hold eight.
pub fn with_8_vectors(input: &mut Input<'_>, dh: usize) {
    keys::<1, 4, 2>(input);
    keys::<2, 2, 4>(input);
    keys::<4, 1, 8>(input);
    std::hint::black_box((values::<1, 4>(input, dh), values::<2, 2>(input, dh), values::<4, 1>(input, dh)));
}
