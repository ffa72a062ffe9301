//! Work that several processes share: which part is whose, and the seed of each piece.

use std::str::FromStr;

/// One of `of` processes that share numbered work; each does every `of`-th piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    number: u64,
    of: u64,
}

impl Shard {
    /// All of the work.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// How many of `count` pieces are this process's.
    pub fn share(self, count: u64) -> usize {
        usize::try_from(count.saturating_add(self.of - self.number) / self.of).unwrap_or(usize::MAX)
    }

    /// These pieces of `0..count`. Those of a larger count begin with them.
    pub fn pieces(self, count: u64) -> impl Iterator<Item = u64> + Clone {
        let step = usize::try_from(self.of).unwrap_or(usize::MAX);
        (self.number - 1..count).step_by(step)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, k)| Some((i.parse().ok()?, k.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("not I/K, such as 1/4, with I from 1 to K".into()),
        }
    }
}

/// The seed of piece `index` of the work with a seed: number `index` of the SplitMix64 generator that begins at `seed`, of
/// which the upper 53 bits, as readers of JSON hold no more. (Were it `seed + index`, work with the next seed would be almost
/// the same.)
pub fn seed_of(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 11
}

#[cfg(test)]
mod tests {
    use super::{Shard, seed_of};

    #[test]
    fn shards_share_all_pieces() {
        for of in 1..6 {
            let mut all: Vec<u64> = (1..=of).flat_map(|number| Shard { number, of }.pieces(17)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..17).collect::<Vec<_>>());
            for number in 1..=of {
                let shard = Shard { number, of };
                assert_eq!(shard.share(17), shard.pieces(17).count());
            }
        }
        assert_eq!("2/4".parse::<Shard>().map(|shard| shard.pieces(9).collect()), Ok(vec![1, 5]));
        assert_eq!("4/4".parse::<Shard>().map(|shard| shard.pieces(3).count()), Ok(0));
        for wrong in ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/5", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    /// The first numbers of the published generator, seed 1234567.
    #[test]
    fn seeds_are_those_of_splitmix64() {
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(
            [0, 1, 2].map(|index| seed_of(1_234_567, index)),
            expected.map(|number: u64| number >> 11)
        );
    }
}
