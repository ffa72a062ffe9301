//! `esolm inspect`: what a model file contains.

use std::fmt::{self, Display};
use std::process::ExitCode;

use esolm::gguf::Value;
use esolm::{Architecture, Config, Context, ContextParams, Feature, MemoryUse, Mlp, Model, Norm, Result};
use serde_json::{Map, json};

use crate::args::JsonArgs;
use crate::memory;
use crate::model_args::ModelArgs;
use crate::output::{Visible, human_bytes, print, print_json};

/// Show the metadata and tensors of a model file, and the memory that the model takes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm inspect
  esolm inspect model.gguf
  # A value, with jq
  esolm inspect --json | jq .parameters")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Device to load it on: auto, cpu, or a name listed by `esolm devices`
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, resident) = memory::added_by(|| args.model.open(&args.device));
    let model = model?;
    let context = Context::memory_use(&model, &ContextParams::default())?;
    if args.json.json {
        print_json(report(&model, resident, &context)?)?;
    } else {
        // Also where no terminal is: the listing is for people, and may be shown by another program.
        print(Visible(Listing { model: &model, resident, context: &context }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of what the model can be asked for.
fn supported(model: &Model) -> Vec<&'static str> {
    Feature::ALL.into_iter().filter(|&feature| model.supports(feature)).map(Feature::name).collect()
}

/// What the network consists of, in a line.
fn network(config: &Config) -> String {
    let Architecture { norm, mlp, attention_bias, qk_norm, tied_output, .. } = config.architecture;
    let norm = match norm {
        Norm::Layer => "LayerNorm",
        Norm::Rms => "RMSNorm",
    };
    let mlp = match mlp {
        Mlp::Gelu => "GELU",
        Mlp::SwiGlu => "SwiGLU",
    };
    let (heads, kv_heads) = (config.head_count, config.kv_head_count());
    let shared = if kv_heads < heads { format!(" on {kv_heads} of keys and values") } else { String::new() };
    let more = [
        (attention_bias, ", biases of queries, keys and values"),
        (qk_norm, ", norms of queries and keys"),
        (tied_output, ", the embedding as output matrix"),
    ];
    let more: String = more.into_iter().filter(|(there, _)| *there).map(|(_, text)| text).collect();
    format!(
        "{} blocks of width {}, {heads} heads of {}{shared}, {mlp} of width {}, {norm}{more}",
        config.block_count,
        config.embedding_length,
        config.head_dim(),
        config.feed_forward_length
    )
}

fn report(model: &Model, resident: Option<u64>, context: &MemoryUse) -> Result<serde_json::Value> {
    // An element takes far more memory as JSON than in the file.
    let mut elements_left = 1 << 16;
    let entry = |(key, value): &(String, Value)| Ok((key.clone(), to_json(value, &mut elements_left)?));
    let metadata: Map<String, serde_json::Value> =
        model.metadata().iter().map(entry).collect::<Result<_>>()?;
    let tensor = |t: &esolm::gguf::TensorInfo| {
        json!({ "name": t.name, "type": t.ty.name(), "layout": t.layout.name(), "shape": t.dims, "offset": t.range.start,
                    "bytes": t.range.len() })
    };
    Ok(json!({
        "parameters": model.parameter_count(),
        "file_bytes": model.file_bytes(),
        "tensor_bytes": model.tensor_bytes(),
        "load_seconds": model.load_time().as_secs_f64(),
        "load_resident_bytes": resident,
        "device": model.device(),
        "network": network(model.config()),
        "context": { "arena_bytes": context.arena, "kv_cache_bytes": context.kv_cache,
                     "compute_bytes": context.compute },
        "supports": supported(model),
        "metadata": metadata,
        "tensors": model.tensors().iter().map(tensor).collect::<Vec<_>>(),
    }))
}

/// What people see.
struct Listing<'a> {
    model: &'a Model,
    /// Bytes that opening it made resident.
    resident: Option<u64>,
    context: &'a MemoryUse,
}

impl Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, resident, context } = *self;
        writeln!(
            f,
            "{:.1} M parameters, {} on disk; loaded on {} in {:.1} ms, which made {} resident\n\
         a context for one text of {} tokens takes {}, of which {} are the K/V cache\n\
         {}\n\
         supports {}\n",
            model.parameter_count() as f64 / 1e6,
            human_bytes(model.file_bytes() as u64),
            model.device(),
            model.load_time().as_secs_f64() * 1e3,
            memory::describe(resident),
            ContextParams::default_length(model.config()),
            human_bytes(context.arena as u64),
            human_bytes(context.kv_cache as u64),
            network(model.config()),
            supported(model).join(", "),
        )?;
        for (key, value) in model.metadata() {
            writeln!(f, "{key:42} {value}")?;
        }
        writeln!(f)?;
        for t in model.tensors() {
            let shape = t.dims.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            writeln!(
                f,
                "{:28} {:>7} {:6} {shape:>16} {:>12}",
                t.name,
                t.ty.name(),
                if t.ty.is_quantized() { t.layout.name() } else { "" },
                human_bytes(t.range.len() as u64)
            )?;
        }
        Ok(())
    }
}

/// A value as JSON. Of long texts and arrays, such as the tokenizer, only the size is shown, and of all arrays once
/// `elements_left` elements have been shown.
fn to_json(value: &Value, elements_left: &mut usize) -> Result<serde_json::Value> {
    Ok(match value {
        Value::Bool(v) => json!(v),
        Value::Str(v) if v.len() <= 4096 => json!(v),
        Value::Array(v) if v.len() <= 4096.min(*elements_left) => {
            *elements_left -= v.len();
            v.iter().map(|element| to_json(&element?, elements_left)).collect::<Result<_>>()?
        }
        Value::Str(_) | Value::Array(_) => json!(value.to_string()),
        // As decimal text first, so that an f32 keeps its shortest form. NaN and infinity stay text.
        Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) => {
            value.to_string().parse::<serde_json::Number>().map_or(json!(value.to_string()), |n| json!(n))
        }
        _ => json!(value.as_u64()),
    })
}
