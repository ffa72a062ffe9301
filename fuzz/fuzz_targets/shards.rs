//! The index of a model in two shards, and the shards: the index, a zero byte, the first one's header, a zero byte, the
//! second one's, a zero byte, two bytes that say how long the first one's data is, and the data of both.
#![no_main]

use std::sync::LazyLock;

use esolm::convert::{Options, convert};
use esolm_fuzz::{Folder, SHARDS, SHARDS_CONFIG, ok};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
    let folder = Folder::new();
    folder.write("config.json", SHARDS_CONFIG);
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(4, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (index, headers, data) = (part(), [part(), part()], part());
    let (len, data) = data.split_first_chunk::<2>().unwrap_or((&[0; 2], data));
    let (first, second) = data.split_at(data.len().min(u16::from_le_bytes(*len).into()));
    for ((name, header), data) in SHARDS.into_iter().zip(headers).zip([first, second]) {
        FOLDER.write(name, &[&(header.len() as u64).to_le_bytes(), header, data].concat());
    }
    let input = FOLDER.write("model.safetensors.index.json", index);
    let options = Options { force: true, threads: 1, ..Options::default() };
    ok(convert(&input, &FOLDER.path("out.gguf"), &options, &mut |_| ()));
});
