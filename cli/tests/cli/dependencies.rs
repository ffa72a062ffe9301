//! What the library depends on: a program that uses it does not compile what only the command needs.

use std::collections::BTreeSet;
use std::process::Command;

/// The packages that the library is built from, as `cargo tree` lists them for this machine.
fn packages(features: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "-p", "esolm", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--no-default-features", "--features", features, "--locked", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    String::from_utf8(tree.stdout).unwrap().lines().map(name).collect()
}

fn has(packages: &BTreeSet<String>, name: &str) -> bool {
    packages.iter().any(|package| package.split(' ').next() == Some(name))
}

/// The number of packages on record (`cargo tree` prints 139 lines for them). Before one is added: is it worth its while?
#[cfg(target_os = "linux")]
const PACKAGES: usize = 80;

#[test]
fn the_library_needs_nothing_of_the_command_or_the_converter() {
    for features in ["", "capi"] {
        let packages = packages(features);
        assert!(has(&packages, "esolm") && has(&packages, "tokenizers"), "{packages:?}");
        for other in [
            "clap",
            "clap_complete",
            "console",
            "indicatif",
            "zip",
            "safetensors",
            "quantize-rs",
            "hf-hub",
            "ureq",
        ] {
            assert!(!has(&packages, other), "features '{features}': {other} is among {packages:?}");
        }
        #[cfg(target_os = "linux")]
        assert!(
            packages.len() <= PACKAGES,
            "features '{features}': {} packages, {PACKAGES} on record: {packages:#?}",
            packages.len()
        );
    }
    assert!(has(&packages("convert"), "safetensors"), "the list shows what is there");
}
