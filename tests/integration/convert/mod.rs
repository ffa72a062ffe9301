//! The converter. This module has what its tests share.

mod chat_templates;
mod contents;
mod damaged;
mod files;
mod options;
mod output;
mod qwen;
mod special_tokens;
mod torch_save;
mod variants;

use std::collections::BTreeMap;
use std::path::Path;

use esolm::Error;
use esolm::convert::{Options, Report, convert};
use esolm::gguf::{Gguf, TensorInfo, TensorType};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tempfile::TempDir;

use crate::golden::path;
use crate::runs::file_names;

/// Converts `input` to a file in a directory of its own. Returns the report and the file's bytes.
fn converted(input: &Path, options: &Options) -> (Report, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let report = convert(input, &out, options, &mut |_| ()).unwrap();
    assert_eq!(report.bytes, std::fs::metadata(&out).unwrap().len());
    (report, std::fs::read(out).unwrap())
}

/// Every tensor of a file: its type, shape and bytes.
fn tensors(bytes: &[u8]) -> BTreeMap<String, (TensorType, Vec<usize>, Vec<u8>)> {
    let gguf = Gguf::parse(bytes, "out").unwrap();
    let one = |t: &TensorInfo| (t.name.clone(), (t.ty, t.dims.clone(), bytes[t.range.clone()].to_vec()));
    gguf.tensors().iter().map(one).collect()
}

/// A tensor's type, shape and bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A published model that a test changes before it is written down.
struct Published {
    tensors: BTreeMap<String, Stored>,
    config: Value,
}

impl Published {
    fn tiny() -> Self {
        Self::of("tiny-B")
    }

    /// A model of another golden folder.
    fn of(folder: &str) -> Self {
        let bytes = std::fs::read(path(folder).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .iter()
            .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
            .collect();
        let config =
            serde_json::from_slice(&std::fs::read(path(folder).join("config.json")).unwrap()).unwrap();
        Self { tensors, config }
    }

    /// These tensors as a safetensors file.
    fn serialized<'a>(tensors: impl Iterator<Item = (&'a String, &'a Stored)>) -> Vec<u8> {
        let views = tensors.map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    /// Writes `model.safetensors` and `config.json` into a new directory.
    fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), Self::serialized(self.tensors.iter())).unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        dir
    }

    /// The file that the unchanged way of writing it gives.
    fn plain(&self) -> Vec<u8> {
        converted(self.write().path(), &Options::default()).1
    }

    fn error(&self, options: &Options) -> Error {
        let dir = self.write();
        refused(dir.path(), options)
    }

    /// Overwrites one element of an f32 tensor.
    fn poke(&mut self, name: &str, element: usize, value: f32) {
        let data = &mut self.tensors.get_mut(name).unwrap().2;
        data[4 * element..4 * element + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The error of a conversion that has to fail, and to leave the output's directory empty.
fn refused(input: &Path, options: &Options) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let result = convert(input, &dir.path().join("model.gguf"), options, &mut |_| ());
    assert_eq!(file_names(dir.path()), Vec::<String>::new(), "a failure left files behind");
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}
