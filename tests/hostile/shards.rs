//! Models in shards: indexes that are none, that name what is not there or not theirs, and shards that are no files.

use std::path::Path;

use esolm::Error;
use esolm::convert::{Options, convert};
use serde_json::{Map, Value, json};

use super::corpus::Tally;

const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
/// Configuration, header and weights of a Qwen3, with a zero byte between each.
const MODEL: &[u8] = include_bytes!("../../fuzz/seeds/safetensors/qwen3");

/// A tensor's name, what the header says of it, and its bytes.
type Tensor = (String, Value, Vec<u8>);

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let mut parts = MODEL.splitn(3, |&byte| byte == 0);
    let mut part = || parts.next().expect("a part");
    let (config, tensors) = (part(), tensors(part(), part()));
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let at = |name: &str| folder.join(name);
    let write = |name: &str, bytes: &[u8]| std::fs::write(at(name), bytes).expect("room");
    write("config.json", config);
    write(SHARDS[0], &shard(first));
    write(SHARDS[1], &shard(second));
    let mut case = |name: &str, index: &str| -> bool {
        write(INDEX, index.as_bytes());
        let options = Options { force: true, threads: 1, ..Options::default() };
        let to_out = |path: &Path| convert(path, &at("out.gguf"), &options, &mut |_| ());
        tally.case(name, &at(INDEX), 0, |path| to_out(path).map_err(of_the_model)).is_some()
    };
    let mut map = Map::new();
    for (tensors, shard) in [(first, SHARDS[0]), (second, SHARDS[1])] {
        map.extend(tensors.iter().map(|(name, ..)| (name.clone(), shard.into())));
    }
    let index = |map: &Map<String, Value>| json!({"metadata": {}, "weight_map": map}).to_string();
    let valid = index(&map);
    assert!(case("valid", &valid), "a valid index is refused");

    for wrong in
        ["", "1", "{}", r#"{"weight_map": []}"#, r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#]
    {
        assert!(!case(wrong, wrong), "{wrong}");
    }
    for end in (0..valid.len()).step_by(7) {
        assert!(!case("cut off", &valid[..end]), "{end} bytes");
    }
    assert!(!case("too deep", &valid.replace("{}", &"[".repeat(1_000_000))));
    assert!(!case("too large", &format!("{}{valid}", " ".repeat(5 << 20))));
    let with = |tensor: &str, file: &str| {
        let mut map = map.clone();
        map.insert(tensor.into(), file.into());
        index(&map)
    };
    let a_tensor = &first[0].0;
    for file in [
        "../model-00001-of-00002.safetensors",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "",
        ".",
        "..",
        "x\0y",
        "gone.safetensors",
        "config.json",
        INDEX,
        SHARDS[1],
    ] {
        assert!(!case(file, &with(a_tensor, file)), "{file:?}");
    }
    assert!(!case("no such tensor", &with("model.nothing.weight", SHARDS[0])));
    assert!(!case("a long name", &with(&"x".repeat(1 << 20), SHARDS[0])));
    let many = |count: usize, file: &dyn Fn(usize) -> String| {
        index(&(0..count).map(|n| (format!("tensor {n}"), file(n).into())).collect())
    };
    assert!(!case("many files", &many(50_000, &|n| format!("{n}.safetensors"))));
    assert!(!case("many tensors", &many(60_000, &|_| SHARDS[0].into())));

    // What the index says is right, and the second shard is something else.
    let other = at(SHARDS[1]);
    let mut replaced = |name: &str, make: &dyn Fn(&Path)| {
        std::fs::remove_file(&other).or_else(|_| std::fs::remove_dir(&other)).expect("it was there");
        make(&other);
        assert!(!case(name, &valid), "{name}");
    };
    replaced("all tensors twice", &|path| std::fs::write(path, shard(&tensors)).expect("room"));
    replaced("cut off", &|path| {
        let whole = shard(second);
        std::fs::write(path, &whole[..whole.len() - 1]).expect("room");
    });
    replaced("empty", &|path| std::fs::write(path, "").expect("room"));
    replaced("a folder", &|path| std::fs::create_dir(path).expect("a folder"));
    replaced("a device", &|path| std::os::unix::fs::symlink("/dev/zero", path).expect("a link"));
    replaced("itself", &|path| std::os::unix::fs::symlink(path, path).expect("a link"));
    replaced("a pipe", &|path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    });
    tally
}

/// The error, if it names a file, as one of the model.
fn of_the_model(error: Error) -> Error {
    match error {
        Error::BadFile { file, what, source } if !file.is_empty() => {
            Error::BadFile { file: INDEX.into(), what, source }
        }
        Error::Io { file, source } if !file.is_empty() => Error::Io { file: INDEX.into(), source },
        other => other,
    }
}

/// The tensors of a safetensors file.
fn tensors(header: &[u8], data: &[u8]) -> Vec<Tensor> {
    let header: Map<String, Value> = serde_json::from_slice(header).expect("a header");
    let tensor = |(name, info): (String, Value)| {
        let offset = |end: usize| info["data_offsets"][end].as_u64().expect("an offset") as usize;
        let bytes = data[offset(0)..offset(1)].to_vec();
        (name, info, bytes)
    };
    header.into_iter().map(tensor).collect()
}

/// A safetensors file of these tensors.
fn shard(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, info, bytes) in tensors {
        let mut info = info.clone();
        info["data_offsets"] = json!([data.len(), data.len() + bytes.len()]);
        header.insert(name.clone(), info);
        data.extend_from_slice(bytes);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}
