//! include/esolm.h is what src/capi says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "capi")]

use std::path::Path;

/// The files of src/capi, in the header's order.
const FILES: [&str; 15] = [
    "version",
    "status",
    "log",
    "device",
    "callback",
    "model",
    "tokenizer",
    "context",
    "memory",
    "constraints",
    "request",
    "generate",
    "state",
    "profile",
    "score",
];

#[test]
fn header_matches_src_capi() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root.join("src/capi").join(file).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate()?.write(&mut made);
    let made = String::from_utf8(made)?;
    let header = root.join("include/esolm.h");
    if std::env::var_os("ESOLM_UPDATE_HEADER").is_some() {
        std::fs::write(&header, &made)?;
    }
    let committed = std::fs::read_to_string(&header)?;
    assert!(committed == made, "include/esolm.h is not what src/capi says; run `make header` and commit it");
    Ok(())
}
