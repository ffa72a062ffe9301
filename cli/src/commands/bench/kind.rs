//! Which variants of a synthetic model are measured.

use std::fmt;
use std::str::FromStr;

use esolm::Variant;

/// A variant, and of BD3-LM the length of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub variant: Variant,
    /// 0 for all others.
    pub block: usize,
}

impl Kind {
    /// The blocks of a BD3-LM of which nothing else is said: the authors' smallest.
    const BLOCK: usize = 4;
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not b, a, mdlm, ar, wedlm, bd3lm or bd3lm:BLOCK");
        let (name, block) = match text.split_once(':') {
            Some((name, block)) => (name, Some(block.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let variant = Variant::from_name(name).ok_or_else(wrong)?;
        match (variant, block) {
            (Variant::Bd3Lm, block) => Ok(Self { variant, block: block.unwrap_or(Self::BLOCK) }),
            (_, Some(_)) => Err(wrong()),
            (_, None) => Ok(Self { variant, block: 0 }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            0 => f.write_str(self.variant.name()),
            block => write!(f, "{}:{block}", self.variant.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_and_named() {
        for (text, name) in [("b", "b"), ("mdlm", "mdlm"), ("bd3lm", "bd3lm:4"), ("bd3lm:16", "bd3lm:16")] {
            assert_eq!(text.parse::<Kind>().map(|kind| kind.to_string()), Ok(name.into()));
        }
        for text in ["", "c", "bd3lm:", "bd3lm:0", "bd3lm:-1", "b:4", "bd3lm:4:4"] {
            assert!(text.parse::<Kind>().is_err(), "{text}");
        }
    }
}
