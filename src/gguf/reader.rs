//! Reads and checks a header.

use std::collections::HashSet;
use std::fmt::{self, Display};

use super::format::{MAGIC, MAX_DIMS, MAX_TENSOR_NAME, VERSION, alignment};
use super::panels::{self, Layout};
use super::tensor::TensorInfo;
use super::value::{Array, STR, Value, number, number_bytes};
use crate::error::{Error, Result};
use crate::memory::{collected, copied, no_room, with_room};

/// Most metadata keys and most tensors that are accepted; far above what any model has. (Keys are looked up one by one, so
/// the time of listing them all grows with their square.)
const MAX_KEYS: u64 = 1 << 14;
const MAX_TENSORS: u64 = 1 << 16;
/// Longest metadata key, in bytes (the format's own limit).
const MAX_KEY: u64 = 65535;

/// The header of a GGUF file. It has been checked against the file: every tensor lies inside it, is aligned, overlaps
/// no other, and has the size that its shape and type give.
#[derive(Debug)]
pub struct Gguf {
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
    file: String,
}

impl Gguf {
    /// Reads and checks the header at the start of `bytes`, which is the whole file. `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::BadFile`] with the key, tensor or offset, whatever the bytes are.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self> {
        Parser { bytes, at: 0, file }.parse()
    }

    /// All metadata, in the file's order.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// All metadata, in the file's order, by value.
    pub fn into_metadata(self) -> Vec<(String, Value)> {
        self.metadata
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The file's name, for errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The value of `key`, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The tensor called `name`, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The value of `key` as an integer in `range`.
    ///
    /// # Errors
    /// [`Error::BadFile`] if it is missing, of another type, or outside the range.
    pub fn u64_in(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64> {
        let value = self.require(key)?;
        let number = value.as_u64().ok_or_else(|| self.bad_key(key, "is not an unsigned integer".into()))?;
        if !range.contains(&number) {
            let (low, high) = range.into_inner();
            return Err(self.bad_key(key, format!("is {number}, not in {low}..={high}")));
        }
        Ok(number)
    }

    /// The value of `key` as a finite floating-point number.
    ///
    /// # Errors
    /// [`Error::BadFile`] if it is missing, of another type, NaN or infinite.
    pub fn finite(&self, key: &str) -> Result<f64> {
        let number = self
            .require(key)?
            .as_f64()
            .ok_or_else(|| self.bad_key(key, "is not a floating-point number".into()))?;
        if !number.is_finite() {
            return Err(self.bad_key(key, format!("is {number}")));
        }
        Ok(number)
    }

    /// The value of `key` as text.
    ///
    /// # Errors
    /// [`Error::BadFile`] if it is missing or not text.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.require(key)?.as_str().ok_or_else(|| self.bad_key(key, "is not text".into()))
    }

    /// Whether a boolean key is there and true.
    ///
    /// # Errors
    /// [`Error::BadFile`] if the key is of another type.
    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(&Value::Bool(value)) => Ok(value),
            Some(_) => Err(self.bad_key(key, "is not a boolean".into())),
        }
    }

    fn require(&self, key: &str) -> Result<&Value> {
        self.get(key).ok_or_else(|| Error::bad_file(&self.file, format!("key '{key}' is missing")))
    }

    fn bad_key(&self, key: &str, what: String) -> Error {
        Error::bad_file(&self.file, format!("key '{key}' {what}"))
    }
}

/// An empty set with room for `len` texts.
///
/// # Errors
/// [`Error::OutOfMemory`].
fn set_with_room<'a>(len: usize) -> Result<HashSet<&'a str>> {
    let mut set = HashSet::new();
    set.try_reserve(len).map_err(|_| no_room(len.saturating_mul(size_of::<&str>())))?;
    Ok(set)
}

/// A tensor in a message.
#[derive(Clone, Copy)]
struct Named<'a>(&'a str);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor '{}'", self.0)
    }
}

/// A cursor over the header. Every read is checked against the bytes that are left.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    file: &'a str,
}

