//! Random seeds on the command line.

use crate::output::tell;

/// A seed, which -1 leaves to chance, as in llama.cpp.
#[derive(Clone, Copy)]
pub struct Seed {
    pub value: u64,
    is_random: bool,
}

impl Seed {
    /// A seed that differs from run to run, short enough to type again.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { value: RandomState::new().hash_one(std::process::id()) % 1_000_000, is_random: true }
    }

    /// Whether it was left to chance.
    pub fn is_random(self) -> bool {
        self.is_random
    }

    /// Tells a seed that nobody gave: it takes the same one to get the same result again.
    pub fn tell_if_random(self) {
        if self.is_random {
            tell(&format!("seed {}", self.value));
        }
    }
}

impl std::str::FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-1" => Ok(Self::random()),
            _ => text
                .parse()
                .map(|value| Self { value, is_random: false })
                .map_err(|_| format!("not a number from 0 to {}, or -1", u64::MAX)),
        }
    }
}
