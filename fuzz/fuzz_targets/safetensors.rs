//! `config.json`, a zero byte, and safetensors, whose header's length the target writes.
#![no_main]

use std::sync::LazyLock;

use esolm::convert::{Options, convert};
use esolm_fuzz::{Folder, ok};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    let (config, header, data) = (parts.next(), parts.next(), parts.next());
    FOLDER.write("config.json", config.unwrap_or_default());
    let header = header.unwrap_or_default();
    // Without data there is no length either: the header is the whole file.
    let input = match data {
        Some(data) => [&(header.len() as u64).to_le_bytes(), header, data].concat(),
        None => header.to_vec(),
    };
    let input = FOLDER.write("model.safetensors", &input);
    let options = Options { force: true, threads: 1, ..Options::default() };
    ok(convert(&input, &FOLDER.path("out.gguf"), &options, &mut |_| ()));
});
