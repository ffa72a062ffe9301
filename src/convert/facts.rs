//! What a source says about its model: values of the configuration, shapes of tensors.

use serde_json::Value;

use super::source::Source;
use crate::error::{Error, Result};
use crate::memory::filled;
use crate::model::limits;

/// Looks values up in a source.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub source: &'a Source,
}

impl<'a> Facts<'a> {
    /// The value of the first of these dotted paths that the configuration has. Some programs nest it in `config`.
    pub fn find(self, paths: &[&str]) -> Option<&'a Value> {
        self.all(paths).map(|(_, value)| value).next()
    }

    /// All of these paths that the configuration has, and their values.
    pub fn all<'b>(self, paths: &'b [&'b str]) -> impl Iterator<Item = (&'b str, &'a Value)> {
        let config = &self.source.config;
        let roots = [Some(config), config.get("config")];
        roots.into_iter().flatten().flat_map(move |root| {
            paths.iter().filter_map(move |path| {
                let value = path.split('.').try_fold(root, |value, key| value.get(key))?;
                (!value.is_null()).then_some((*path, value))
            })
        })
    }

    pub fn number(self, paths: &[&str]) -> Result<Option<usize>> {
        let Some(value) = self.find(paths) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(number) => Ok(Some(number)),
            None => {
                let names = paths.join("' or '");
                Err(self.source.bad(format!("configuration: '{names}' is {value}, not an unsigned integer")))
            }
        }
    }

    pub fn text(self, paths: &[&str]) -> Result<Option<&'a str>> {
        let Some(value) = self.find(paths) else { return Ok(None) };
        let text = value.as_str();
        let names = || paths.join("' or '");
        text.map(Some)
            .ok_or_else(|| self.source.bad(format!("configuration: '{}' is {value}, not text", names())))
    }

    pub fn matrix(self, name: &str) -> Result<[usize; 2]> {
        match self.source.shape(name) {
            Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok([rows, columns]),
            Some(other) => Err(self.source.bad(format!("tensor '{name}' is {other:?}, not a matrix"))),
            None => Err(self.source.lacks(name)),
        }
    }

    pub fn within(self, what: &str, value: usize, max: usize) -> Result<usize> {
        if !(1..=max).contains(&value) {
            return Err(self.source.bad(format!("the {what} of {value} is not in 1..={max}")));
        }
        Ok(value)
    }

    /// Refuses a configuration that contradicts the tensors.
    pub fn agrees(self, paths: &[&str], actual: usize, what: &str) -> Result<()> {
        match self.number(paths)? {
            Some(stated) if stated != actual => Err(self.source.bad(format!(
                "configuration: '{}' is {stated}, but {what} are {actual}",
                paths.join("' or '")
            ))),
            _ => Ok(()),
        }
    }

    /// A value that the option or the file gives; if both do, they have to agree. `known` is what the configuration and
    /// the tensors say.
    pub fn one(
        self,
        option: &str,
        what: &str,
        given: Option<usize>,
        known: [Option<usize>; 2],
    ) -> Result<usize> {
        let path = self.source.path();
        let known = match known {
            [Some(stated), Some(derived)] if stated != derived => {
                return Err(self
                    .source
                    .bad(format!("{what} is {stated} by the configuration, but {derived} by the tensors")));
            }
            [stated, derived] => stated.or(derived),
        };
        match (given, known) {
            (Some(given), Some(known)) if given != known => {
                Err(Error::invalid(format!("{option} {given}: {what} of {path} is {known}")))
            }
            (given, known) => given
                .or(known)
                .ok_or_else(|| Error::invalid(format!("{path} does not say {what}; give it with {option}"))),
        }
    }

    /// The number of blocks, whose tensors' names begin with `prefix`. Every one has to exist, so that a single name cannot claim a million.
    pub fn blocks(self, prefix: &str) -> Result<usize> {
        let mut seen = filled(limits::BLOCK_COUNT, false)?;
        for name in self.source.names() {
            let Some((number, _)) = name.strip_prefix(prefix).and_then(|rest| rest.split_once('.')) else {
                continue;
            };
            match number.parse::<usize>() {
                Ok(number) if number < limits::BLOCK_COUNT => {
                    seen.get_mut(number).into_iter().for_each(|seen| *seen = true);
                }
                _ => return Err(self.source.bad(format!("tensor '{name}' belongs to no block"))),
            }
        }
        let count = seen.iter().take_while(|&&seen| seen).count();
        match seen.iter().skip(count).any(|&seen| seen) {
            true => Err(self.source.bad(format!("the tensors of block {count} are missing"))),
            false => Ok(count),
        }
    }

    /// The number of heads by the rotary buffer, which has one frequency per pair of a head's dimensions.
    pub fn heads_from_rotary(self, width: usize) -> Result<Option<usize>> {
        let name = "rotary_emb.inv_freq";
        match self.source.shape(name) {
            None => Ok(None),
            Some(&[pairs]) if pairs > 0 && width.is_multiple_of(2 * pairs) => Ok(Some(width / (2 * pairs))),
            Some(shape) => Err(self
                .source
                .bad(format!("tensor '{name}' is {shape:?}, which fits no head of a width of {width}"))),
        }
    }
}
