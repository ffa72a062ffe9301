//! Writes the seeds of the targets that read binary files: `cargo run --example seeds` in this folder. The others are texts.

use std::path::Path;

use esolm::gguf::{Gguf, Layout, TensorType, Value as Entry, Writer};
use esolm::{Architecture, Config, Context, ContextParams, GenerateParams, KvType, Prompt, Variant};
use esolm_fuzz::{SHARDS, TOKENIZER, bytes, bytes_in, bytes_of_llama, config, model, zip, zip_of};
use serde_json::{Map, Value, json};

/// The variants of models.
const VARIANTS: [Variant; 6] =
    [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar, Variant::WeDlm, Variant::Bd3Lm];

fn write(name: &str, bytes: &[u8]) {
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name), bytes).expect("room");
}

fn main() {
    for variant in VARIANTS {
        write(&format!("gguf/{}", variant.name()), &bytes(&config(variant), TOKENIZER, TensorType::F32));
    }
    let b = config(Variant::EsoB);
    let wide = Config { embedding_length: 32, feed_forward_length: 32, ..b.clone() };
    write("gguf/q8_0", &bytes(&wide, TOKENIZER, TensorType::Q8_0));
    write("gguf/panels", &bytes_in(Layout::Panels, &wide, TOKENIZER, TensorType::Q8_0));
    let odd = Config { embedding_length: 6, head_count: 1, feed_forward_length: 7, ..b.clone() };
    write("gguf/odd", &bytes(&odd, TOKENIZER, TensorType::F32));
    let bare = Config { train_alpha_0: Some(0.5), bos_token_id: Some(1), ..b };
    write("gguf/bare", &bytes(&bare, "{}", TensorType::F32));
    for variant in VARIANTS {
        let bare = Config { train_alpha_0: Some(0.5), bos_token_id: Some(1), ..config(variant) };
        let file = bytes(&bare, "{}", TensorType::F32);
        write(&format!("read_gguf/{}", variant.name()), &file[..data_start(&file)]);
    }
    // As llama.cpp names keys and tensors, and has vocabularies.
    let qwen2 = Config {
        architecture: Architecture { qk_norm: false, ..Architecture::QWEN3 },
        ..config(Variant::Ar)
    };
    let qwen3 = Config {
        architecture: Architecture { tied_output: true, ..Architecture::QWEN3 },
        ..config(Variant::Ar)
    };
    for (name, config) in [("wedlm", config(Variant::WeDlm)), ("qwen2", qwen2), ("qwen3", qwen3)] {
        let file = bytes_of_llama(&config, TensorType::F32);
        write(&format!("gguf/llama-{name}"), &file);
        write(&format!("read_gguf/llama-{name}"), &file[..data_start(&file)]);
    }
    states();
    importance("imatrix", &wide);
    importance("read_imatrix", &config(Variant::EsoB));
    checkpoints();
    zips();
    shards();
}

/// Where the data of a file's tensors begin.
fn data_start(file: &[u8]) -> usize {
    let gguf = Gguf::parse(file, "a seed").expect("a model");
    gguf.tensors().iter().map(|tensor| tensor.range.start).min().expect("a tensor")
}

/// A zip with a comment, and one with 64-bit sizes.
fn zips() {
    let mut small = zip_of(b"N.", &[2]);
    let comment_len = small.len() - 2;
    small[comment_len] = 2;
    small.extend(b"ab");
    write("read_zip/comment", &small);
    let plain = zip_of(b"N.", &[1]);
    let end = plain.len() - 22;
    let number = |at: usize, bytes: usize| {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(&plain[end + at..][..bytes]);
        all
    };
    let [count, len, start] = [number(10, 2), number(12, 4), number(16, 4)];
    let record = [b"PK\x06\x06", &[0; 28][..], &count, &len, &start].concat();
    let locator = [b"PK\x06\x07", &[0; 4][..], &end.to_le_bytes(), &[0; 4]].concat();
    let last = [b"PK\x05\x06", &[0; 6][..], &[0xff; 10], &[0; 2]].concat();
    write("read_zip/wide", &[&plain[..end], &record, &locator, &last].concat());
}

