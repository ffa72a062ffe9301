//! `esolm inspect`: what is in a model file.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use esolm::gguf::Value;
use esolm::{Context, ContextParams, LoadOptions, Model, Result};
use serde_json::{Map, json};

use crate::model_file::{human_bytes, resident_memory};

/// Show what is in a model file, and what running it takes.
#[derive(clap::Args)]
pub struct Args {
    /// The model file.
    model: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let before = resident_memory();
    let model = Model::open(&args.model, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let resident = resident_memory().zip(before).map(|(after, before)| after.saturating_sub(before));
    let memory = Context::memory_use(&model, &ContextParams::default())?;
    if args.json {
        let metadata: Map<String, serde_json::Value> =
            model.metadata().iter().map(|(key, value)| (key.clone(), to_json(value))).collect();
        let tensor = |t: &esolm::gguf::TensorInfo| {
            json!({ "name": t.name, "type": t.ty.name(), "shape": t.dims, "offset": t.range.start,
                    "bytes": t.range.len() })
        };
        let report = json!({
            "parameters": model.parameter_count(),
            "file_bytes": model.file_bytes(),
            "tensor_bytes": model.tensor_bytes(),
            "load_seconds": model.load_time().as_secs_f64(),
            "load_resident_bytes": resident,
            "context": { "arena_bytes": memory.arena, "kv_cache_bytes": memory.kv_cache,
                         "compute_bytes": memory.compute },
            "metadata": metadata,
            "tensors": model.tensors().iter().map(tensor).collect::<Vec<_>>(),
        });
        crate::print(&format!("{report:#}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{:.1} M parameters, {} on disk; opened in {:.1} ms, {} resident for it\n\
         a context of one text of {} tokens takes {}, of which {} are its K/V cache\n",
        model.parameter_count() as f64 / 1e6,
        human_bytes(model.file_bytes() as u64),
        model.load_time().as_secs_f64() * 1e3,
        resident.map_or("unknown".into(), human_bytes),
        model.config().context_length,
        human_bytes(memory.arena as u64),
        human_bytes(memory.kv_cache as u64),
    );
    for (key, value) in model.metadata() {
        let _ = writeln!(out, "{key:42} {value}");
    }
    let _ = writeln!(out);
    for t in model.tensors() {
        let shape = t.dims.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        let _ = writeln!(
            out,
            "{:28} {:>7} {shape:>16} {:>12}",
            t.name,
            t.ty.name(),
            human_bytes(t.range.len() as u64)
        );
    }
    crate::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// A value as JSON. The tokenizer, megabytes of text, is only told by its size.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(v) => json!(v),
        Value::Str(v) if v.len() <= 4096 => json!(v),
        Value::Array(v) if v.len() <= 4096 => v.iter().map(to_json).collect(),
        Value::Str(_) | Value::Array(_) => json!(value.to_string()),
        Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) => {
            value.to_string().parse::<serde_json::Number>().map_or(json!(value.to_string()), |n| json!(n))
        }
        _ => json!(value.as_u64()),
    }
}
