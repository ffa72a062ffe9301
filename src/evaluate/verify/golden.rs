//! The arrays of a golden file.

use std::io::ErrorKind;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json;
use crate::memory::{collected, read_regular, try_collected};
use crate::model::Config;

/// Largest header, and largest `golden.json`, in bytes: as values they take many times as much memory.
const MAX_HEADER: u64 = 1 << 20;
const MAX_SCALARS: u64 = 1 << 20;
/// Most values of a `golden.json`.
const MAX_VALUES: usize = 1 << 17;

/// A golden file.
pub(super) struct Golden<'a> {
    pub tensors: SafeTensors<'a>,
    pub scalars: Value,
    file: String,
}

/// Rows of V numbers for the places of the generation order of each text.
pub(super) struct Rows<T> {
    pub values: Vec<T>,
    /// Rows of each text.
    pub per_text: usize,
    /// The place of the first row.
    pub first: usize,
    /// The row of each place, if it is not that of the order.
    pub by_position: Option<Vec<Vec<u32>>>,
}

impl<T> Rows<T> {
    /// The numbers for a place, if the file has them.
    pub fn row(&self, text: usize, place: usize, vocab: usize) -> Option<&[T]> {
        let row = match &self.by_position {
            Some(orders) => *orders.get(text)?.get(place)? as usize,
            None => place.checked_sub(self.first)?,
        };
        let row = (row < self.per_text).then_some(text * self.per_text + row)?;
        self.values.get(row * vocab..(row + 1) * vocab)
    }
}

impl<'a> Golden<'a> {
    /// # Errors
    /// [`Error::BadFile`] if the file or the `golden.json` beside it is damaged; [`Error::Io`].
    pub fn parse(bytes: &'a [u8], path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let header = bytes.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        if (MAX_HEADER..bytes.len() as u64).contains(&header) {
            let what = format!("safetensors: a header of {header} bytes; at most {MAX_HEADER} are read");
            return Err(Error::bad_file(&file, what));
        }
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|e| Error::unreadable(&file, "safetensors", e))?;
        let json_path = path.with_file_name("golden.json");
        let scalars = match read_regular(&json_path, MAX_SCALARS) {
            Ok(json) => {
                let parsed = json::parse(&json, MAX_VALUES);
                parsed.map_err(|unread| unread.of_file(json_path.display().to_string()))?
            }
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error),
        };
        Ok(Self { tensors, scalars, file })
    }

    pub fn has(&self, name: &str, part: &str) -> bool {
        self.tensors.tensor(&format!("{name}.{part}")).is_ok()
    }

    pub fn logits(&self, key: &str, texts: usize, config: &Config) -> Result<Rows<f32>> {
        let (shape, values) = self.read::<4, f32>(key, Dtype::F32, f32::from_le_bytes)?;
        let per_text = self.rows(key, &shape, texts, config)?;
        Ok(Rows { values, per_text, first: 0, by_position: None })
    }

    pub fn noise(&self, name: &str, texts: usize, config: &Config) -> Result<Option<Rows<f64>>> {
        if !self.has(name, "u") {
            return Ok(None);
        }
        let key = format!("{name}.u");
        let (shape, values) = self.read::<8, f64>(&key, Dtype::F64, f64::from_le_bytes)?;
        let per_text = self.rows(&key, &shape, texts, config)?;
        Ok(Some(Rows { values, per_text, first: 0, by_position: None }))
    }

    /// The rows of each text of an array [texts, rows, V].
    fn rows(&self, key: &str, shape: &[usize], texts: usize, config: &Config) -> Result<usize> {
        match *shape {
            [count, rows, width] if count == texts && width == config.vocab_size && texts > 0 => Ok(rows),
            _ => Err(self.bad(format!("{key} has the shape {shape:?}, which is not this model's"))),
        }
    }

    /// An array of integers, and its shape.
    pub fn integers(&self, key: &str) -> Result<(Vec<usize>, Vec<u32>)> {
        let (shape, values) = self.read::<4, i32>(key, Dtype::I32, i32::from_le_bytes)?;
        let value = |v: i32| u32::try_from(v).map_err(|_| self.bad(format!("{key} has the number {v}")));
        Ok((shape, try_collected(values.into_iter().map(value))?))
    }

    /// A part of a case that has this shape.
    pub fn integers_of(&self, name: &str, part: &str, expected: &[usize]) -> Result<Vec<u32>> {
        let (shape, values) = self.integers(&format!("{name}.{part}"))?;
        if shape != expected {
            return Err(self.bad_shape(name, part, &shape));
        }
        Ok(values)
    }

    fn read<const N: usize, T>(
        &self,
        key: &str,
        dtype: Dtype,
        from: fn([u8; N]) -> T,
    ) -> Result<(Vec<usize>, Vec<T>)> {
        let tensor = self.tensors.tensor(key).map_err(|e| self.bad(format!("{key}: {e}")))?;
        if tensor.dtype() != dtype {
            return Err(self.bad(format!("{key} is {:?}, not {dtype:?}", tensor.dtype())));
        }
        let (chunks, _) = tensor.data().as_chunks::<N>();
        Ok((collected(tensor.shape().iter().copied())?, collected(chunks.iter().map(|c| from(*c)))?))
    }

    /// A number that is not in `golden.json`.
    pub fn without(&self, number: &str) -> Error {
        self.bad(match self.scalars {
            Value::Null => format!("there is no golden.json beside it, which would have {number}"),
            _ => format!("golden.json has no {number}"),
        })
    }

    pub fn bad_shape(&self, name: &str, part: &str, shape: &[usize]) -> Error {
        self.bad(format!("{name}.{part} has the shape {shape:?}"))
    }

    pub fn bad(&self, what: impl Into<String>) -> Error {
        Error::bad_file(&self.file, what)
    }
}