/// States of each model and precision, after all steps and after two of them.
fn states() {
    for (kind, variant, kv_type) in
        [(0, Variant::EsoB, KvType::F16), (1, Variant::EsoB, KvType::F32), (2, Variant::Ar, KvType::F16)]
    {
        let params = ContextParams { sequences: 2, threads: 1, kv_type, ..ContextParams::default() };
        let mut context = Context::new(&model(variant), &params).expect("a context");
        for steps in [2, 16] {
            let prompts = [Prompt::prefix(&[1, 2]).unwrap(), Prompt::default()];
            let generate =
                GenerateParams { alpha_0: if kind == 2 { 0.0 } else { 0.5 }, ..GenerateParams::default() };
            context.begin(&prompts[..2 - kind % 2], &generate).expect("a session");
            for _ in 0..steps {
                context.step().expect("a step");
            }
            let state = context.save().expect("a state");
            for target in ["state", "read_state"] {
                write(&format!("{target}/{kind}-{steps}"), &[&[kind as u8], state.as_slice()].concat());
            }
        }
    }
}

/// The Qwen3 among the seeds of `safetensors`, in two shards.
fn shards() {
    let model = include_bytes!("../seeds/safetensors/qwen3");
    let mut parts = model.splitn(3, |&byte| byte == 0).skip(1);
    let header: Map<String, Value> =
        serde_json::from_slice(parts.next().expect("a header")).expect("a header");
    let data = parts.next().expect("data");
    let offset = |info: &Value, end: usize| info["data_offsets"][end].as_u64().expect("an offset");
    let cut = data.len() as u64 / 2;
    let cut = header.values().map(|info| offset(info, 1)).filter(|&end| end <= cut).max().expect("a tensor");
    let (mut index, mut headers) = (Map::new(), [Map::new(), Map::new()]);
    for (name, mut info) in header {
        let second = offset(&info, 0) >= cut;
        let start = if second { cut } else { 0 };
        info["data_offsets"] = json!([offset(&info, 0) - start, offset(&info, 1) - start]);
        index.insert(name.clone(), SHARDS[usize::from(second)].into());
        headers[usize::from(second)].insert(name, info);
    }
    let index = json!({"metadata": {}, "weight_map": index});
    let text = [index, headers[0].clone().into(), headers[1].clone().into()].map(|part| format!("{part}\0"));
    write("shards/qwen3", &[text.concat().as_bytes(), &(cut as u16).to_le_bytes(), data].concat());
}

/// The importance of all matrices of a target's model, and of none.
fn importance(target: &str, config: &Config) {
    let matrices: Vec<_> =
        config.tensors().unwrap().into_iter().filter(|spec| spec.dims.len() == 2).collect();
    for (name, matrices) in [("all", matrices.as_slice()), ("none", &[])] {
        let mut writer = Writer::new();
        writer.set("general.type", Entry::Str("imatrix".into()));
        writer.set("imatrix.rows", Entry::U64(7));
        for spec in matrices {
            writer.declare(&spec.name, TensorType::F32, &spec.dims[..1]).expect("a tensor");
        }
        let mut out = Vec::new();
        let mut rows = matrices.iter().map(|spec| spec.dims[0]);
        let fill = |_: &str, data: &mut Vec<u8>| {
            let row = rows.next().expect("a matrix");
            data.extend((1..=row).flat_map(|number| (number as f32).to_le_bytes()));
            Ok(())
        };
        writer.write(&mut out, fill).expect("a file");
        write(&format!("{target}/{name}"), &out);
    }
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(number: usize) -> Vec<u8> {
    [b"M", &(number as u16).to_le_bytes()[..]].concat()
}

fn dictionary<'a>(entries: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let entries = entries.into_iter().flat_map(|(key, value)| [text(key), value].concat());
    [b"}(".to_vec(), entries.collect(), b"u".to_vec()].concat()
}

