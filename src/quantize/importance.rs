//! The importance matrix: how much each column of a weight matrix matters.
//!
//! The file is GGUF with `general.type = "imatrix"`. For each observed matrix it has an f32 tensor of the matrix's name
//! with one entry per column: the mean square of the matrix's inputs. `imatrix.rows` is the number of inputs of the
//! matrix that had most.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorType, Value, Writer};
use crate::memory::{FileBytes, collected, copied, insert, reserve};
use crate::model::{Config, EMBEDDING};

/// `general.type` of the file.
const TYPE: &str = "imatrix";
/// Limits of a column's importance relative to the mean. With an importance of zero its weights would be arbitrary.
const MIN: f64 = 1e-4;
const MAX: f64 = 1e4;

/// Importance by matrix and column, relative to the matrix's mean.
#[derive(Debug)]
pub(crate) struct Importance(HashMap<String, Vec<f32>>);

impl Importance {
    /// Reads a file and checks it against the model.
    ///
    /// # Errors
    /// [`Error::Io`]; as [`Importance::parse`].
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        let file = FileBytes::read(path, &|_| Ok(()))?;
        Self::parse(file.bytes(), &path.display().to_string(), config)
    }

    /// Reads the bytes of a file, which `file` names in errors.
    ///
    /// # Errors
    /// [`Error::BadFile`] naming the tensor that is not a matrix of the model, has another length than the matrix's rows, or
    /// holds a negative or non-finite number.
    pub fn parse(bytes: &[u8], file: &str, config: &Config) -> Result<Self> {
        let gguf = Gguf::parse(bytes, file)?;
        let bad = |what: String| Error::bad_file(gguf.file(), what);
        if gguf.text("general.type")? != TYPE {
            return Err(bad("is not an importance matrix (general.type is not 'imatrix')".into()));
        }
        let mut rows: HashMap<String, usize> = HashMap::new();
        for spec in config.tensors()? {
            if let [row, _] = *spec.dims {
                insert(&mut rows, spec.name, row)?;
            }
        }
        let mut all = HashMap::new();
        for info in gguf.tensors() {
            let name = &info.name;
            let Some(&row) = rows.get(name) else {
                return Err(bad(format!("tensor '{name}' is not a matrix of the model")));
            };
            if info.dims != [row] || info.ty != TensorType::F32 {
                let (ty, dims) = (info.ty.name(), &info.dims);
                return Err(bad(format!(
                    "tensor '{name}' is {ty} {dims:?}, not f32 [{row}]: another model's?"
                )));
            }
            let data = info.bytes(bytes)?.as_chunks::<4>().0;
            let squares = || data.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
            if let Some(v) = squares().find(|v| !v.is_finite() || *v < 0.0) {
                return Err(bad(format!("tensor '{name}' holds {v}, which is not a mean square")));
            }
            let mean = squares().sum::<f64>() / row as f64;
            if mean <= 0.0 {
                return Err(bad(format!("tensor '{name}' is zero everywhere")));
            }
            let columns = collected(
                data.iter().map(|b| (f64::from(f32::from_le_bytes(*b)) / mean).clamp(MIN, MAX) as f32),
            )?;
            insert(&mut all, copied(name)?, columns)?;
        }
        Ok(Self(all))
    }

    /// The importance of a matrix's columns, if the file has it.
    pub fn columns(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// A note about matrices that are quantized without importance. The embedding has no input, unless it is the output's as well
    /// (`tied`).
    pub fn note<'a>(
        &self,
        tensors: impl Iterator<Item = (&'a str, TensorType)>,
        tied: bool,
    ) -> Option<String> {
        let unknown = |(name, ty): &(&str, TensorType)| {
            ty.is_quantized() && (tied || *name != EMBEDDING) && !self.0.contains_key(*name)
        };
        let mut unknown = tensors.filter(unknown);
        let (first, _) = unknown.next()?;
        let others = unknown.count();
        Some(format!("the importance matrix has no entry for '{first}' and {others} other matrices"))
    }
}

/// Writes each matrix's mean squares by column, over at most `rows` inputs, to `out`.
///
/// # Errors
/// [`Error::InvalidArgument`] for a name or a length that no tensor can have; [`Error::Io`].
pub(super) fn write(
    (out, file): (&mut dyn std::io::Write, &Path),
    observed: &[(String, Vec<f32>)],
    rows: u64,
) -> Result<()> {
    let mut writer = Writer::new();
    writer.set_file_name(file.display().to_string());
    writer.set_text("general.type", TYPE);
    writer.set_text("general.architecture", Config::ARCHITECTURE);
    writer.set("imatrix.rows", Value::U64(rows));
    for (name, columns) in observed {
        writer.declare(name, TensorType::F32, &[columns.len()])?;
    }
    let mut observed = observed.iter();
    writer.write(out, |_, bytes| {
        let (_, columns) =
            observed.next().ok_or_else(|| Error::internal("a tensor that was not declared"))?;
        reserve(bytes, size_of_val(columns.as_slice()))?;
        bytes.extend(columns.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    })
}
