//! An importance matrix, used to quantize a model.
#![no_main]

use std::sync::LazyLock;

use esolm::gguf::TensorType;
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{Config, Variant};
use esolm_fuzz::{Folder, TOKENIZER, bytes, config, ok};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
    let folder = Folder::new();
    let config = Config { embedding_length: 32, feed_forward_length: 32, ..config(Variant::EsoB) };
    folder.write("model.gguf", &bytes(&config, TOKENIZER, TensorType::F32));
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let mut options = QuantizeOptions::new(TensorType::Q4_0);
    options.importance = Some(FOLDER.write("importance.gguf", bytes));
    options.threads = 1;
    options.force = true;
    ok(quantize(&FOLDER.path("model.gguf"), &FOLDER.path("out.gguf"), &options, &mut |_| ()));
});
