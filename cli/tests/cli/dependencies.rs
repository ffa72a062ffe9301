//! What library and command depend on: a program that uses the library does not compile what only the command needs, and
//! every package is allowed (deny.toml) and has its place in THIRD-PARTY.txt.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::command_line::{esolm, library_file, out};

/// Packages, each as `NAME vVERSION`, and the licence that each states, as `cargo tree` lists them for this machine.
fn tree(args: &[&str]) -> BTreeMap<String, String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--prefix", "none", "--format", "{p}|{l}", "--locked", "--offline"])
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let mut packages = BTreeMap::new();
    for line in String::from_utf8(tree.stdout).unwrap().lines().filter(|line| !line.is_empty()) {
        let (package, licence) = line.split_once('|').unwrap();
        let name = package.split(' ').take(2).collect::<Vec<_>>().join(" ");
        packages.insert(name, licence.trim_end_matches(" (*)").to_owned());
    }
    packages
}

/// The packages that the library is built from.
fn packages(features: &str) -> BTreeSet<String> {
    let args = ["-p", "esolm", "-e", "normal", "--no-default-features", "--features", features];
    tree(&args).into_keys().collect()
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
            "llguidance",
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
    assert!(has(&packages("grammar"), "llguidance"), "the list shows what is there");
}

/// The quoted words of a list in deny.toml, which has an entry a line.
fn allowed(list: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(library_file("deny.toml")).unwrap();
    let from = text.split_once(&format!("\n{list} = [")).unwrap().1;
    let entries: BTreeSet<String> = from
        .split_once(']')
        .unwrap()
        .0
        .lines()
        .filter_map(|line| line.split('"').nth(1))
        .map(String::from)
        .collect();
    assert!(!entries.is_empty(), "{list}");
    entries
}

/// Whether an SPDX expression can be met with the licences `allow`: `A OR B` with one, `A AND B` with both.
fn can_be_met(expression: &str, allow: &BTreeSet<String>) -> bool {
    let or = expression.replace(" / ", " OR ").replace('/', " OR ");
    or.split(" AND ").all(|part| {
        let choice = part.trim_start_matches('(').trim_end_matches(')');
        choice.split(" OR ").any(|licence| allow.contains(licence))
    })
}

/// What Cargo.lock says of a package: name and version, and where it is from.
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

fn locked() -> Vec<Locked> {
    let text = std::fs::read_to_string(library_file("Cargo.lock")).unwrap();
    let entries = text.split("[[package]]").skip(1).map(|entry| {
        let value = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        Locked {
            name: value("name").unwrap(),
            version: value("version").unwrap(),
            source: value("source"),
            checksum: value("checksum"),
        }
    });
    entries.collect()
}

#[test]
fn packages_have_licences_that_are_allowed() {
    let allow = allowed("allow");
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0/MIT", true),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(can_be_met(expression, &allow), met, "{expression}");
    }
    let packages = tree(&["--workspace", "-e", "normal,build,dev"]);
    assert!(packages.len() > 200, "{}", packages.len());
    for (package, licence) in packages {
        assert!(
            can_be_met(&licence, &allow),
            "{package} is under '{licence}', which deny.toml does not allow"
        );
    }
}

#[test]
fn packages_come_from_crates_io_and_duplicates_are_on_record() {
    let source = "registry+https://github.com/rust-lang/crates.io-index";
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for package in locked() {
        if !package.name.starts_with("esolm") {
            assert_eq!(package.source.as_deref(), Some(source), "{}", package.name);
            assert_eq!(package.checksum.map_or(0, |hash| hash.len()), 64, "{}", package.name);
        }
        versions.entry(package.name).or_default().insert(package.version);
    }
    // A package in n versions has n - 1 entries in deny.toml, and each entry is of such a package.
    let mut skipped = BTreeMap::<String, usize>::new();
    for entry in allowed("skip") {
        let (name, version) = entry.split_once('@').unwrap();
        assert!(versions[name].contains(version), "deny.toml: {entry} is not in Cargo.lock any more");
        *skipped.entry(name.into()).or_default() += 1;
    }
    for (name, versions) in versions {
        let on_record = skipped.get(&name).copied().unwrap_or(0);
        assert_eq!(
            versions.len(),
            on_record + 1,
            "{name} {versions:?}: {on_record} of them under skip in deny.toml"
        );
    }
}

#[test]
fn licenses_names_each_package_in_the_command() {
    let text = out(&esolm(&["--licenses"]));
    let (packages, texts) = text.split_once("\nMIT\n===\n").unwrap();
    let listed: BTreeMap<&str, &str> = packages
        .lines()
        .skip_while(|line| *line != "========")
        .filter_map(|line| line.split_once(": "))
        .collect();
    // What is in this very command is listed under the licence that it states.
    #[cfg(feature = "hub")]
    for (package, licence) in tree(&["-p", "esolm-cli", "-e", "normal,no-proc-macro"]) {
        if package.starts_with("esolm") {
            continue;
        }
        let name = package.replace(" v", " ");
        let found = listed.get(name.as_str()).map(|licences| licences.split(", as ").next().unwrap());
        let licence = licence.replace(" / ", " OR ").replace('/', " OR ");
        assert_eq!(found, Some(licence.as_str()), "{name}: `make notices` writes THIRD-PARTY.txt");
    }
    // What is listed is in Cargo.lock, and has its copyright and its text.
    let locked: BTreeSet<String> = locked().iter().map(|p| format!("{} {}", p.name, p.version)).collect();
    let with_text = |name: &str| {
        texts
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(": ")))
    };
    assert!(listed.len() > 100, "{}", listed.len());
    for name in listed.keys().filter(|name| !name.starts_with("  with ggml")) {
        assert!(locked.contains(*name), "{name} is not in Cargo.lock: `make notices` writes THIRD-PARTY.txt");
        assert!(with_text(name), "{name}");
    }
    assert!(text.contains("## Data and licences"), "of the built-in model");
    assert!(packages.contains("\n  with ggml ") && texts.contains("The ggml authors"), "{packages}");
}
