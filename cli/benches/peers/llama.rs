//! llama.cpp, from its Python package: a GPT-2 of the shape `small` that decodes token by token.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use esolm::gguf::{TensorType, Value, Writer};
use esolm::{Error, Result, TensorSpec};

use crate::TOKENS;
use crate::python::Program;
use crate::synthetic::write_random_weights;

const WIDTH: usize = 768;
const BLOCKS: usize = 12;
const HEADS: usize = 12;
const VOCABULARY: usize = 50258;

/// Writes a model with random weights and starts `llama.py` with it, which quantizes it to `ty`.
pub fn start(python: &str, ty: TensorType, threads: usize) -> Result<Program> {
    let io = |source| Error::Io { file: "temporary folder".into(), source };
    let folder = tempfile::tempdir().map_err(io)?;
    let path = folder.path().join("peer.gguf");
    write(&path)?;
    let threads = threads.to_string();
    Program::start(python, "llama.py", [path.as_os_str(), OsStr::new(ty.name()), OsStr::new(&threads)])
}

/// A GPT-2 with random f16 weights and no tokenizer.
fn write(path: &Path) -> Result<()> {
    let mut writer = Writer::new();
    writer.set("general.architecture", Value::Str("gpt2".into()));
    writer.set("tokenizer.ggml.model", Value::Str("no_vocab".into()));
    writer.set("gpt2.attention.layer_norm_epsilon", Value::F32(1e-5));
    for (key, value) in [
        ("vocab_size", VOCABULARY),
        ("context_length", TOKENS),
        ("embedding_length", WIDTH),
        ("feed_forward_length", 4 * WIDTH),
        ("block_count", BLOCKS),
        ("attention.head_count", HEADS),
    ] {
        writer.set(&format!("gpt2.{key}"), Value::U32(value as u32));
    }
    let mut tensors = Vec::new();
    let mut add = |name: String, dims: &[usize]| tensors.push(TensorSpec { name, dims: dims.to_vec() });
    add("token_embd.weight".into(), &[WIDTH, VOCABULARY]);
    add("position_embd.weight".into(), &[WIDTH, TOKENS]);
    add("output_norm.weight".into(), &[WIDTH]);
    add("output_norm.bias".into(), &[WIDTH]);
    add("output.weight".into(), &[WIDTH, VOCABULARY]);
    for block in 0..BLOCKS {
        for (name, dims) in [
            ("attn_qkv", [WIDTH, 3 * WIDTH]),
            ("attn_output", [WIDTH, WIDTH]),
            ("ffn_up", [WIDTH, 4 * WIDTH]),
            ("ffn_down", [4 * WIDTH, WIDTH]),
        ] {
            add(format!("blk.{block}.{name}.weight"), &dims);
            add(format!("blk.{block}.{name}.bias"), &dims[1..]);
        }
        for name in ["attn_norm", "ffn_norm"] {
            add(format!("blk.{block}.{name}.weight"), &[WIDTH]);
            add(format!("blk.{block}.{name}.bias"), &[WIDTH]);
        }
    }
    let name = path.display().to_string();
    let file = File::create(path).map_err(|source| Error::Io { file: name.clone(), source })?;
    write_random_weights((&file, &name), writer, &tensors)
}
