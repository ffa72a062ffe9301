//! Writes a file in one pass: the header, then each tensor's bytes in the order declared.

use std::io::{Read, Write};

use super::format::{MAGIC, MAX_DIMS, MAX_TENSOR_NAME, VERSION, alignment};
use super::panels::{self, Layout};
use super::tensor_type::TensorType;
use super::value::{Value, put_string};
use crate::error::{Error, Result};
use crate::memory::{collected, copied, no_room, push, with_room};

const CACHE_LINE: u64 = 64;

/// Collects metadata and tensor descriptions, then writes the file. [`Writer::write`] takes the data of one tensor at a
/// time, so that only one is in memory.
#[derive(Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Declared>,
    /// The name of the file in errors.
    file: Option<String>,
    /// The bytes of metadata that there was no memory for.
    refused: Option<usize>,
}

/// A tensor of the file to write.
#[derive(Debug)]
struct Declared {
    name: String,
    ty: TensorType,
    layout: Layout,
    dims: Vec<usize>,
    /// Size of its data.
    bytes: usize,
}

impl Writer {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name that errors of writing give the file.
    pub fn set_file_name(&mut self, name: impl Into<String>) {
        self.file = Some(name.into());
    }

    /// Sets a metadata key. A key that was set before keeps its place in the file and gets the new value. If there is no
    /// memory for it, [`Writer::write`] says so.
    pub fn set(&mut self, key: &str, value: Value) {
        if let Some(entry) = self.metadata.iter_mut().find(|(k, _)| k == key) {
            entry.1 = value;
            return;
        }
        let added = copied(key).and_then(|key| push(&mut self.metadata, (key, value)));
        if added.is_err() {
            self.refused = Some(key.len());
        }
    }

    /// As [`Writer::set`], with a copy of `text`.
    pub fn set_text(&mut self, key: &str, text: &str) {
        match copied(text) {
            Ok(text) => self.set(key, Value::Str(text)),
            Err(_) => self.refused = Some(text.len()),
        }
    }

    /// Declares the next tensor: its name, type, and shape with the fastest dimension first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name is too long or taken, or the shape does not fit the type.
    pub fn declare(&mut self, name: &str, ty: TensorType, dims: &[usize]) -> Result<()> {
        self.declare_in(name, ty, Layout::Plain, dims)
    }

    /// As [`Writer::declare`], with the rows in `layout`.
    ///
    /// # Errors
    /// As [`Writer::declare`], also for what cannot lie in panels: only matrices of quantized types can.
    pub fn declare_in(&mut self, name: &str, ty: TensorType, layout: Layout, dims: &[usize]) -> Result<()> {
        if name.is_empty() || name.len() > MAX_TENSOR_NAME {
            return Err(Error::invalid(format!(
                "'{name}' is not a tensor name: 1 to {MAX_TENSOR_NAME} bytes"
            )));
        }
        if self.tensors.iter().any(|t| t.name == name) {
            return Err(Error::invalid(format!("tensor '{name}' is declared twice")));
        }
        let bytes =
            panels::tensor_bytes(ty, layout, dims).filter(|_| dims.len() <= MAX_DIMS).ok_or_else(|| {
                Error::invalid(format!(
                    "tensor '{name}': the shape {dims:?} does not fit the type {}",
                    ty.name()
                ))
            })?;
        let (name, dims) = (copied(name)?, collected(dims.iter().copied())?);
        push(&mut self.tensors, Declared { name, ty, layout, dims, bytes })
    }

    /// Bytes of the data of all tensors declared so far.
    #[cfg(feature = "convert")]
    pub(crate) fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes as u64).sum()
    }

    /// Writes the file to `out`. `data` is called once per declared tensor, in order, and appends exactly the
    /// tensor's bytes to the vector it is given.
    ///
    /// # Errors
    /// What `data` returns; [`Error::Internal`] if it gave the wrong number of bytes; [`Error::InvalidArgument`] for
    /// metadata that cannot be written; [`Error::OutOfMemory`], also of [`Writer::set`]; [`Error::Io`].
    pub fn write(
        &self,
        out: &mut dyn Write,
        mut data: impl FnMut(&str, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let file = || self.file.clone().unwrap_or_else(|| "the output file".into());
        let io = |source| Error::Io { file: file(), source };
        let alignment = alignment(&self.metadata).map_err(Error::invalid)?;
        if let Some(bytes) = self.refused {
            return Err(no_room(bytes));
        }
        let data_start = self.header_len().next_multiple_of(alignment as usize);
        let header = self.header(alignment, data_start)?;
        out.write_all(&header).map_err(io)?;
        let data_start = data_start as u64;
        let mut written = data_start;
        let mut bytes = Vec::new();
        for (tensor, offset) in self.tensors.iter().zip(self.offsets(alignment, data_start)) {
            let pad = data_start + offset - written;
            std::io::copy(&mut std::io::repeat(0).take(pad), out).map_err(io)?;
            bytes.clear();
            data(&tensor.name, &mut bytes)?;
            if bytes.len() != tensor.bytes {
                let Declared { name, bytes: expected, .. } = tensor;
                let given = bytes.len();
                return Err(Error::internal(format!(
                    "tensor '{name}' came with {given} bytes, not {expected}"
                )));
            }
            out.write_all(&bytes).map_err(io)?;
            written += pad + bytes.len() as u64;
        }
        out.flush().map_err(io)
    }

    /// Where each tensor's data begins, counted from the start of all data. Panels are aligned to cache lines in the file.
    fn offsets(&self, alignment: u64, data_start: u64) -> impl Iterator<Item = u64> {
        let mut offset = 0u64;
        self.tensors.iter().map(move |tensor: &Declared| {
            offset = offset.next_multiple_of(alignment);
            if tensor.layout == Layout::Panels && CACHE_LINE.is_multiple_of(alignment) {
                offset = (data_start + offset).next_multiple_of(CACHE_LINE) - data_start;
            }
            let at = offset;
            offset += tensor.bytes as u64;
            at
        })
    }

    /// Bytes of the header, without what aligns the data behind it.
    fn header_len(&self) -> usize {
        let keys = self.metadata.iter().map(|(key, value)| 8 + key.len() + 4 + value.encoded_len());
        let tensors =
            self.tensors.iter().map(|tensor| 8 + tensor.name.len() + 4 + 8 * tensor.dims.len() + 12);
        MAGIC.len() + size_of_val(&VERSION) + 16 + keys.chain(tensors).sum::<usize>()
    }

    /// The header, of `len` bytes.
    fn header(&self, alignment: u64, len: usize) -> Result<Vec<u8>> {
        let mut out = with_room(len)?;
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            out.extend(value.code().to_le_bytes());
            value.put(&mut out);
        }
        for (tensor, offset) in self.tensors.iter().zip(self.offsets(alignment, len as u64)) {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            for &dim in &tensor.dims {
                out.extend((dim as u64).to_le_bytes());
            }
            out.extend(tensor.layout.code(tensor.ty).to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        // The data section begins aligned, also when it is empty.
        match len.checked_sub(out.len()) {
            Some(rest) if rest < alignment as usize => out.resize(len, 0),
            _ => return Err(Error::internal(format!("a header of {} bytes, not {len}", out.len()))),
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alignment_that_no_reader_takes_is_refused() {
        for value in [Value::U32(0), Value::U32(48), Value::U64(64)] {
            let mut writer = Writer::new();
            writer.set("general.alignment", value);
            let error = writer.write(&mut Vec::new(), |_, _| Ok(())).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("alignment")), "{error}");
        }
    }
}
