//! What a model file says about how its text is best generated: the keys `esolm.default.*`.

use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value, Writer};

/// Parameters of a generation for what a caller does not give, as a model file has them. What is `None` here, too, is the
/// library's own default ([`GenerateParams`](crate::GenerateParams), [`SamplingParams`](crate::SamplingParams)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Steps of the diffusion phase, 1 to 2^20.
    pub steps: Option<u32>,
    /// Fraction of the tokens that the diffusion phase writes.
    pub alpha_0: Option<f32>,
    /// [`SamplingParams::temperature`](crate::SamplingParams).
    pub temperature: Option<f32>,
    /// [`SamplingParams::top_k`](crate::SamplingParams).
    pub top_k: Option<u32>,
    /// [`SamplingParams::top_p`](crate::SamplingParams).
    pub top_p: Option<f32>,
    /// [`SamplingParams::min_p`](crate::SamplingParams).
    pub min_p: Option<f32>,
    /// [`SamplingParams::typical_p`](crate::SamplingParams).
    pub typical_p: Option<f32>,
    /// [`SamplingParams::top_n_sigma`](crate::SamplingParams).
    pub top_n_sigma: Option<f32>,
}

impl Defaults {
    /// A file that says nothing.
    pub const NONE: Self = Self {
        steps: None,
        alpha_0: None,
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        typical_p: None,
        top_n_sigma: None,
    };

    /// What WeDLM's authors' library takes where nobody says otherwise.
    pub const WEDLM: Self = Self { temperature: Some(0.2), top_p: Some(1.0), ..Self::NONE };

    /// Sets the one that is called `name` from text, as on the command line.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another name, or a value that is no number or out of range.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = |what: String| Error::invalid(format!("default {what}"));
        if let Some((_, place)) = self.fractions().into_iter().find(|(known, _)| *known == name) {
            let number = value.parse().map_err(|_| bad(format!("{name}: '{value}' is not a number")))?;
            check_range(name, number).map_err(bad)?;
            *place = Some(number);
            return Ok(());
        }
        let Some((_, place)) = self.counts().into_iter().find(|(known, _)| *known == name) else {
            return Err(bad(format!("'{name}': it is none of {}", Self::default().names().join(", "))));
        };
        let number = value.parse().map_err(|_| bad(format!("{name}: '{value}' is not a whole number")))?;
        check_count(name, number).map_err(bad)?;
        *place = Some(number);
        Ok(())
    }

    /// Reads the keys of a file.
    ///
    /// # Errors
    /// [`Error::BadFile`] naming the key that is of another type or out of range.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let mut found = Self::default();
        let bad = |what: String| Error::bad_file(gguf.file(), format!("key '{KEYS}{what}'"));
        for (name, place) in found.fractions() {
            if let Some(key) = key_of(gguf, name) {
                let value = gguf.finite(key)? as f32;
                check_range(name, value).map_err(bad)?;
                *place = Some(value);
            }
        }
        for (name, place) in found.counts() {
            if let Some(key) = key_of(gguf, name) {
                let value = gguf.u64_in(key, 0..=u64::from(u32::MAX))? as u32;
                check_count(name, value).map_err(bad)?;
                *place = Some(value);
            }
        }
        Ok(found)
    }

    /// Writes those that there are into a file's metadata.
    pub(crate) fn write(mut self, out: &mut Writer) {
        for (name, value) in self.fractions() {
            if let Some(value) = *value {
                out.set(&format!("{KEYS}{name}"), Value::F32(value));
            }
        }
        for (name, value) in self.counts() {
            if let Some(value) = *value {
                out.set(&format!("{KEYS}{name}"), Value::U32(value));
            }
        }
    }

    /// These, and for what they do not have, those of `other`.
    pub(crate) fn or(mut self, mut other: Self) -> Self {
        for ((_, value), (_, other)) in self.fractions().into_iter().zip(other.fractions()) {
            *value = value.or(*other);
        }
        for ((_, value), (_, other)) in self.counts().into_iter().zip(other.counts()) {
            *value = value.or(*other);
        }
        self
    }

    /// Checks the ranges.
    pub(super) fn validate(mut self) -> Result<(), String> {
        for (name, value) in self.fractions() {
            value.map_or(Ok(()), |value| check_range(name, value))?;
        }
        for (name, value) in self.counts() {
            value.map_or(Ok(()), |value| check_count(name, value))?;
        }
        Ok(())
    }

    fn names(mut self) -> Vec<&'static str> {
        let fractions = self.fractions().map(|(name, _)| name);
        fractions.into_iter().chain(self.counts().map(|(name, _)| name)).collect()
    }

    fn fractions(&mut self) -> [(&'static str, &mut Option<f32>); 6] {
        [
            ("alpha_0", &mut self.alpha_0),
            ("temperature", &mut self.temperature),
            ("top_p", &mut self.top_p),
            ("min_p", &mut self.min_p),
            ("typical_p", &mut self.typical_p),
            ("top_n_sigma", &mut self.top_n_sigma),
        ]
    }

    fn counts(&mut self) -> [(&'static str, &mut Option<u32>); 2] {
        [("steps", &mut self.steps), ("top_k", &mut self.top_k)]
    }
}

impl Default for Defaults {
    /// [`Defaults::NONE`].
    fn default() -> Self {
        Self::NONE
    }
}

/// What all keys begin with.
const KEYS: &str = "esolm.default.";

/// The key of the file for the parameter `name`, if the file has it.
fn key_of<'g>(gguf: &'g Gguf, name: &str) -> Option<&'g str> {
    let mut keys = gguf.metadata().iter().map(|(key, _)| key.as_str());
    keys.find(|key| key.strip_prefix(KEYS) == Some(name))
}

/// Checks a parameter of a generation: of a caller, or of a file.
pub(crate) fn check_range(name: &str, value: f32) -> Result<(), String> {
    match name {
        "top_p" | "typical_p" if value > 0.0 && value <= 1.0 => Ok(()),
        "top_p" | "typical_p" => Err(format!("{name} is {value}, not in 0 < {name} <= 1")),
        "alpha_0" | "min_p" if (0.0..=1.0).contains(&value) => Ok(()),
        "alpha_0" | "min_p" => Err(format!("{name} is {value}, not in 0..=1")),
        _ if value.is_finite() && value >= 0.0 => Ok(()),
        _ => Err(format!("{name} is {value}, not a number from 0")),
    }
}

fn check_count(name: &str, value: u32) -> Result<(), String> {
    match name {
        "steps" if !(1..=1 << 20).contains(&value) => Err(format!("{name} is {value}, not in 1..=1048576")),
        // It stands for the default.
        "top_k" if value == u32::MAX => Err(format!("{name} is {value}; it is less")),
        _ => Ok(()),
    }
}
