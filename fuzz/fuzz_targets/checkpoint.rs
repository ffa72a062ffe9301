//! A Lightning checkpoint: the first byte says whether a zip follows or the pickle in it.
#![no_main]

use std::sync::LazyLock;

use esolm::convert::{Options, convert};
use esolm_fuzz::{Folder, ok, zip};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let input =
        if kind % 2 == 0 { FOLDER.write("in.ckpt", rest) } else { FOLDER.write("in.ckpt", &zip(rest)) };
    let options = Options { force: true, threads: 1, raw_weights: kind & 2 != 0, ..Options::default() };
    ok(convert(&input, &FOLDER.path("out.gguf"), &options, &mut |_| ()));
});
