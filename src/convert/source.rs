//! A model to convert, independent of its file format: where its tensors are, its configuration, its tokenizer.
//!
//! Its tensors may be in several files; every one is checked to be inside its file, and all of them to be no more than tied
//! weights make of it, before any is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

use super::names;
use super::options::{TokenizerSource, WeightSet};
use crate::error::{Error, Result};
use crate::memory::{filled, formatted, insert, push, with_room};

/// Bytes of a tensor that are read and decoded at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How often the tensors of a file may have its bytes, together. Tied weights have theirs twice; without a limit a small
/// file, all of whose tensors share one storage, would become a model of any size.
const MOST_SHARED: u64 = 2;

/// Element types of weights that can be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
    F64,
}

impl Dtype {
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F64 => 8,
        }
    }

    /// Appends little-endian elements to `out` as f32.
    fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        let (pairs, _) = bytes.as_chunks::<2>();
        match self {
            Self::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::F16 => out.extend(pairs.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
            Self::Bf16 => out.extend(pairs.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32())),
            Self::F64 => out.extend(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
        }
    }
}

/// A tensor's type, shape and place in its file. Its elements are contiguous, the last dimension fastest.
#[derive(Debug, PartialEq)]
pub(super) struct SourceTensor {
    pub dtype: Dtype,
    /// Shape in PyTorch's order: `[out, in]` for a Linear's weight.
    pub shape: Vec<usize>,
    /// Which of the source's files it is in.
    pub file: usize,
    /// Offset of the first element from the start of the file.
    pub offset: u64,
}

impl SourceTensor {
    /// Number of elements; `None` if it overflows.
    pub fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))
    }
}

/// What a file says about its tensors.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The names of the tensors that have a weight's type, and where they are.
    pub tensors: Vec<(String, SourceTensor)>,
    /// The names of other entries, such as counters, and what they are.
    pub others: Vec<(String, String)>,
}

/// The tokenizer that came with the weights, and the texts of the special tokens that it declares.
#[derive(Debug)]
pub(super) struct FoundTokenizer {
    /// The content of `tokenizer.json`.
    pub json: Option<Vec<u8>>,
    /// What the content was in.
    pub origin: TokenizerSource,
    /// What `json` was read from or made of, for errors.
    pub file: String,
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub mask: Option<String>,
    /// Whether the tokenizer puts `bos` before each text (`add_bos_token`).
    pub puts_bos: bool,
    /// How messages become a prompt, as a Jinja template.
    pub chat_template: Option<String>,
}

/// Open files whose headers have been read.
#[derive(Debug)]
pub(super) struct Source {
    files: Vec<File>,
    paths: Vec<PathBuf>,
    /// What errors call the model: the first file.
    path: String,
    tensors: HashMap<String, SourceTensor>,
    /// What the entries are that have no weight's type, by name.
    others: HashMap<String, String>,
    /// The configuration as the file has it; its keys depend on the program that wrote it.
    pub config: Value,
    pub tokenizer: FoundTokenizer,
    pub weights: WeightSet,
    pub notes: Vec<String>,
}

impl Source {
    /// Removes the prefixes from the tensors' names and checks that every tensor is inside its file, so that no tensor
    /// can make the converter allocate more than the file's size, nor all of them make it write many times that.
    ///
    /// # Errors
    /// [`Error::BadFile`] naming the tensor that occurs twice, ends beyond its file or shares too much of it.
    pub fn new(
        files: Vec<(File, PathBuf)>,
        listing: Listing,
        config: Value,
        tokenizer: FoundTokenizer,
        weights: WeightSet,
    ) -> Result<Self> {
        // Each file's size, and what its tensors may still take.
        let mut sizes: Vec<(u64, u64)> = with_room(files.len())?;
        for (file, path) in &files {
            let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
            sizes.push((size, size.saturating_mul(MOST_SHARED)));
        }
        let (mut open, mut paths) = (with_room(files.len())?, with_room(files.len())?);
        for (file, path) in files {
            open.push(file);
            paths.push(path);
        }
        let of_file =
            |file: usize| paths.get(file).map_or(String::new(), |path: &PathBuf| path.display().to_string());
        let mut tensors = HashMap::new();
        for (mut name, tensor) in listing.tensors {
            let file = tensor.file;
            let bytes = tensor.len().and_then(|len| len.checked_mul(tensor.dtype.bytes()));
            let end = bytes.and_then(|bytes| tensor.offset.checked_add(bytes as u64));
            let place =
                sizes.get_mut(file).zip(bytes).filter(|((size, _), _)| end.is_some_and(|end| end <= *size));
            let Some(((_, left), bytes)) = place else {
                return Err(Error::bad_file(of_file(file), format!("tensor '{name}' ends beyond the file")));
            };
            let Some(rest) = left.checked_sub(bytes as u64) else {
                let what = format!(
                    "with tensor '{name}' the tensors have more than {MOST_SHARED} times the file's bytes: \
                     more of them share a storage than tied weights do"
                );
                return Err(Error::bad_file(of_file(file), what));
            };
            *left = rest;
            if tensors.contains_key(names::without_prefixes(&name)) {
                return Err(Error::bad_file(of_file(file), format!("tensor '{name}' occurs twice")));
            }
            names::remove_prefixes(&mut name);
            insert(&mut tensors, name, tensor)?;
        }
        let mut others = HashMap::new();
        for (mut name, kind) in listing.others {
            names::remove_prefixes(&mut name);
            insert(&mut others, name, kind)?;
        }
        let (path, notes) = (of_file(0), Vec::new());
        Ok(Self { files: open, paths, path, tensors, others, config, tokenizer, weights, notes })
    }

