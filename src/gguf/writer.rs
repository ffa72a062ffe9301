//! The writer. It streams: the header is written first, then each tensor's bytes in the order declared.

use std::io::Write;

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_TENSOR_NAME, TensorType, VERSION, Value};
use crate::error::{Error, Result};

/// Collects a file's description, then writes it. Memory stays small: tensor data is handed over one tensor
/// at a time through [`Writer::write`].
#[derive(Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, TensorType, Vec<usize>)>,
}

impl Writer {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry. A key that is there already gets the new value.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.metadata.iter_mut().find(|(k, _)| k == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
    }

    /// Declares the next tensor: its name, type, and shape with the fastest dimension first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name is too long or taken, or the shape does not fit the type.
    pub fn declare(&mut self, name: &str, ty: TensorType, dims: &[usize]) -> Result<()> {
        if name.is_empty() || name.len() > MAX_TENSOR_NAME {
            return Err(Error::invalid(format!("'{name}' is no tensor name")));
        }
        if self.tensors.iter().any(|(n, ..)| n == name) {
            return Err(Error::invalid(format!("tensor '{name}' is declared twice")));
        }
        if ty.tensor_bytes(dims).is_none() {
            return Err(Error::invalid(format!("tensor '{name}': {dims:?} does not fit {}", ty.name())));
        }
        self.tensors.push((name.to_owned(), ty, dims.to_vec()));
        Ok(())
    }

    /// Writes the file to `out`. `data` is called once per declared tensor, in order, and appends exactly the
    /// tensor's bytes to the vector it is given.
    ///
    /// # Errors
    /// What `data` returns; [`Error::Internal`] if it gave the wrong number of bytes; [`Error::Io`].
    pub fn write(
        &self,
        out: &mut dyn Write,
        mut data: impl FnMut(&str, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let io = |source| Error::Io { file: "the output file".into(), source };
        let alignment = match self.metadata.iter().find(|(k, _)| k == ALIGNMENT_KEY) {
            Some((_, Value::U32(a))) => u64::from(*a),
            _ => DEFAULT_ALIGNMENT,
        };
        let header = self.header(alignment)?;
        out.write_all(&header).map_err(io)?;
        let mut written = header.len() as u64;
        let mut bytes = Vec::new();
        for (name, ty, dims) in &self.tensors {
            let pad = written.next_multiple_of(alignment) - written;
            out.write_all(&vec![0; pad as usize]).map_err(io)?;
            bytes.clear();
            data(name, &mut bytes)?;
            if ty.tensor_bytes(dims) != Some(bytes.len()) {
                return Err(Error::internal(format!("tensor '{name}' came with {} bytes", bytes.len())));
            }
            out.write_all(&bytes).map_err(io)?;
            written += pad + bytes.len() as u64;
        }
        Ok(())
    }

    fn header(&self, alignment: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            out.extend(value.code().to_le_bytes());
            put_value(&mut out, value)?;
        }
        let mut offset = 0u64;
        for (name, ty, dims) in &self.tensors {
            put_string(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            for &dim in dims {
                out.extend((dim as u64).to_le_bytes());
            }
            out.extend(ty.code().to_le_bytes());
            out.extend(offset.to_le_bytes());
            let len = ty.tensor_bytes(dims).unwrap_or(0) as u64;
            offset = (offset + len).next_multiple_of(alignment);
        }
        // The data section begins aligned, also when it is empty.
        out.resize(out.len().next_multiple_of(alignment as usize), 0);
        Ok(out)
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::Str(v) => put_string(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Array(elements) => {
            let code = elements.first().map_or(Value::U8(0).code(), Value::code);
            if elements.iter().any(|e| e.code() != code || matches!(e, Value::Array(_))) {
                return Err(Error::invalid("an array's values must all be of one type, and no arrays"));
            }
            out.extend(code.to_le_bytes());
            out.extend((elements.len() as u64).to_le_bytes());
            for element in elements {
                put_value(out, element)?;
            }
        }
    }
    Ok(())
}
