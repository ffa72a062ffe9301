//! Contexts beyond the memory, and paths that are no files or have no end.

use std::path::Path;
use std::process::Command;

use esolm::convert::{Options, convert};
use esolm::quantize::{ImatrixOptions, imatrix};
use esolm::{Context, ContextParams, Error, Kernels, LoadMode, LoadOptions, Model};

use super::corpus::{Tally, given};
use super::gguf::valid;

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    large_contexts(&mut tally);
    let pipe = folder.join("pipe.gguf");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let link = folder.join("link.gguf");
    std::os::unix::fs::symlink(&pipe, &link).expect("a link");
    let output = folder.join("out.gguf");
    for path in [pipe.as_path(), &link, folder, Path::new("/dev/zero"), Path::new("/dev/null")] {
        let name = path.display().to_string();
        for mode in [LoadMode::Map, LoadMode::Copy] {
            let options = LoadOptions { mode, device: "cpu".into(), ..LoadOptions::default() };
            assert!(
                tally.case(&name, path, 0, |path| Model::open(path, &options)).is_none(),
                "{name}: opened"
            );
            let params = ContextParams::default();
            assert!(tally.case(&name, path, 0, |path| Context::estimate(path, &options, &params)).is_none());
        }
        let converted = tally.case(&name, path, 0, |path| {
            // For a folder the message names the file that it lacks.
            convert(path, &output, &Options::default(), &mut |_| ()).map_err(|error| match error {
                Error::Io { source, .. } => Error::Io { file: path.display().to_string(), source },
                error => error,
            })
        });
        assert!(converted.is_none() && !output.exists(), "{name}: converted");
    }
    // Beside weights, too.
    let model = folder.join("model.safetensors");
    std::fs::write(&model, [&4u64.to_le_bytes()[..], b"{}  "].concat()).expect("room");
    assert!(Command::new("mkfifo").arg(folder.join("config.json")).status().expect("mkfifo").success());
    let refused =
        convert(&model, &output, &Options::default(), &mut |_| ()).expect_err("a pipe as configuration");
    assert!(refused.to_string().contains("config.json: is no regular file"), "{refused}");
    // A text without an end.
    let file = folder.join("model.gguf");
    std::fs::write(&file, valid()).expect("room");
    let text = Path::new("/dev/zero");
    let read = tally.case("a text without end", text, 128 << 20, |text| {
        imatrix(&file, text, &output, &ImatrixOptions::default(), &mut |_, _| ())
    });
    assert!(read.is_none() && !output.exists());
    tally
}

/// Contexts of a model of 2^20 tokens: what does not fit the memory is a status.
fn large_contexts(tally: &mut Tally) {
    let path = given("context-2pow20.gguf");
    let model =
        Model::open(&path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).expect("a model");
    let (mut refused, mut made) = (0, 0);
    for kernels in [Kernels::Own, Kernels::Ggml] {
        for sequences in [1, 2, 8, 64, 4096, 65536] {
            for batch_rows in [1, 128, 4096, 1 << 20, usize::MAX] {
                for length in [1 << 20, 4096, 1] {
                    let limits = ContextParams { sequences, length, batch_rows, ..ContextParams::default() };
                    let params = ContextParams { threads: 1, kernels, ..limits };
                    let name = format!("{kernels:?}: {sequences} sequences of {length}, {batch_rows} rows");
                    // The session's lists lie beside the arena.
                    let context =
                        tally.case(&name, &path, 4 << 30, |_| match Context::new(&model, &params) {
                            Err(Error::InvalidArgument(what)) if what.contains("address space") => {
                                Err(Error::OutOfMemory(what))
                            }
                            made => made,
                        });
                    if context.is_some() { made += 1 } else { refused += 1 }
                }
            }
        }
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
}
