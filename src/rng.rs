//! Random numbers that depend on the seed, the sequence and the purpose, and on nothing else.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of random numbers is for. Streams of one seed are independent of each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// How many tokens each step generates.
    Schedule = 0,
    /// At which positions.
    Order = 1,
    /// Which tokens.
    Token = 2,
    /// What is drawn ahead, and whether it stays: [`Rng::uniform_at`].
    Ahead = 3,
}

/// One stream: ChaCha with 8 rounds, whose output is the same in every version of `rand_chacha`.
#[derive(Debug, Clone)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream for `purpose` of sequence number `sequence`.
    pub(crate) fn new(seed: u64, sequence: usize, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(sequence as u64 * 4 + purpose as u64);
        Self(rng)
    }

    /// A number in [0, 1), with 53 random bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Number `place` of those that [`Rng::uniform`] gives from the beginning of the stream on, whatever was asked for before.
    pub(crate) fn uniform_at(&mut self, place: u64) -> f64 {
        // A number takes two words.
        self.0.set_word_pos(2 * u128::from(place));
        self.uniform()
    }

    /// An integer in 0..n, every one equally likely. `n` is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        debug_assert!(n > 0, "0..0 is empty");
        // Lemire's method: the high half of a product, rejected where the low half would favour some results.
        let n = n as u64;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= n.wrapping_neg() % n.max(1) {
                return (product >> 64) as usize;
            }
        }
    }
}
