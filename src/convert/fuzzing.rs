//! Parts of a conversion that read bytes, for `crate::fuzzing`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use serde_json::Value;

use super::json::{MAX_VALUES, parse};
use super::options::{Options, TokenizerSource, WeightSet};
use super::pickle::Pickle;
use super::settings::settings;
use super::source::{Dtype, FoundTokenizer, Listing, Source, SourceTensor};
use super::zip::Span;
use super::{checkpoint, lightning};
use crate::error::{Error, Result};

/// The entries of a zip.
pub fn zip(bytes: &[u8]) -> Result<()> {
    super::zip::entries(&mut Cursor::new(bytes), bytes.len() as u64, Path::new("model.ckpt")).map(|_| ())
}

/// The header at the start of `bytes`, the first ones of a safetensors file of `file_bytes`.
pub fn safetensors(mut bytes: &[u8], file_bytes: u64) -> Result<()> {
    let path = Path::new("model.safetensors");
    super::safetensors::read_header(&mut bytes, file_bytes, path, 0, &mut Listing::default())
}

/// The zip's entries beside a pickle.
pub struct Storages(HashMap<String, Span>);

impl Storages {
    /// `data/0`, `data/1` and so on, of so many bytes.
    pub fn new(sizes: &[u64]) -> Self {
        let entry = |(number, &len): (usize, &u64)| {
            (format!("archive/data/{number}"), Span { offset: 64 * number as u64, len })
        };
        Self(sizes.iter().enumerate().map(entry).collect())
    }

    /// The pickle of a checkpoint with these storages: its tensors, configuration and tokenizer.
    pub fn checkpoint(&self, pickle: &[u8], raw: bool) -> Result<()> {
        let pickle = Pickle::parse(pickle, "model.ckpt")?;
        checkpoint::weights(&pickle, &self.0, "archive", "model.ckpt", raw)?;
        lightning::config(&pickle, "model.ckpt")?;
        lightning::tokenizer(&pickle)?;
        Ok(())
    }
}

/// The tensors of models of one block, as far as the hyperparameters come from them.
const SHAPES: [(&str, &[usize]); 7] = [
    ("vocab_embed.embedding", &[24, 8]),
    ("blocks.0.mlp.0.weight", &[32, 8]),
    ("sigma_map.mlp.0.weight", &[4, 256]),
    // Of a Qwen3; the configuration says which model it is.
    ("embed_tokens.weight", &[24, 8]),
    ("layers.0.mlp.gate_proj.weight", &[8, 8]),
    ("layers.0.self_attn.q_norm.weight", &[8]),
    ("lm_head.weight", &[24, 8]),
];

/// A model without a configuration.
pub struct Shapes(Source);

impl Shapes {
    /// One block of width 8. Where the weights are is not looked at: the file is this program.
    pub fn new() -> Result<Self> {
        let path = std::env::current_exe().map_err(|e| Error::io(Path::new("the program"), e))?;
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let tensor = |(name, shape): (&str, &[usize])| {
            (name.to_owned(), SourceTensor { dtype: Dtype::F32, shape: shape.to_vec(), file: 0, offset: 0 })
        };
        let listing = Listing { tensors: SHAPES.map(tensor).into(), others: Vec::new() };
        let (json, file_name) = (None, "tokenizer.json".to_owned());
        let origin = TokenizerSource::Beside;
        let none = FoundTokenizer {
            json,
            origin,
            file: file_name,
            bos: None,
            eos: None,
            mask: None,
            puts_bos: false,
            chat_template: None,
        };
        Source::new(vec![(file, path)], listing, Value::Null, none, WeightSet::AsStored).map(Self)
    }

    /// The hyperparameters by a `config.json`.
    pub fn configure(&mut self, json: &[u8]) -> Result<()> {
        self.0.config = parse(json, MAX_VALUES, "config.json")?;
        settings(&mut self.0, None, &Options::default()).map(|_| ())
    }
}
