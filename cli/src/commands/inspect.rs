//! `esolm inspect`: what a model file contains.

use std::fmt::{self, Display};
use std::process::ExitCode;

use esolm::gguf::Value;
use esolm::{
    Architecture, Config, Context, ContextParams, Feature, KvType, MemoryUse, Mlp, Model, Norm, Result,
};
use serde_json::{Map, json};

use crate::args::{JsonArgs, kv_types};
use crate::memory;
use crate::model_args::ModelArgs;
use crate::output::{Visible, human_bytes, print, print_json};

/// Show the metadata and tensors of a model file, and the memory that the model takes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm inspect
  esolm inspect model.gguf
  # The memory of a long text with a small cache
  esolm inspect model.gguf --length 16384 --kv-type q8_0
  # A value, with jq
  esolm inspect --json | jq .parameters")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Device to load it on: auto, cpu, or a name listed by `esolm devices`
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
    /// Longest text in tokens of the context whose memory is shown. Default, or 0: the model's context length, but 4096 at most.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    length: usize,
    /// Data type of that context's K/V cache.
    #[arg(long, default_value = "f16", value_parser = kv_types(), value_name = "TYPE")]
    kv_type: KvType,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, resident) = memory::added_by(|| args.model.open(&args.device));
    let model = model?;
    let length = match args.length {
        0 => ContextParams::default_length(model.config()),
        length => length,
    };
    let params = ContextParams { length, kv_type: args.kv_type, ..ContextParams::default() };
    let context = Context::memory_use(&model, &params)?;
    if args.json.json {
        print_json(report(&model, resident, &context)?)?;
    } else {
        // Also where no terminal is: the listing is for people, and may be shown by another program.
        print(Visible(Listing { model: &model, resident, length, context: &context }))?;
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

/// By this key llama.cpp puts the token that begins a text before each prompt.
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// That token, if the file says so.
fn wanted_first(model: &Model) -> Option<u32> {
    let wanted = matches!(model.metadata_value(ADD_BOS), Some(Value::Bool(true)));
    model.config().bos_token_id.filter(|_| wanted)
}

/// What people see.
struct Listing<'a> {
    model: &'a Model,
    /// Bytes that opening it made resident.
    resident: Option<u64>,
    /// Of the context, in tokens.
    length: usize,
    context: &'a MemoryUse,
}

impl Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, resident, length, context } = *self;
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
            length,
            human_bytes(context.arena as u64),
            human_bytes(context.kv_cache as u64),
            network(model.config()),
            supported(model).join(", "),
        )?;
        match wanted_first(model) {
            Some(bos) if model.config().needs_first_token => writeln!(
                f,
                "texts were trained with token {bos} at their beginning ({ADD_BOS}), which no command puts there, unless a \
                 chat template does: with --special a prompt may name it\n"
            )?,
            Some(bos) if model.config().prepend_token_id == Some(bos) => {
                writeln!(f, "token {bos} stands before each text ({ADD_BOS}), and is no part of it\n")?
            }
            _ => (),
        }
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
