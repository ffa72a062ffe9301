//! The file that quantizing writes.

use esolm::convert::{Options, convert};
use esolm::gguf::{Array, Gguf, TensorType, Value};
use esolm::quantize::{FileOrPath, ImatrixOptions, QuantizeOptions, imatrix, quantize, quantize_file};
use esolm::{Architecture, Config, Error, Variant, temporary_file};

use super::{Scratch, all_tensors, wide, write_importance};
use crate::golden::path;
use crate::reference::{MASK, Network, config};
use crate::rewritten::rewritten;

#[test]
fn thread_count_does_not_change_the_file() {
    // A vocabulary of several chunks.
    let config = Config { vocab_size: 1501, mask_token_id: 1500, ..wide() };
    let scratch = Scratch::new(&Network::random(config, 3).to_gguf());
    write_importance(&scratch.path("imatrix"), &[("output.weight", vec![1.0; 256])]);
    for ty in TensorType::all() {
        let mut all = Vec::new();
        for threads in [1, 2, 3, 7] {
            let importance = Some(scratch.path("imatrix"));
            let options = QuantizeOptions { threads, force: true, importance, ..all_tensors(ty) };
            scratch.quantize("out.gguf", &options).unwrap();
            all.push(std::fs::read(scratch.path("out.gguf")).unwrap());
        }
        assert!(all.iter().all(|bytes| *bytes == all[0]), "{}", ty.name());
    }
    let options = QuantizeOptions { threads: 513, force: true, ..all_tensors(TensorType::F16) };
    assert!(matches!(scratch.quantize("out.gguf", &options), Err(Error::InvalidArgument(_))));
}

#[test]
fn open_files_are_quantized_as_named_ones_are() {
    use std::io::Seek;

    let scratch = Scratch::new(&Network::random(wide(), 3).to_gguf());
    let options = all_tensors(TensorType::Q4K);
    let named = scratch.quantize("named.gguf", &options).unwrap();
    let expected = std::fs::read(scratch.path("named.gguf")).unwrap();
    let (input, mut output) = (std::fs::File::open(&scratch.input).unwrap(), temporary_file().unwrap());
    let input = FileOrPath::File(&input);
    let report = quantize_file(input, FileOrPath::File(&output), &options, &mut |_| ()).unwrap();
    assert_eq!(report.file_bytes, named.file_bytes);
    let mut written = Vec::new();
    output.rewind().unwrap();
    std::io::Read::read_to_end(&mut output, &mut written).unwrap();
    assert!(written == expected);
    let other = scratch.path("other.gguf");
    quantize_file(input, FileOrPath::Path(&other), &options, &mut |_| ()).unwrap();
    assert!(std::fs::read(&other).unwrap() == expected);
    // One that cannot be written, and one that is no model.
    let unwritable = std::fs::File::open(&scratch.input).unwrap();
    let failed = quantize_file(input, FileOrPath::File(&unwritable), &options, &mut |_| ());
    assert!(matches!(&failed, Err(Error::Io { file, .. }) if file == "(open file)"), "{failed:?}");
    let empty = temporary_file().unwrap();
    let failed =
        quantize_file(FileOrPath::File(&empty), FileOrPath::Path(&scratch.path("no")), &options, &mut |_| ());
    assert!(matches!(&failed, Err(Error::BadFile { file, .. }) if file == "(open file)"), "{failed:?}");
    assert!(!scratch.path("no").exists());
}

#[test]
fn converting_to_a_type_equals_converting_and_quantizing() {
    let input = path("tiny-B/checkpoint.ckpt");
    let scratch = Scratch::new(b"");
    convert(&input, &scratch.path("in.gguf"), &Options { force: true, ..Options::default() }, &mut |_| ())
        .unwrap();
    for ty in TensorType::all() {
        let options = Options { tensor_type: ty, name: Some("in".into()), force: true, ..Options::default() };
        let converted = convert(&input, &scratch.path("a.gguf"), &options, &mut |_| ()).unwrap();
        let options = QuantizeOptions { force: true, ..QuantizeOptions::new(ty) };
        let quantized = scratch.quantize("b.gguf", &options).unwrap();
        let [a, b] = ["a.gguf", "b.gguf"].map(|name| std::fs::read(scratch.path(name)).unwrap());
        assert!(a == b, "{}", ty.name());
        assert!(quantized.notes.iter().all(|note| converted.notes.contains(note)), "{:?}", quantized.notes);
    }
}