    /// The files that the tensors are in.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The name of the file, or of the first of them, for errors.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// An [`Error::BadFile`] for this file.
    pub fn bad(&self, what: impl Into<String>) -> Error {
        Error::bad_file(&self.path, what)
    }

    /// The names of all tensors, without prefixes, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.tensors.keys().map(String::as_str)
    }

    /// The names of all entries that have no weight's type, without prefixes, in no particular order.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.others.keys().map(String::as_str)
    }

    /// Whether an entry with this name, with or without prefixes, is in this file; of one that has no weight's type the
    /// file is not known.
    pub fn has(&self, name: &str, file: usize) -> bool {
        let name = names::without_prefixes(name);
        self.others.contains_key(name) || self.tensors.get(name).is_some_and(|tensor| tensor.file == file)
    }

    /// The error of a tensor that the model needs and the file lacks or has as something else.
    pub fn lacks(&self, name: &str) -> Error {
        self.bad(match self.others.get(name) {
            Some(kind) => format!("tensor '{name}' is {kind}; weights are f32, f16, bf16 or f64"),
            None => format!("tensor '{name}' is missing"),
        })
    }

    /// Notes which tensors are left out, if any are.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn note_left_out(&mut self, names: Option<String>) -> Result<()> {
        let Some(names) = names else { return Ok(()) };
        push(&mut self.notes, formatted(format_args!("left out, as no part of the network: {names}"))?)
    }

    /// The shape of a tensor, if the file has it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Reads a tensor, some rows at a time: `each` is called with the index of the first row and the rows' elements.
    /// The rows of a vector have one element each. Every element is checked to be finite.
    ///
    /// # Errors
    /// [`Error::BadFile`] if the tensor is missing or holds NaN or infinity; [`Error::Io`]; what `each` returns.
    pub fn rows(&mut self, name: &str, mut each: impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(self.lacks(name));
        };
        let Some((&n_rows, rest)) = tensor.shape.split_first() else {
            return Err(self.bad(format!("tensor '{name}' is a scalar")));
        };
        let row_len: usize = rest.iter().product();
        let row_bytes = row_len * tensor.dtype.bytes();
        let step = (CHUNK_BYTES / row_bytes.max(1)).clamp(1, n_rows.max(1));
        let (mut bytes, mut values) = (filled(step * row_bytes, 0)?, with_room(step * row_len)?);
        let missing = || Error::internal(format!("the file of tensor '{name}'"));
        let file = self.files.get_mut(tensor.file).ok_or_else(missing)?;
        let path = self.paths.get(tensor.file).ok_or_else(missing)?;
        let io = |e| Error::io(path, e);
        file.seek(SeekFrom::Start(tensor.offset)).map_err(io)?;
        for first in (0..n_rows).step_by(step) {
            bytes.truncate((n_rows - first).min(step) * row_bytes);
            file.read_exact(&mut bytes).map_err(io)?;
            values.clear();
            tensor.dtype.decode(&bytes, &mut values);
            if let Some((bad, value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
                let at = first * row_len + bad;
                let what = format!("tensor '{name}': element {at} is {value}; the weights are damaged");
                return Err(Error::bad_file(path.display().to_string(), what));
            }
            each(first, &mut values)?;
        }
        Ok(())
    }

    /// Reads a complete tensor; for small ones.
    ///
    /// # Errors
    /// As [`Source::rows`].
    pub fn read(&mut self, name: &str) -> Result<Vec<f64>> {
        let mut all = with_room(self.tensors.get(name).and_then(SourceTensor::len).unwrap_or_default())?;
        self.rows(name, |_, rows| {
            all.extend(rows.iter().map(|&v| f64::from(v)));
            Ok(())
        })?;
        Ok(all)
    }
}

/// The values of `model_type` of Qwen's family.
const QWEN: [&str; 3] = ["qwen2", "qwen3", "wedlm"];

/// Whether the configuration is one of Qwen's family, WeDLM among them.
pub(super) fn is_qwen(config: &Value) -> bool {
    let name = config.get("model_type").and_then(Value::as_str);
    name.is_some_and(|name| QWEN.contains(&name))
}
