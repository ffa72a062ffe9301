//! llama.cpp, as the ggml crate carries it: a GPT-2 of the shape `small` that decodes token by token.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use esolm::config::TensorSpec;
use esolm::gguf::{TensorType, Value, Writer};
use esolm::{Error, Result};
use ggml_sys as sys;

use crate::TOKENS;
use crate::made_up::{MadeUp, fill};

const WIDTH: usize = 768;
const BLOCKS: usize = 12;
const HEADS: usize = 12;
const VOCABULARY: usize = 50258;

/// A model, a context and its threads.
pub struct Gpt2 {
    model: *mut sys::llama_model,
    context: *mut sys::llama_context,
    pool: *mut sys::ggml_threadpool,
    _file: MadeUp,
}

impl Gpt2 {
    /// Writes a model with random weights, lets llama.cpp quantize it by its own rules (q4_k: "Q4_K_M"), and
    /// opens it with a persistent thread pool and f16 K/V, its default.
    pub fn new(ty: TensorType, threads: usize) -> Result<Self> {
        let file = |name: &str| MadeUp {
            path: std::env::temp_dir().join(format!("esolm-peer-{}-{name}.gguf", std::process::id())),
        };
        let (plain, packed) = (file("f16"), file("packed"));
        write(&plain.path)?;
        // SAFETY: a callback that does nothing with what it is given.
        unsafe { sys::llama_log_set(Some(silent), std::ptr::null_mut()) };
        // SAFETY: no arguments.
        let mut how = unsafe { sys::llama_model_quantize_default_params() };
        how.ftype = match ty {
            TensorType::F32 => sys::LLAMA_FTYPE_ALL_F32,
            TensorType::F16 => sys::LLAMA_FTYPE_MOSTLY_F16,
            TensorType::Q8_0 => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
            TensorType::Q4K => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
            TensorType::Q4_0 => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
            _ => return Err(Error::Unsupported(format!("no comparison with llama.cpp in {}", ty.name()))),
        };
        how.nthread = threads as i32;
        let (from, to) = (c_path(&plain.path)?, c_path(&packed.path)?);
        // SAFETY: two terminated strings and initialized parameters, alive during the call.
        if unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &how) } != 0 {
            return Err(failed("quantize"));
        }
        // SAFETY: no arguments.
        let params = unsafe { sys::llama_model_default_params() };
        // SAFETY: a terminated string.
        let model = unsafe { sys::llama_model_load_from_file(to.as_ptr(), params) };
        if model.is_null() {
            return Err(failed("load"));
        }
        // SAFETY: no arguments.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = TOKENS as u32;
        params.n_threads = threads as i32;
        params.n_threads_batch = threads as i32;
        // SAFETY: the model that was just loaded.
        let context = unsafe { sys::llama_init_from_model(model, params) };
        if context.is_null() {
            return Err(failed("make a context"));
        }
        // SAFETY: a number.
        let mut threads = unsafe { sys::ggml_threadpool_params_default(threads as i32) };
        // SAFETY: parameters that are alive during the call.
        let pool = unsafe { sys::ggml_threadpool_new(&mut threads) };
        // SAFETY: both live until `drop`.
        unsafe { sys::llama_attach_threadpool(context, pool, pool) };
        Ok(Self { model, context, pool, _file: packed })
    }

    /// Decodes `count` tokens from an empty context, each the most likely one after the last.
    pub fn decode(&mut self, count: usize) -> Result<()> {
        // SAFETY: the context is alive.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context), false) };
        let mut token = 0;
        for _ in 0..count {
            // SAFETY: one token that is alive until the batch was decoded.
            let failure = unsafe {
                let batch = sys::llama_batch_get_one(&mut token, 1);
                sys::llama_decode(self.context, batch)
            };
            if failure != 0 {
                return Err(failed("decode"));
            }
            // SAFETY: the last row's logits, one for each token of the vocabulary, until the next decoding.
            let logits = unsafe {
                std::slice::from_raw_parts(sys::llama_get_logits_ith(self.context, -1), VOCABULARY)
            };
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            token = best.map_or(0, |(token, _)| token as i32);
        }
        Ok(())
    }
}

impl Drop for Gpt2 {
    fn drop(&mut self) {
        // SAFETY: each is freed once, what uses the other first.
        unsafe {
            sys::llama_free(self.context);
            sys::llama_model_free(self.model);
            sys::ggml_threadpool_free(self.pool);
        }
    }
}

unsafe extern "C" fn silent(_: sys::ggml_log_level, _: *const std::ffi::c_char, _: *mut std::ffi::c_void) {}

fn failed(what: &str) -> Error {
    Error::Device(format!("llama.cpp could not {what}"))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::InvalidArgument(format!("{} holds a zero byte", path.display())))
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
    fill(path, writer, &tensors)
}