impl<'a> Parser<'a> {
    fn parse(mut self) -> Result<Gguf> {
        if self.take(4, "the magic number")? != MAGIC {
            return Err(self.bad_at(0, "not a GGUF file (it does not begin with 'GGUF')"));
        }
        let version = self.u32("the version")?;
        if version != VERSION {
            let hint = if version.swap_bytes() == VERSION { " (a big-endian file)" } else { "" };
            return Err(self.bad_at(4, format!("GGUF version {version} is not supported{hint}; only 3 is")));
        }
        let n_tensors = self.count("tensors", MAX_TENSORS)?;
        let n_keys = self.count("metadata keys", MAX_KEYS)?;
        let metadata = self.metadata(n_keys)?;
        let alignment = alignment(&metadata).map_err(|what| Error::bad_file(self.file, what))?;
        let mut described = with_room(n_tensors as usize)?;
        for index in 0..n_tensors {
            described.push(self.tensor_info(index)?);
        }
        let tensors = self.place(described, alignment)?;
        Ok(Gguf { metadata, tensors, file: copied(self.file)? })
    }

    fn metadata(&mut self, n_keys: u64) -> Result<Vec<(String, Value)>> {
        let mut metadata: Vec<(String, Value)> = with_room(n_keys as usize)?;
        let mut seen = set_with_room(n_keys as usize)?;
        for _ in 0..n_keys {
            let start = self.at;
            let key = self.string("a metadata key", MAX_KEY)?;
            if key.is_empty() {
                return Err(self.bad_at(start, "a metadata key is empty"));
            }
            if !seen.insert(key) {
                return Err(self.bad_at(start, format!("key '{key}' appears twice")));
            }
            let code = self.u32(key)?;
            let value = match code {
                9 => self.array(key)?,
                _ => self.scalar(code, key)?,
            };
            metadata.push((copied(key)?, value));
        }
        Ok(metadata)
    }