/// An object of a class, with this state.
fn object(class: &str, state: Vec<u8>) -> Vec<u8> {
    [b"c", class.as_bytes(), b"\n)\x81", &state, b"b"].concat()
}

/// The value as omegaconf keeps it.
fn omegaconf(value: Vec<u8>) -> Vec<u8> {
    object("omegaconf.nodes\nAnyNode", dictionary([("_val", value), ("_parent", b"N".to_vec())]))
}

fn tensor(number: usize, shape: &[usize]) -> Vec<u8> {
    let len: usize = shape.iter().product();
    let tuple = |numbers: &[usize]| {
        [b"(".to_vec(), numbers.iter().flat_map(|&number| int(number)).collect(), b"t".to_vec()].concat()
    };
    let strides: Vec<usize> = (1..=shape.len()).map(|at| shape[at..].iter().product()).collect();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(&number.to_string()),
        text("cpu"),
        int(len),
        b"tQK\x00".to_vec(),
        tuple(shape),
        tuple(&strides),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// Checkpoints of a small Eso-LM (B), with a tokenizer, in plain dictionaries and in omegaconf's objects.
fn checkpoints() {
    let (d, c, v) = (8, 4, 24);
    let shapes: [(&str, &[usize]); 20] = [
        ("backbone.vocab_embed.embedding", &[v, d]),
        ("backbone.sigma_map.mlp.0.weight", &[c, 256]),
        ("backbone.sigma_map.mlp.0.bias", &[c]),
        ("backbone.sigma_map.mlp.2.weight", &[c, c]),
        ("backbone.sigma_map.mlp.2.bias", &[c]),
        ("backbone.blocks.0.norm1.weight", &[d]),
        ("backbone.blocks.0.attn_qkv.weight", &[3 * d, d]),
        ("backbone.blocks.0.attn_out.weight", &[d, d]),
        ("backbone.blocks.0.norm2.weight", &[d]),
        ("backbone.blocks.0.mlp.0.weight", &[4 * d, d]),
        ("backbone.blocks.0.mlp.0.bias", &[4 * d]),
        ("backbone.blocks.0.mlp.2.weight", &[d, 4 * d]),
        ("backbone.blocks.0.mlp.2.bias", &[d]),
        ("backbone.blocks.0.adaLN_modulation.weight", &[6 * d, c]),
        ("backbone.blocks.0.adaLN_modulation.bias", &[6 * d]),
        ("backbone.output_layer.norm_final.weight", &[d]),
        ("backbone.output_layer.linear.weight", &[v, d]),
        ("backbone.output_layer.linear.bias", &[v]),
        ("backbone.output_layer.adaLN_modulation.weight", &[2 * d, c]),
        ("backbone.output_layer.adaLN_modulation.bias", &[2 * d]),
    ];
    let list = |values: Vec<Vec<u8>>| [b"](".to_vec(), values.concat(), b"e".to_vec()].concat();
    let tensors = |first: usize| {
        shapes.iter().enumerate().map(move |(at, (name, shape))| (*name, tensor(first + at, shape)))
    };
    let parameters: Vec<Vec<u8>> = tensors(0).map(|(_, tensor)| tensor).collect();
    // Bytes are text that is encoded, in this version of pickle.
    let encoded = [b"c_codecs\nencode\n(".to_vec(), text(TOKENIZER), text("latin1"), b"tR".to_vec()].concat();
    let tokenizer = object(
        "transformers.models.gpt2.tokenization_gpt2_fast\nGPT2TokenizerFast",
        dictionary([
            ("_tokenizer", object("tokenizers\nTokenizer", encoded)),
            ("_eos_token", text("<eos>")),
            ("_special_tokens_map", dictionary([("eos_token", text("<eos>"))])),
        ]),
    );
    let plain = |wrap: fn(Vec<u8>) -> Vec<u8>| {
        let algo = dictionary([
            ("name", wrap(text("esolm"))),
            ("backbone", wrap(text("esolm_dit"))),
            ("diffusion_attn_mode", wrap(text("causal"))),
            ("sequential_attn_mode", wrap(text("causal"))),
            ("time_conditioning", wrap(b"\x89".to_vec())),
            ("alpha_0", wrap([b"G".to_vec(), 0.5f64.to_be_bytes().to_vec()].concat())),
        ]);
        let model = dictionary([
            ("cond_dim", wrap(int(c))),
            ("hidden_size", wrap(int(d))),
            ("length", wrap(int(16))),
            ("n_blocks", wrap(int(1))),
            ("n_heads", wrap(int(2))),
        ]);
        (algo, model)
    };
    let (algo, model) = plain(|value| value);
    let config = dictionary([("algo", algo), ("model", model), ("mask_index", int(v - 1))]);
    let (algo, model) = plain(omegaconf);
    let container = |content| object("omegaconf.dictconfig\nDictConfig", dictionary([("_content", content)]));
    let in_objects = container(dictionary([
        ("algo", container(algo)),
        ("model", container(model)),
        ("mask_index", omegaconf(int(v - 1))),
    ]));
    for (name, config, ema) in [("plain", config, false), ("omegaconf", in_objects, true)] {
        let hyper =
            dictionary([("config", config), ("vocab_size", int(v)), ("tokenizer", tokenizer.clone())]);
        let mut root = vec![("state_dict", dictionary(tensors(0))), ("hyper_parameters", hyper)];
        if ema {
            root.push((
                "ema",
                dictionary([("decay", b"N".to_vec()), ("shadow_params", list(parameters.clone()))]),
            ));
        }
        let pickle = [b"\x80\x02".to_vec(), dictionary(root), b".".to_vec()].concat();
        write(&format!("checkpoint/{name}"), &[&[1], pickle.as_slice()].concat());
    }
    let few = || {
        let shapes: [(&str, &[usize]); 2] =
            [("vocab_embed.embedding", &[24, 8]), ("blocks.0.mlp.0.bias", &[16])];
        shapes.into_iter().enumerate().map(|(at, (name, shape))| (name, tensor(at, shape)))
    };
    let config =
        container(dictionary([("length", omegaconf(int(16))), ("names", list(vec![text("a"), int(1)]))]));
    let encoded = [b"c_codecs\nencode\n(".to_vec(), text("{}"), text("latin1"), b"tR".to_vec()].concat();
    let tokenizer = object(
        "transformers\nT",
        dictionary([("_tokenizer", object("tokenizers\nTokenizer", encoded)), ("_eos_token", text("<eos>"))]),
    );
    let hyper = dictionary([("config", config), ("vocab_size", int(v)), ("tokenizer", tokenizer)]);
    let averages = list(few().map(|(_, tensor)| tensor).collect());
    let named = dictionary(few());
    for (name, ema) in [("list", averages), ("named", named)] {
        let ema = dictionary([("shadow_params", ema)]);
        let root = [("state_dict", dictionary(few())), ("hyper_parameters", hyper.clone()), ("ema", ema)];
        let pickle = [b"\x80\x02".to_vec(), dictionary(root), b".".to_vec()].concat();
        write(&format!("read_pickle/{name}"), &[&[0], pickle.as_slice()].concat());
    }
    let small = [b"\x80\x02".to_vec(), dictionary([("state_dict", b"}".to_vec())]), b".".to_vec()].concat();
    let small = zip(&small);
    // Without most of the storages' zeros: the directory is then wrong, which is for the fuzzer to mend.
    write("checkpoint/zip", &[&[0], &small[..200], &small[small.len() - 400..]].concat());
}
