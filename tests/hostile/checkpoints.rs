//! Checkpoints: zips and the pickles in them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use esolm::convert::{Options, convert};

use super::corpus::{Tally, given};

/// A zip with the pickle `data.pkl` and one storage of four bytes.
fn zip(pickle: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let entries: [(&str, &[u8]); 2] = [("archive/data.pkl", pickle), ("archive/data/0", &[0; 4])];
    for (name, data) in entries {
        let sizes =
            [[(data.len() as u32).to_le_bytes(); 2].concat(), (name.len() as u16).to_le_bytes().to_vec()]
                .concat();
        let offset = out.len() as u32;
        out.extend([b"PK\x03\x04", &[0; 14][..], &sizes, &[0; 2], name.as_bytes(), data].concat());
        directory.extend(
            [b"PK\x01\x02", &[0; 16][..], &sizes, &[0; 12], &offset.to_le_bytes(), name.as_bytes()].concat(),
        );
    }
    let (start, len) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(
        [b"PK\x05\x06", &[0; 6][..], &2u16.to_le_bytes(), &len.to_le_bytes(), &start.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    out
}

/// A pickle whose root has these entries, each a key of text and a value.
fn pickle(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"\x80\x04}(".to_vec();
    for (key, value) in entries {
        out.extend(text(key.as_bytes()));
        out.extend(value);
    }
    out.extend(b"u.");
    out
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [b"X", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

/// `hyper_parameters` with `config`.
fn config(value: Vec<u8>) -> Vec<u8> {
    let hyper = [b"}(".to_vec(), text(b"config"), value, b"u".to_vec()].concat();
    zip(&pickle(&[("state_dict", b"}".to_vec()), ("hyper_parameters", hyper)]))
}

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let output = folder.join("out.gguf");
    let mut refuse = |name: &str, path: &Path| {
        let options = Options { force: true, threads: 1, ..Options::default() };
        let converted = tally.case(name, path, 0, |path| convert(path, &output, &options, &mut |_| ()));
        assert!(converted.is_none(), "{name}: converted");
        assert!(!output.exists(), "{name}: an output was left");
    };
    for name in ["non-text-keys.ckpt", "shared-shape.ckpt"] {
        refuse(name, &unpacked(&given(&format!("{name}.gz")), &folder.join(name)));
    }
    let million = 1 << 20;
    // A text of 64 KiB that 10,000 values share; keys likewise.
    let long = [text(&[b'a'; 1 << 16]), b"\x94".to_vec()].concat();
    let shared = [b"](".to_vec(), long.clone(), b"h\x00".repeat(10_000), b"e".to_vec()].concat();
    let shared_keys = [b"(".to_vec(), long, b"}h\x00K\x01s".repeat(10_000), b"t".to_vec()].concat();
    // A dictionary of a million number keys, referred to 100,000 times; states and lists likewise.
    let dictionary = [b"}(".to_vec(), b"NN".repeat(million / 4), b"u\x94".to_vec()].concat();
    let many = |value: &[u8], reference: &[u8]| [b"](", value, &reference.repeat(100_000), b"e"].concat();
    let object = [b"cos\nsystem\n)\x81".to_vec(), dictionary.clone(), b"b\x94".to_vec()].concat();
    // Lists that hold the one before twice, deep nesting, and a list in itself.
    let doubling = [b"]\x94".to_vec(), b"](h\x00h\x00e\x71\x00".repeat(200)].concat();
    let deep = [b"](".repeat(100_000), b"e".repeat(100_000)].concat();
    for (name, value) in [
        ("a text that is shared", shared),
        ("keys that are shared", shared_keys),
        ("a dictionary that is shared", many(&dictionary, b"h\x00")),
        ("an object that is shared", many(&object, b"h\x01")),
        ("doubling lists", doubling),
        ("deep lists", deep),
        ("a list in itself", b"]\x94h\x00a".to_vec()),
        ("a list in itself a million times", [&b"]\x94("[..], &b"h\x00".repeat(million), b"e"].concat()),
        ("a million values", b"N".repeat(million)),
        ("a million references", [b"N".to_vec(), b"2".repeat(16 * million)].concat()),
        ("a million memo entries", [b"N".to_vec(), b"\x94".repeat(8 * million)].concat()),
        ("a million marks", b"(".repeat(16 * million)),
        ("a million objects", [b"N".to_vec(), b"2\x81".repeat(4 * million)].concat()),
    ] {
        let path = folder.join("pickle.ckpt");
        std::fs::write(&path, config(value)).expect("room");
        refuse(name, &path);
    }
    // A state dictionary: one name a million times, many tensors that share a long storage name, many names of one tensor or
    // object whose class has a long name, and a moving average of long names.
    let tensor = |class: &[u8], key: &[u8]| {
        let storage = [
            b"(".to_vec(),
            text(b"storage"),
            class.to_vec(),
            key.to_vec(),
            text(b"cpu"),
            b"K\x01tQ".to_vec(),
        ];
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
            storage.concat(),
            b"K\x00(K\x01t(K\x01t\x89}tR".to_vec(),
        ]
        .concat()
    };
    let float = b"ctorch\nFloatStorage\n";
    let names = [
        b"}(".to_vec(),
        text(&[b'n'; 200]),
        b"\x94".to_vec(),
        tensor(float, &text(b"0")),
        b"\x94".to_vec(),
        b"h\x00h\x01".repeat(million),
        b"u".to_vec(),
    ];
    let number = |n: u32| text(n.to_string().as_bytes());
    let storages = (0..20_000).flat_map(|n| [number(n), tensor(float, b"h\x00")].concat());
    let storages = [
        b"}(".to_vec(),
        text(b"a"),
        text(&[b's'; 1 << 20]),
        b"\x94".to_vec(),
        storages.collect(),
        b"u".to_vec(),
    ];
    let one = |value: &[u8]| {
        let references = (0..60_000).flat_map(|n| [number(n), b"h\x00".to_vec()].concat()).collect();
        [b"}(".to_vec(), text(b"a"), value.to_vec(), b"\x94".to_vec(), references, b"u".to_vec()].concat()
    };
    let long = vec![b'L'; 2 * million];
    let storage_class = [b"ctorch\n", long.as_slice(), b"\n"].concat();
    let class = [b"c", long.as_slice(), b"\n", &long, b"\n)R"].concat();
    let averages =
        [b"}(", text(&long[..million]).as_slice(), b"\x94N", &b"h\x00N".repeat(60_000), b"u"].concat();
    let averages = [b"}".to_vec(), text(b"shadow_params"), averages, b"s".to_vec()].concat();
    let weight = [b"}".to_vec(), text(b"a"), tensor(float, &text(b"0")), b"s".to_vec()].concat();
    for (name, entries) in [
        ("a name a million times", vec![("state_dict", names.concat())]),
        ("a long storage name", vec![("state_dict", storages.concat())]),
        ("a storage's long class", vec![("state_dict", one(&tensor(&storage_class, &text(b"0"))))]),
        ("an object's long class", vec![("state_dict", one(&class))]),
        ("averages with a long name", vec![("state_dict", weight), ("ema", averages)]),
    ] {
        let path = folder.join("state.ckpt");
        std::fs::write(&path, zip(&pickle(&entries))).expect("room");
        refuse(name, &path);
    }
    // Zips: only end records, each with the longest comment; the end record of a large directory that is not there; the
    // same entry many times.
    let end = |count: u16, len: u32, start: u32, comment: u16| {
        [
            b"PK\x05\x06",
            &[0; 6][..],
            &count.to_le_bytes(),
            &len.to_le_bytes(),
            &start.to_le_bytes(),
            &comment.to_le_bytes(),
        ]
        .concat()
    };
    let one = zip(b"\x80\x02}.");
    let directory = one.windows(4).position(|four| four == b"PK\x01\x02").expect("a directory");
    let entry = &one[directory..directory + 46 + 16];
    let many =
        [&one[..directory], &entry.repeat(60_000), &end(60_000, 60_000 * 62, directory as u32, 0)].concat();
    for (name, bytes) in [
        ("end records", [b"PK\x03\x04".to_vec(), end(1, 46, 0, 0xffff).repeat(500_000)].concat()),
        ("end records without comment", [b"PK\x03\x04".to_vec(), end(1, 46, 0, 0).repeat(500_000)].concat()),
        (
            "64-bit end records",
            [
                b"PK\x03\x04".to_vec(),
                b"PK\x06\x06PK\x06\x07".repeat(million),
                end(0xffff, u32::MAX, u32::MAX, 0),
            ]
            .concat(),
        ),
        ("a directory that is not there", [b"PK\x03\x04".to_vec(), end(0xfffe, 0x7fff_ffff, 4, 0)].concat()),
        ("one entry many times", many),
    ] {
        let path = folder.join("zip.ckpt");
        std::fs::write(&path, bytes).expect("room");
        refuse(name, &path);
    }
    // Every truncation of the structure's bytes.
    for len in 0..one.len() {
        let path = folder.join("cut.ckpt");
        std::fs::write(&path, &one[..len]).expect("room");
        refuse("a cut zip", &path);
    }
    let weights = folder.join("model.safetensors");
    let config = folder.join("config.json");
    std::fs::write(&config, "{}").expect("room");
    let many = |one: &str, bytes: usize| vec![one; bytes / (one.len() + 1)].join(",");
    let keys = (0..180_000).map(|n| format!("\"{n:x}\":\"\"")).collect::<Vec<_>>().join(",");
    let of_shape =
        |shape: &str| format!(r#"{{"a": {{"dtype": "F32", "shape": [{shape}], "data_offsets": [0, 0]}}}}"#);
    for (name, header) in [
        ("no tensors", "{}".into()),
        ("many notes", format!(r#"{{"__metadata__": {{{keys}}}}}"#)),
        ("a long shape", of_shape(&many("1", 2_000_000))),
        ("a shape that overflows", of_shape("4294967296, 4294967296, 4294967296")),
        ("lists in lists", "[".repeat(2_000_000)),
        ("a header beyond the limit", " ".repeat(3 << 20)),
    ] {
        std::fs::write(&weights, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
            .expect("room");
        refuse(name, &weights);
    }
    for len in [0, 1, 1 << 20, u64::MAX / 2, u64::MAX - 8, u64::MAX] {
        std::fs::write(&weights, [&len.to_le_bytes(), &b"{}"[..]].concat()).expect("room");
        refuse("a length of the header", &weights);
    }
    std::fs::write(&weights, [&2u64.to_le_bytes(), &b"{}"[..]].concat()).expect("room");
    for (name, content) in [
        ("a list of zeros", format!("[{}]", many("0", 1_000_000))),
        ("a list of lists", format!("[{}]", many("[]", 1_000_000))),
        ("deep lists", "[".repeat(1_000_000)),
        ("a configuration beyond the limit", format!("{{}}{}", " ".repeat(2 << 20))),
    ] {
        std::fs::write(&config, content).expect("room");
        let options = Options { force: true, threads: 1, ..Options::default() };
        let converted =
            tally.case(name, &config, 0, |_| match convert(&weights, &output, &options, &mut |_| ()) {
                // What a configuration lacks is told of the weights.
                Err(esolm::Error::BadFile { file, what, source }) if file.ends_with("model.safetensors") => {
                    Err(esolm::Error::BadFile { file: "config.json".into(), what, source })
                }
                other => other,
            });
        assert!(converted.is_none(), "{name}: converted");
    }
    std::fs::write(&config, "{}").expect("room");
    std::fs::write(folder.join("merges.txt"), "#version: 0.2\n").expect("room");
    let entries = (0..300_000).map(|n| format!("\"{n:x}\":{n}")).collect::<Vec<_>>().join(",");
    for beside in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"] {
        let path = folder.join(beside);
        for (name, content) in [
            ("zeros", format!("[{}]", many("0", 2_000_000))),
            ("lists", format!("[{}]", many("[]", 2_000_000))),
            ("entries", format!("{{{entries}}}")),
            ("no end", " ".repeat(5 << 20)),
        ] {
            std::fs::write(&path, content).expect("room");
            let options = Options { force: true, threads: 1, ..Options::default() };
            let name = format!("{name} in {beside}");
            let converted =
                tally.case(&name, &path, 0, |_| convert(&weights, &output, &options, &mut |_| ()));
            assert!(converted.is_none(), "{name}: converted");
        }
        std::fs::remove_file(&path).expect("the file");
    }
    tally
}

/// Unpacks a file with gzip.
fn unpacked(packed: &Path, to: &Path) -> PathBuf {
    let out = File::create(to).expect("a file");
    assert!(Command::new("gzip").arg("-dc").arg(packed).stdout(out).status().expect("gzip").success());
    to.to_owned()
}
