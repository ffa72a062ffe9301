//! Quantizing a matrix on several threads. Rows do not depend on each other, so the result does not depend on the number
//! of threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::ggml::quantize;
use crate::gguf::TensorType;
use crate::memory::{reserve, start_scoped};

/// Weights that a thread quantizes at a time.
const CHUNK: usize = 1 << 16;

/// How a tensor is quantized.
pub(crate) struct Packing<'a> {
    /// The file and the tensor, for errors.
    pub file: &'a str,
    pub name: &'a str,
    pub ty: TensorType,
    /// Elements of a row.
    pub row_len: usize,
    /// How much each column matters [row_len], if known.
    pub importance: Option<&'a [f32]>,
    pub threads: usize,
}

impl Packing<'_> {
    /// Quantizes `rows` rows and appends them to `out`. `fetch` appends the values of a range of rows to a vector, which has
    /// room for them; it is called from several threads.
    ///
    /// # Errors
    /// [`Error::BadFile`] for a value that the type cannot represent; what `fetch` returns.
    pub fn pack(
        &self,
        rows: usize,
        fetch: impl Fn(Range<usize>, &mut Vec<f32>) -> Result<()> + Sync,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let row_bytes = self.ty.row_bytes(self.row_len).filter(|&bytes| bytes > 0);
        let row_bytes = row_bytes.ok_or_else(|| Error::internal(format!("rows of '{}'", self.name)))?;
        let len = rows.checked_mul(row_bytes);
        let len = len.ok_or_else(|| Error::internal(format!("the size of '{}' overflows", self.name)))?;
        let start = out.len();
        reserve(out, len)?;
        out.resize(start + len, 0);
        let (_, packed) = out.split_at_mut(start);
        let step = (CHUNK / self.row_len).max(1);
        let chunks = packed.chunks_mut(step * row_bytes);
        let threads = self.threads.clamp(1, chunks.len().max(1));
        let chunks = Mutex::new(chunks.enumerate());
        // Of several failures that of the first rows, so that the error does not depend on timing.
        let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || {
            let mut values = Vec::new();
            loop {
                let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, packed)) = next else { return };
                let first = index * step;
                values.clear();
                let rows = packed.len() / row_bytes;
                let done = reserve(&mut values, rows * self.row_len)
                    .and_then(|()| fetch(first..first + rows, &mut values))
                    .and_then(|()| self.pack_rows(&values, packed));
                if let Err(error) = done {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if failure.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                        *failure = Some((index, error));
                    }
                    return;
                }
            }
        };
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    // If a thread cannot be started, the others do its work.
                    let _ = start_scoped(scope, None, work);
                }
                work();
            });
        }
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Quantizes rows after checking their range: f16, and therefore every block's scale, ends at 65504.
    fn pack_rows(&self, values: &[f32], packed: &mut [u8]) -> Result<()> {
        let largest = match self.ty {
            TensorType::F32 => f32::MAX,
            TensorType::Bf16 => half::bf16::MAX.to_f32(),
            _ => half::f16::MAX.to_f32(),
        };
        let bad = |what: String| Error::bad_file(self.file, format!("tensor '{}' {what}", self.name));
        if let Some(v) = values.iter().find(|v| v.is_nan() || v.abs() > largest) {
            return Err(bad(format!("holds {v}, which {} cannot represent", self.ty.name())));
        }
        match quantize(self.ty, values, self.row_len, self.importance, packed) {
            Err(Error::NotFinite(what)) => Err(bad(format!("cannot be quantized: {what}"))),
            other => other,
        }
    }
}