#[test]
fn metadata_is_kept_and_the_file_type_updated() {
    let model = Network::random(wide(), 1);
    let bytes = model.to_gguf();
    let gguf = Gguf::parse(&bytes, "in").unwrap();
    let list = Array::new(&[Value::Str("a".into()), Value::Str("b".into())]).unwrap();
    let more = [
        ("general.file_type", Value::U32(0)),
        ("mine.list", Value::Array(list)),
        ("general.alignment", Value::U32(64)),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let out = rewritten(&bytes, gguf.metadata().iter().chain(&more), gguf.tensors());
    let scratch = Scratch::new(&out);
    let report = scratch.to("out.gguf", TensorType::Q4K);
    let written = std::fs::read(scratch.path("out.gguf")).unwrap();
    assert_eq!(report.file_bytes, (out.len() as u64, written.len() as u64));
    let (before, after) = (Gguf::parse(&out, "a").unwrap(), Gguf::parse(&written, "b").unwrap());
    for (key, value) in before.metadata().iter().filter(|(key, _)| key != "general.file_type") {
        assert_eq!(after.get(key), Some(value), "{key}");
    }
    assert_eq!(after.u64_in("general.file_type", 0..=99).unwrap(), 15);
    assert_eq!(after.u64_in("general.quantization_version", 0..=99).unwrap(), 2);
    assert_eq!(after.metadata().len(), before.metadata().len() + 1);
    assert!(after.tensors().iter().all(|t| t.range.start % 64 == 0));
    assert_eq!(after.tensor("output.weight").unwrap().ty, TensorType::Q6K);
    assert_eq!(after.tensor("blk.0.ffn_up.weight").unwrap().ty, TensorType::Q4K);
    let bits = report.bits_per_weight();
    assert!((4.5..6.6).contains(&bits), "{bits}");
}

#[test]
fn quantizing_twice_is_noted_and_equal_types_are_copied() {
    let scratch = Scratch::new(&Network::random(wide(), 8).to_gguf());
    scratch.to("q8_0.gguf", TensorType::Q8_0);
    let again = |to: &str, ty| {
        let to = scratch.path(to);
        quantize(&scratch.path("q8_0.gguf"), &to, &QuantizeOptions::new(ty), &mut |_| ()).unwrap()
    };
    let report = again("q4_k.gguf", TensorType::Q4K);
    assert!(
        report.notes.iter().any(|n| n.contains("10 matrices were quantized before")),
        "{:?}",
        report.notes
    );
    assert_eq!(again("f16.gguf", TensorType::F16).notes, Vec::<String>::new());
    assert_eq!(again("same.gguf", TensorType::Q8_0).notes, Vec::<String>::new());
    let [a, b] = ["q8_0.gguf", "same.gguf"].map(|name| std::fs::read(scratch.path(name)).unwrap());
    assert!(a == b);
}

#[test]
fn output_is_only_replaced_by_force_and_input_never() {
    let scratch = Scratch::new(&Network::random(config(1, 1), 2).to_gguf());
    let before = std::fs::read(&scratch.input).unwrap();
    let options = QuantizeOptions::new(TensorType::Q8_0);
    let force = QuantizeOptions { force: true, ..options.clone() };
    assert!(matches!(scratch.quantize("in.gguf", &force), Err(Error::InvalidArgument(_))));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&scratch.input, scratch.path("link")).unwrap();
        assert!(matches!(scratch.quantize("link", &force), Err(Error::InvalidArgument(_))));
    }
    write_importance(&scratch.path("imatrix"), &[("output.weight", vec![1.0; 64])]);
    let onto = QuantizeOptions { importance: Some(scratch.path("imatrix")), ..force.clone() };
    assert!(matches!(scratch.quantize("imatrix", &onto), Err(Error::InvalidArgument(_))));
    std::fs::write(scratch.path("there.gguf"), "old").unwrap();
    assert!(matches!(scratch.quantize("there.gguf", &options), Err(Error::InvalidArgument(_))));
    assert_eq!(std::fs::read(scratch.path("there.gguf")).unwrap(), b"old");
    scratch.quantize("there.gguf", &force).unwrap();
    assert_eq!(std::fs::read(&scratch.input).unwrap(), before);
}

/// A WeDLM of llama.cpp's tools need not say it: the quantized file does.
#[test]
fn mask_token_that_the_file_does_not_say_is_written() {
    let network = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 1);
    let unsaid = |bytes: &[u8], key: &str| {
        let at = bytes.windows(key.len()).position(|part| part == key.as_bytes()).unwrap();
        let mut bytes = bytes.to_vec();
        bytes[at] = b'x';
        bytes
    };
    let said = network.to_gguf();
    let bytes = unsaid(&unsaid(&said, "esolm.variant"), "tokenizer.ggml.mask_token_id");
    let scratch = Scratch::new(&bytes);
    let options = QuantizeOptions { mask_token: Some(MASK), threads: 1, ..all_tensors(TensorType::F32) };
    scratch.quantize("quantized.gguf", &options).unwrap();
    let model = crate::runs::open(&scratch.path("quantized.gguf"));
    assert_eq!((model.config().variant, model.config().mask_token_id), (Variant::WeDlm, MASK));
    // Without it the file is one that nobody can run.
    let error = scratch.error(&QuantizeOptions { mask_token: None, ..options.clone() });
    assert!(error.to_string().contains("--mask-token"), "{error}");
    // What is observed is the WeDLM, too.
    let (text, output) = (scratch.path("text"), scratch.path("imatrix"));
    std::fs::write(&text, "a b").unwrap();
    let observed = ImatrixOptions { mask_token: Some(MASK + 1), ..ImatrixOptions::default() };
    let error = imatrix(&scratch.input, &text, &output, &observed, &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("101"), "{error}");
    // A file that says another, or that it has none.
    let refused = |bytes: &[u8]| {
        let error = Scratch::new(bytes).error(&QuantizeOptions { mask_token: Some(3), ..options.clone() });
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        error.to_string()
    };
    assert!(refused(&said).contains(&format!("says that it is {MASK}")));
    let qwen = Network::qwen(Variant::Ar, Architecture::QWEN3, 1).to_gguf();
    assert!(refused(&qwen).contains("autoregressive"));
    assert!(
        refused(&Network::small(Variant::EsoB, 1).to_gguf()).contains("the file says what its mask token is")
    );
}
