//! Inputs and outputs of the authors' code on tiny models: the folders of `tests/golden`.

use std::path::{Path, PathBuf};

use esolm::convert::{Options, SpecialToken, convert};
use esolm::{Context, ContextParams, KvType, Model};
use safetensors::SafeTensors;

use crate::runs::open;

pub const LENGTH: usize = 64;
pub const VOCAB: usize = 97;
pub const MASK: u32 = 96;
pub const BOS: u32 = 95;

/// The largest difference of logits with f32 weights and f32 keys and values; the reference's own noise is 2e-5.
pub const EXACT: f32 = 1e-4;

/// A file of a golden folder, such as `tiny-B/config.json`.
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// Converts a checkpoint or safetensors file. Returns the bytes of the GGUF file.
pub fn converted(input: &Path, options: &Options) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    convert(input, &out, options, &mut |_| ()).unwrap();
    std::fs::read(out).unwrap()
}

/// Converts a checkpoint or safetensors file and opens the result.
pub fn model(input: &Path, options: &Options) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    convert(input, &out, options, &mut |_| ()).unwrap();
    open(&out)
}

/// A context of `model` that computes as exactly as it can.
pub fn context(model: &Model, params: ContextParams) -> Context {
    Context::new(model, &ContextParams { kv_type: KvType::F32, threads: 2, ..params }).unwrap()
}

/// The arrays of one golden folder.
pub struct Golden {
    folder: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    /// `name` is `tiny-A`, `tiny-B`, `mdlm-tiny` or `ar-tiny`.
    pub fn open(name: &str) -> Self {
        let bytes = std::fs::read(path(name).join("golden.safetensors")).unwrap();
        Self { folder: path(name), bytes }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn numbers<const N: usize, T>(&self, name: &str, from: fn([u8; N]) -> T) -> Vec<T> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<N>().0.iter().map(|bytes| from(*bytes)).collect()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    pub fn ints(&self, name: &str) -> Vec<u32> {
        self.numbers(name, u32::from_le_bytes)
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.numbers(name, f32::from_le_bytes)
    }

    pub fn doubles(&self, name: &str) -> Vec<f64> {
        self.numbers(name, f64::from_le_bytes)
    }

    /// An array's rows of [`LENGTH`] numbers.
    pub fn int_rows(&self, name: &str) -> Vec<Vec<u32>> {
        self.ints(name).chunks(LENGTH).map(<[u32]>::to_vec).collect()
    }

    /// An array's rows of [`LENGTH`] numbers.
    pub fn float_rows(&self, name: &str) -> Vec<Vec<f32>> {
        self.floats(name).chunks(LENGTH).map(<[f32]>::to_vec).collect()
    }

    /// The model of the checkpoint.
    pub fn model(&self) -> Model {
        model(&self.path("checkpoint.ckpt"), &Options::default())
    }

    /// Contexts for the weights of the checkpoint and of the safetensors file.
    pub fn contexts(&self, sequences: usize) -> [Context; 2] {
        ["checkpoint.ckpt", "model.safetensors"].map(|input| {
            // Only the checkpoint has a tokenizer, which gives the BOS token.
            let options = Options { bos: Some(SpecialToken::Id(BOS)), ..Options::default() };
            let model = model(&self.path(input), &options);
            context(&model, ContextParams { sequences, ..ContextParams::default() })
        })
    }
}

/// Compares logits with the authors', from the row `from` on.
pub fn check_logits(what: &str, found: &[Vec<f32>], expected: &[f32], from: usize) {
    assert_eq!(expected.len(), found.len() * VOCAB);
    let mut largest = 0f32;
    for (row, expected) in found.iter().zip(expected.chunks(VOCAB)).skip(from) {
        assert_eq!(row.len(), VOCAB, "{what}: no logits");
        row.iter().zip(expected).for_each(|(a, b)| largest = largest.max((a - b).abs()));
    }
    println!("{what}: {largest:e}");
    assert!(largest <= EXACT, "{what}: {largest}");
}

/// Tokens by position, from tokens in generation order.
pub fn text(order: &[u32], tokens: &[u32]) -> Vec<u32> {
    let mut text = vec![0; order.len()];
    order.iter().zip(tokens).for_each(|(&p, &t)| text[p as usize] = t);
    text
}