    /// A tensor's description and its offset in the data section. Its range is 0 to its size until [`Parser::place`]
    /// moves it.
    fn tensor_info(&mut self, index: u64) -> Result<(TensorInfo, u64)> {
        let start = self.at;
        let name = self.string("a tensor name", MAX_TENSOR_NAME as u64)?;
        if name.is_empty() {
            return Err(self.bad_at(start, format!("tensor {index} has no name")));
        }
        let what = Named(name);
        let n_dims = self.u32(what)? as usize;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            return Err(self.bad_at(start, format!("{what} has {n_dims} dimensions, not 1 to {MAX_DIMS}")));
        }
        let mut dims = with_room(n_dims)?;
        for _ in 0..n_dims {
            let dim = self.u64(what)?;
            // ggml counts in signed 64-bit integers, and some of its kernels in 32 bits.
            if dim == 0 || dim > i32::MAX as u64 {
                return Err(self.bad_at(start, format!("{what} has a dimension of {dim}")));
            }
            dims.push(dim as usize);
        }
        let code = self.u32(what)?;
        let (ty, layout) = Layout::from_code(code)
            .ok_or_else(|| self.bad_at(start, format!("{what} has the unsupported type number {code}")))?;
        let offset = self.u64(what)?;
        let size = panels::tensor_bytes(ty, layout, &dims).ok_or_else(|| {
            self.bad_at(start, format!("{what}: the shape {dims:?} does not fit the type {}", ty.name()))
        })?;
        Ok((TensorInfo { name: copied(name)?, ty, layout, dims, range: 0..size }, offset))
    }

    /// Computes each tensor's range in the file and checks it.
    fn place(&self, described: Vec<(TensorInfo, u64)>, alignment: u64) -> Result<Vec<TensorInfo>> {
        let bad = |what: String| Error::bad_file(self.file, what);
        let data_start = (self.at as u64)
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| bad("the header is too long".into()))?;
        let mut names = set_with_room(described.len())?;
        if let Some((twice, _)) = described.iter().find(|(info, _)| !names.insert(info.name.as_str())) {
            return Err(bad(format!("tensor '{}' appears twice", twice.name)));
        }
        drop(names);
        let mut tensors = with_room(described.len())?;
        for (mut info, offset) in described {
            let name = info.name.as_str();
            if offset % alignment != 0 {
                return Err(bad(format!("tensor '{name}': offset {offset} is not aligned to {alignment}")));
            }
            let start = data_start.checked_add(offset).and_then(|s| usize::try_from(s).ok());
            let range = start.and_then(|s| Some(s..s.checked_add(info.range.end)?));
            match range {
                Some(range) if range.end <= self.bytes.len() => info.range = range,
                _ => {
                    return Err(bad(format!(
                        "tensor '{name}' ({} bytes at data offset {offset}) ends beyond the file of {} bytes",
                        info.range.end,
                        self.bytes.len()
                    )));
                }
            }
            tensors.push(info);
        }
        let mut by_start: Vec<&TensorInfo> = collected(tensors.iter())?;
        by_start.sort_unstable_by_key(|t| t.range.start);
        for pair in by_start.windows(2) {
            if let [a, b] = pair
                && a.range.end > b.range.start
            {
                return Err(bad(format!("tensors '{}' and '{}' overlap", a.name, b.name)));
            }
        }
        Ok(tensors)
    }

    fn array(&mut self, key: &str) -> Result<Value> {
        let start = self.at;
        let code = self.u32(key)?;
        let len = self.u64(key)?;
        if code == 9 {
            return Err(self.bad_at(start, format!("key '{key}': arrays of arrays are not supported")));
        }
        // The bytes of an element; of text, those of its length field.
        let element = match number_bytes(code) {
            Some(bytes) => bytes,
            None if code == STR => 8,
            None => return Err(self.unknown_type(start, code, key)),
        };
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= self.left() / element)
            .ok_or_else(|| self.bad_at(start, format!("key '{key}': {len} elements do not fit the file")))?;
        let elements = self.at;
        if code == STR {
            for _ in 0..len {
                self.string(key, u64::MAX)?;
            }
        } else {
            let bytes = self.take(len * element, key)?;
            if code == Value::Bool(true).code()
                && let Some(place) = bytes.iter().position(|&byte| byte > 1)
            {
                let other = bytes.get(place).copied().unwrap_or_default();
                return Err(self.bad_at(elements + place, format!("key '{key}': {other} is not 0 or 1")));
            }
        }
        let bytes =
            self.bytes.get(elements..self.at).ok_or_else(|| Error::internal("an array outside its file"))?;
        Ok(Value::Array(Array::copy_of(code, len, bytes)?))
    }

    fn scalar(&mut self, code: u32, key: &str) -> Result<Value> {
        let start = self.at;
        if code == STR {
            let text = self.string(key, u64::MAX)?;
            return Ok(Value::Str(copied(text)?));
        }
        let size = number_bytes(code).ok_or_else(|| self.unknown_type(start, code, key))?;
        let bytes = self.take(size, key)?;
        number(code, bytes).ok_or_else(|| {
            let other = bytes.first().copied().unwrap_or_default();
            self.bad_at(start, format!("key '{key}': {other} is not 0 or 1"))
        })
    }

    fn unknown_type(&self, start: usize, code: u32, key: &str) -> Error {
        self.bad_at(start, format!("key '{key}' has the unknown type number {code}"))
    }

    fn count(&mut self, what: &str, max: u64) -> Result<u64> {
        let start = self.at;
        let count = self.u64(what)?;
        if count > max {
            return Err(self.bad_at(start, format!("{count} {what}: more than {max}")));
        }
        Ok(count)
    }

    fn string(&mut self, what: &str, max_bytes: u64) -> Result<&'a str> {
        let start = self.at;
        let len = self.u64(what)?;
        if len > max_bytes {
            return Err(self.bad_at(start, format!("{what}: {len} bytes, at most {max_bytes} are allowed")));
        }
        let len = usize::try_from(len)
            .map_err(|_| self.bad_at(start, format!("{what}: {len} bytes do not fit the file")))?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.bad_at(start, format!("{what}: the text is not UTF-8")))
    }

    fn u32(&mut self, what: impl Display) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed(what)?))
    }

    fn u64(&mut self, what: impl Display) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fixed(what)?))
    }

    fn fixed<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    fn take(&mut self, len: usize, what: impl Display) -> Result<&'a [u8]> {
        let start = self.at;
        let slice = start.checked_add(len).and_then(|end| self.bytes.get(start..end));
        let slice = slice.ok_or_else(|| self.bad_at(start, format!("the file ends inside {what}")))?;
        self.at += len;
        Ok(slice)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn bad_at(&self, offset: usize, what: impl Display) -> Error {
        Error::bad_file(self.file, format!("{what} (offset {offset})"))
    }
}
