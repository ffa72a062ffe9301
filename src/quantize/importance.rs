//! How much each column of a matrix matters: the importance matrix.
//!
//! The file is GGUF with `general.type = "imatrix"`. For each matrix that was observed it has one f32 tensor of
//! the matrix's name, as long as the matrix's rows, with the mean square of the matrix's inputs by column;
//! `imatrix.rows` says over how many inputs the most observed one was taken.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorType, Value, Writer};
use crate::model::Config;

/// `general.type` of the file.
const TYPE: &str = "imatrix";
/// The least and the most that a column counts, compared with the mean: a column that was never active would
/// otherwise leave its weights undetermined.
const LEAST: f64 = 1e-4;
const MOST: f64 = 1e4;

/// Importance by matrix and column, 1 on the average.
#[derive(Debug)]
pub(crate) struct Importance(HashMap<String, Vec<f32>>);

impl Importance {
    /// Reads a file and checks it against the model.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadFile`] naming the tensor that is no matrix of the model, has another length
    /// than its rows, or holds a number that no mean square can be.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let gguf = Gguf::parse(&bytes, &path.display().to_string())?;
        let bad = |what: String| Error::bad_file(gguf.file(), what);
        if gguf.text("general.type")? != TYPE {
            return Err(bad("is no importance matrix (general.type is not 'imatrix')".into()));
        }
        let rows: HashMap<String, usize> = config
            .tensors()
            .into_iter()
            .filter(|spec| spec.dims.len() > 1)
            .map(|spec| (spec.name, spec.dims.first().copied().unwrap_or(0)))
            .collect();
        let mut all = HashMap::new();
        for info in gguf.tensors() {
            let name = &info.name;
            let Some(&row) = rows.get(name) else {
                return Err(bad(format!("tensor '{name}' is no matrix of the model")));
            };
            if info.dims != [row] || info.ty != TensorType::F32 {
                let (ty, dims) = (info.ty.name(), &info.dims);
                return Err(bad(format!(
                    "tensor '{name}' is {ty} {dims:?}, not f32 [{row}]: another model's?"
                )));
            }
            let data = bytes.get(info.range.clone()).unwrap_or_default().as_chunks::<4>().0;
            let squares: Vec<f64> = data.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
            if let Some(v) = squares.iter().find(|v| !v.is_finite() || **v < 0.0) {
                return Err(bad(format!("tensor '{name}' holds {v}, which is no mean square")));
            }
            let mean = squares.iter().sum::<f64>() / row as f64;
            if mean <= 0.0 {
                return Err(bad(format!("tensor '{name}' is zero everywhere")));
            }
            let columns = squares.iter().map(|v| (v / mean).clamp(LEAST, MOST) as f32).collect();
            all.insert(name.clone(), columns);
        }
        Ok(Self(all))
    }

    /// The importance of a matrix's columns, if it is known.
    pub fn columns(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// A sentence about quantized matrices that nothing is known of, apart from the embedding, which has no
    /// input.
    pub fn note<'a>(&self, tensors: impl Iterator<Item = (&'a str, TensorType)>) -> Option<String> {
        let unknown = |(name, ty): &(&str, TensorType)| {
            ty.is_quantized() && *name != "token_embd.weight" && !self.0.contains_key(*name)
        };
        let mut unknown = tensors.filter(unknown);
        let (first, _) = unknown.next()?;
        let others = unknown.count();
        Some(format!("the importance matrix does not know '{first}' and {others} other matrices"))
    }
}

/// Writes mean squares by matrix, observed over `rows` inputs, to `out`.
///
/// # Errors
/// [`Error::InvalidArgument`] for a name or a length that no tensor can have; [`Error::Io`].
pub(super) fn write(out: &mut dyn std::io::Write, observed: &[(String, Vec<f32>)], rows: u64) -> Result<()> {
    let mut writer = Writer::new();
    writer.set("general.type", Value::Str(TYPE.into()));
    writer.set("general.architecture", Value::Str(Config::ARCHITECTURE.into()));
    writer.set("imatrix.rows", Value::U64(rows));
    for (name, columns) in observed {
        writer.declare(name, TensorType::F32, &[columns.len()])?;
    }
    let mut observed = observed.iter();
    writer.write(out, |_, bytes| {
        let columns = observed.next().map_or(&[][..], |(_, columns)| columns);
        bytes.extend(columns.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    })
}
