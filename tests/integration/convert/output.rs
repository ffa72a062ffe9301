//! The output file and progress.

use esolm::Error;
use esolm::convert::{Options, convert};

use super::Published;
use crate::golden::path;
use crate::runs::file_names;

#[test]
fn progress_ends_at_the_totals() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    convert(&path("tiny-B/model.safetensors"), &dir.path().join("m.gguf"), &Options::default(), &mut |p| {
        seen.push(p)
    })
    .unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.tensors, last.bytes), (last.total_tensors, last.total_bytes));
    assert_eq!(seen.len(), last.total_tensors);
    assert!(seen.is_sorted_by_key(|p| p.bytes));
    assert_eq!(file_names(dir.path()), ["m.gguf"], "no temporary file is left");
}

#[test]
fn existing_output_is_only_replaced_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    std::fs::write(&out, "precious").unwrap();
    let error =
        convert(&path("tiny-B/model.safetensors"), &out, &Options::default(), &mut |_| ()).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("model.gguf")), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    // With force the new file replaces it only when complete.
    let force = Options { force: true, ..Options::default() };
    let mut damaged = Published::tiny();
    damaged.poke("output_layer.linear.bias", 96, f32::NAN);
    convert(damaged.write().path(), &out, &force, &mut |_| ()).unwrap_err();
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(file_names(dir.path()), ["model.gguf"]);
    convert(&path("tiny-B/model.safetensors"), &out, &force, &mut |_| ()).unwrap();
    assert!(std::fs::read(&out).unwrap().starts_with(b"GGUF"));
    assert_eq!(file_names(dir.path()), ["model.gguf"]);
    let directory = convert(&path("tiny-B/model.safetensors"), dir.path(), &force, &mut |_| ()).unwrap_err();
    assert!(directory.to_string().contains("directory"), "{directory}");
}

#[test]
fn input_is_never_replaced_even_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("model.safetensors");
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(crate::golden::path("tiny-B").join(file), dir.path().join(file)).unwrap();
    }
    for other in ["tokenizer.json", "given.json", "matrix.gguf"] {
        std::fs::write(dir.path().join(other), "{}").unwrap();
    }
    let own = |name: &str| dir.path().join(name);
    let options = Options {
        force: true,
        tokenizer: Some(own("given.json")),
        importance: Some(own("matrix.gguf")),
        ..Default::default()
    };
    std::fs::create_dir(own("sub")).unwrap();
    for read in ["model.safetensors", "config.json", "tokenizer.json", "given.json", "matrix.gguf"] {
        let before = std::fs::read(own(read)).unwrap();
        for output in [own(read), dir.path().join("sub/..").join(read)] {
            for input in [weights.as_path(), dir.path()] {
                let error = convert(input, &output, &options, &mut |_| ()).unwrap_err();
                assert!(error.to_string().contains("both input and output"), "{read}: {error}");
                assert!(std::fs::read(own(read)).unwrap() == before);
            }
        }
    }
}
