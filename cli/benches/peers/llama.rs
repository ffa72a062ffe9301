//! llama.cpp, from its Python package: a GPT-2 of the shape `small` that decodes token by token.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use esolm::gguf::{TensorType, Value, Writer};
use esolm::{Error, Result, TensorSpec};

use crate::TOKENS;
use crate::python::Program;
use crate::synthetic::uniform;

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

/// Writes to `file`, which messages call `name`, a model with `writer`'s metadata and random `tensors`: matrices f16, uniform
/// in +-0.03; vectors f32, about 1.
fn write_random_weights(
    (file, name): (&File, &str),
    mut writer: Writer,
    tensors: &[TensorSpec],
) -> Result<()> {
    writer.set_file_name(name);
    for tensor in tensors {
        let ty = if tensor.dims.len() > 1 { TensorType::F16 } else { TensorType::F32 };
        writer.declare(&tensor.name, ty, &tensor.dims)?;
    }
    let mut uniform = uniform(1);
    let mut out = BufWriter::new(file);
    writer.write(&mut out, |name, bytes| {
        let tensor = tensors.iter().find(|t| t.name == name);
        let dims = &tensor.ok_or_else(|| Error::Internal(format!("no tensor {name}")))?.dims;
        let count = dims.iter().product();
        if dims.len() > 1 {
            bytes.extend((0..count).flat_map(|_| half::f16::from_f32(0.03 * uniform()).to_le_bytes()));
        } else {
            bytes.extend((0..count).flat_map(|_| (1.0 + 0.1 * uniform()).to_le_bytes()));
        }
        Ok(())
    })?;
    // What a buffer writes when it is dropped fails in silence.
    out.flush().map_err(|source| Error::Io { file: name.into(), source })
}
