//! Quantizing. This module has what its tests share.

mod errors;
mod files;
mod importance;
mod panels;
mod types;

use std::path::{Path, PathBuf};

use esolm::gguf::{TensorType, Value, Writer};
use esolm::quantize::{QuantizeOptions, QuantizeReport, Rule, quantize};
use esolm::{Config, Error};
use tempfile::TempDir;

use crate::reference::{Network, config};
use crate::runs::file_names;

/// A model with rows of whole blocks of every type.
fn wide() -> Config {
    Config { embedding_length: 256, feed_forward_length: 512, ..config(2, 4) }
}

/// A model file `input` in a directory of its own.
struct Scratch {
    dir: TempDir,
    input: PathBuf,
}

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.gguf");
        std::fs::write(&input, bytes).unwrap();
        Self { dir, input }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Quantizes `input` to `name`.
    fn quantize(&self, name: &str, options: &QuantizeOptions) -> Result<QuantizeReport, Error> {
        quantize(&self.input, &self.path(name), options, &mut |_| ())
    }

    fn to(&self, name: &str, ty: TensorType) -> QuantizeReport {
        self.quantize(name, &QuantizeOptions::new(ty)).unwrap()
    }

    /// The error of quantizing, which must leave nothing behind.
    fn error(&self, options: &QuantizeOptions) -> Error {
        let before = file_names(self.dir.path());
        let error = self.quantize("out.gguf", options).unwrap_err();
        assert_eq!(file_names(self.dir.path()), before, "a failure left files behind");
        error
    }
}

/// Options that give all tensors the type, biases and norms aside.
fn all_tensors(ty: TensorType) -> QuantizeOptions {
    let mut options = QuantizeOptions::new(ty);
    options.policy.rules.push(Rule::new("*", ty));
    options
}

/// A file's weights: quantizing to f32 unpacks.
fn unpacked(path: &Path) -> Network {
    let scratch = Scratch::new(&std::fs::read(path).unwrap());
    scratch.quantize("f32.gguf", &all_tensors(TensorType::F32)).unwrap();
    Network::from_gguf(&std::fs::read(scratch.path("f32.gguf")).unwrap())
}

/// Writes an importance matrix with these tensors.
fn write_importance(path: &Path, tensors: &[(&str, Vec<f32>)]) {
    let mut writer = Writer::new();
    writer.set("general.type", Value::Str("imatrix".into()));
    for (name, values) in tensors {
        writer.declare(name, TensorType::F32, &[values.len()]).unwrap();
    }
    let mut out = Vec::new();
    let data = |name: &str, to: &mut Vec<u8>| {
        let (_, values) = tensors.iter().find(|(n, _)| *n == name).unwrap();
        to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    };
    writer.write(&mut out, data).unwrap();
    std::fs::write(path, out).unwrap();
}
