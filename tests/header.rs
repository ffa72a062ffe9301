//! include/esolm.h is what src/capi says: one part per file, each under a banner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "capi")]

use std::error::Error;
use std::path::Path;

/// The files of src/capi and the banners of their parts, in the header's order.
const PARTS: [(&str, &str); 25] = [
    ("version", "Version"),
    ("status", "Status and errors"),
    ("log", "Log messages"),
    ("device", "Devices"),
    ("callback", "Progress"),
    ("model", "Models"),
    ("reader", "Models from elsewhere"),
    ("metadata", "Model metadata"),
    ("tokenizer", "Tokens and text"),
    ("chat", "Conversations"),
    ("pool", "Thread pools"),
    ("context", "Contexts"),
    ("cancel", "Cancelling"),
    ("memory", "Memory"),
    ("prompt", "Prompts"),
    ("constraints", "Constraints"),
    ("logits", "Logits"),
    ("request", "Generation parameters"),
    ("step", "Steps"),
    ("generate", "Generating"),
    ("sequence", "Sequences that come and go"),
    ("evaluate", "Evaluating"),
    ("state", "States"),
    ("profile", "Profile"),
    ("score", "Scoring"),
];

/// The files of src/capi that declare nothing in C.
const WITHOUT_PART: [&str; 6] = ["mod", "args", "exclusive", "params", "snapshot", "sync"];

#[test]
fn header_matches_src_capi() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = header(root)?;
    let path = root.join("include/esolm.h");
    if std::env::var_os("ESOLM_UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made)?;
    }
    let committed = std::fs::read_to_string(&path)?;
    assert!(committed == made, "include/esolm.h is not what src/capi says; run `make header` and commit it");
    Ok(())
}

#[test]
fn every_file_of_capi_has_its_part() -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capi"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let listed = WITHOUT_PART.contains(&name) || PARTS.iter().any(|&(part, _)| part == name);
        assert!(listed, "src/capi/{name}.rs has no part in tests/header.rs");
    }
    Ok(())
}

/// The opening chapter, then all parts inside one include guard and one `extern "C"`.
fn header(root: &Path) -> Result<String, Box<dyn Error>> {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let chapter = config.header.take().ok_or("cbindgen.toml has no header")?;
    let mut parts = String::new();
    for (file, banner) in PARTS {
        let source = root.join("src/capi").join(file).with_extension("rs");
        parts += &format!("// ---- {banner} ----\n\n{}\n\n", part(&config, &source)?);
    }
    Ok(format!(
        "{}\n\
         // Generated from src/capi by `make header`; do not edit.\n\n\
         #ifndef ESOLM_H\n#define ESOLM_H\n\n\
         #include <stddef.h>\n#include <stdint.h>\n\n\
         // On Windows a program that links the DLL may define ESOLM_DLL, which saves each call a jump.\n\
         #if defined(_WIN32) && defined(ESOLM_DLL)\n#define ESOLM_API __declspec(dllimport)\n\
         #else\n#define ESOLM_API\n#endif\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         {parts}\
         #ifdef __cplusplus\n}}\n#endif\n\n\
         #endif\n",
        chapter.trim_start()
    ))
}

/// What one file declares. A type of another file is known by its name alone.
fn part(config: &cbindgen::Config, source: &Path) -> Result<String, Box<dyn Error>> {
    let mut config = config.clone();
    config.export.include = public_types(&std::fs::read_to_string(source)?);
    let mut made = Vec::new();
    cbindgen::Builder::new().with_config(config).with_src(source).generate()?.write(&mut made);
    let made = String::from_utf8(made)?;
    // Every struct has a typedef, so its short name will do.
    let made = made.replace("struct esolm_", "esolm_").replace("typedef esolm_", "typedef struct esolm_");
    Ok(tidy(made.trim()))
}

/// The types that a file declares for C, also those that only functions of other files use.
fn public_types(source: &str) -> Vec<String> {
    let name = |line: &str| {
        let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub type "))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned)
    };
    source.lines().filter_map(name).collect()
}

/// Puts short functions on one line, and removes the blank lines between the constants of one group.
fn tidy(part: &str) -> String {
    let mut made = String::new();
    let mut group = None;
    for block in part.split("\n\n") {
        let next = constant_group(block);
        if !made.is_empty() {
            made += if next.is_some() && next == group { "\n" } else { "\n\n" };
        }
        made += &shortened(block);
        group = next;
    }
    made
}

/// A comment and a declaration, which is put on one line if it is a short function.
fn shortened(block: &str) -> String {
    let (comments, code): (Vec<_>, Vec<_>) = block.lines().partition(|line| line.starts_with("//"));
    let indent = format!("\n{}", " ".repeat("ESOLM_API ".len()));
    let code = match code.split_first() {
        // On the line of the function's name, with its parameters below each other as before.
        Some((&"ESOLM_API", function)) => format!("ESOLM_API {}", function.join(&indent)),
        _ => code.join("\n"),
    };
    if code.starts_with("typedef struct ") {
        return block.to_owned();
    }
    let one_line = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = if one_line.len() <= 120 { one_line } else { code };
    comments.into_iter().map(|comment| format!("{comment}\n")).collect::<String>() + &code
}

/// `ESOLM_ORDER` of a block that ends in `#define ESOLM_ORDER_RANDOM 0`.
fn constant_group(block: &str) -> Option<&str> {
    let name = block.lines().last()?.strip_prefix("#define ")?;
    name.match_indices('_').nth(1).and_then(|(end, _)| name.get(..end))
}
