//! Models of some thousand weights.

use esolm::gguf::{Layout, TensorType, Value, Writer};
use esolm::{Config, LoadOptions, Model, TensorSpec, Variant};

use crate::small;

/// A tokenizer of single letters and a few merges.
pub const TOKENIZER: &str = include_str!("tokenizer.json");
/// The number of its tokens, and the mask.
pub const VOCAB_SIZE: usize = 24;

/// Hyperparameters of the smallest model, with sequences of 16 tokens.
pub fn config(variant: Variant) -> Config {
    small::config(variant, VOCAB_SIZE)
}

/// A file of a model with these hyperparameters, this tokenizer and matrices of this type, whose weights look random.
pub fn bytes(config: &Config, tokenizer: &str, ty: TensorType) -> Vec<u8> {
    bytes_in(Layout::Plain, config, tokenizer, ty)
}

/// As [`bytes`], with the rows of all matrices that are multiplied in this layout.
pub fn bytes_in(layout: Layout, config: &Config, tokenizer: &str, ty: TensorType) -> Vec<u8> {
    let mut writer = Writer::new();
    config.write(&mut writer).unwrap();
    writer.set(Config::TOKENIZER_KEY, Value::Str(tokenizer.into()));
    with_tensors(writer, layout, config, ty)
}

/// As [`bytes`], with the same vocabulary as llama.cpp has it in its files.
pub fn bytes_of_llama(config: &Config, ty: TensorType) -> Vec<u8> {
    let words = [
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
        "i",
        "l",
        "n",
        "o",
        "r",
        "s",
        "t",
        "u",
        "\u{120}",
        "\u{120}t",
        "he",
        "\u{120}the",
        "on",
        "e2",
        "<eos>",
        "<mask>",
    ];
    let texts = |texts: &[&str]| texts.iter().map(|&text| Value::Str(text.into())).collect::<Vec<_>>();
    // Normal ones, and those that are written by their name.
    let types: Vec<i32> = (0..words.len()).map(|token| if token < 22 { 1 } else { 3 }).collect();
    let merges = texts(&["\u{120} t", "h e", "\u{120}t he", "o n"]);
    let mut writer = small::llama_keys(config, &texts(&words), &types, &merges).expect("its keys");
    writer.set("tokenizer.chat_template", Value::Str("{{ messages[0].content }}".into()));
    with_tensors(writer, Layout::Plain, config, ty)
}

fn with_tensors(mut writer: Writer, layout: Layout, config: &Config, ty: TensorType) -> Vec<u8> {
    let specs = config.tensors().unwrap();
    for spec in &specs {
        let ty = if spec.dims.len() == 2 { ty } else { TensorType::F32 };
        writer.declare_in(&spec.name, ty, layout_of(spec, ty, layout), &spec.dims).expect("a tensor");
    }
    let mut out = Vec::new();
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    };
    let mut specs = specs.iter();
    let fill = |_: &str, data: &mut Vec<u8>| {
        let spec = specs.next().expect("a tensor");
        // In panels, the scales of sixteen blocks come before their weights.
        let (len, blocks): (usize, usize) = match (layout_of(spec, ty, layout), spec.dims.as_slice()) {
            (Layout::Panels, &[columns, rows]) => (columns * rows.next_multiple_of(16), 16),
            (_, dims) => (dims.iter().product(), 1),
        };
        if spec.dims.len() == 2 && ty == TensorType::Q8_0 {
            for _ in 0..len / (32 * blocks) {
                // A scale of about 0.01 in half precision.
                data.extend([0x00, 0x21].repeat(blocks));
                data.extend((0..32 * blocks).map(|_| (next() >> 24) as u8));
            }
        } else {
            let weights = (0..len).map(|_| (next() >> 8) as f32 / (1 << 24) as f32 - 0.5);
            data.extend(weights.flat_map(f32::to_le_bytes));
        }
        Ok(())
    };
    writer.write(&mut out, fill).expect("a file");
    out
}

/// Rows that are looked up, and what is not quantized, are plain.
fn layout_of(spec: &TensorSpec, ty: TensorType, layout: Layout) -> Layout {
    let is_multiplied = spec.dims.len() == 2 && ty.is_quantized() && spec.name != "token_embd.weight";
    if is_multiplied { layout } else { Layout::Plain }
}

/// The smallest model of a variant.
pub fn model(variant: Variant) -> Model {
    let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
    Model::from_bytes(&bytes(&config(variant), TOKENIZER, TensorType::F32), &options).expect("a model")
}

/// The smallest model that writes left to right, of all ASCII characters and two of more bytes: sequences of 48 tokens.
pub fn letters() -> Model {
    // As byte-level tokenizers write bytes: a blank, a line's end, and the two bytes of an e with an accent.
    let mut words: Vec<String> = ('!'..='~').map(String::from).collect();
    words.extend(["\u{120}", "\u{10a}", "\u{c3}", "\u{a9}", "{\"", "\":", "ab"].map(String::from));
    let vocab = words.iter().enumerate().map(|(id, word)| format!("{word:?}: {id}"));
    let vocab = vocab.collect::<Vec<_>>().join(", ");
    let end = words.len();
    let tokenizer = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{{"id": {end}, "content": "<eos>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}}],
        "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}},
        "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}},
        "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {{{vocab}}}, "merges": [["{{", "\""], ["\"", ":"], ["a", "b"]]}}}}"#
    );
    let config = Config { context_length: 48, ..small::config(Variant::Ar, end + 2) };
    let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
    Model::from_bytes(&bytes(&config, &tokenizer, TensorType::F32), &options).expect("a model")
}
