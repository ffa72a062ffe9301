//! The layout keeps its rules: a folder of `src/` imports only from folders below it, there are no circles, and the
//! command in `cli/` uses the public API alone. `rules.rs` has the list of floors. Needs no model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod made_up;
mod reader;
mod rules;
mod source;

use std::path::Path;

use source::{Files, Source, read_files};

fn files(folder: &str) -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if root.exists() { read_files(&root) } else { Files::new() }
}

fn assert_none(folder: &str, what: &str, found: &[String]) {
    let lines: String = found.iter().map(|line| format!("\n  {folder}/{line}")).collect();
    assert!(found.is_empty(), "{what}:{lines}");
}

#[test]
fn src_imports_only_from_lower_floors() {
    let source = Source::parse(&files("src"));
    assert!(source.references.len() > 1000, "only {} paths were read", source.references.len());
    assert_none("src", "a folder imports only from folders below it", &rules::upward_imports(&source));
}

#[test]
fn src_and_cli_have_no_import_circles() {
    for folder in ["src", "cli/src"] {
        let found = rules::circles(&Source::parse(&files(folder)));
        assert_none(folder, "files import from each other in a circle", &found);
    }
}

#[test]
fn cli_uses_only_the_public_api() {
    let files = files("cli/src");
    assert_none(
        "cli/src",
        "the command is a user of the library",
        &rules::private_uses(&Source::parse(&files), &files),
    );
}

#[test]
fn src_and_cli_files_are_short() {
    for folder in ["src", "cli"] {
        assert_none(folder, "a file of one subject is shorter", &rules::long_files(&files(folder)));
    }
}

#[test]
fn unsafe_is_only_in_its_folders() {
    let source = Source::parse(&files("src"));
    assert_none("src", "unsafe code has its folders", &rules::misplaced_unsafe(&source));
    assert_none("src", "`wide` alone asks whether the processor has AVX2", &rules::uses_of_avx2(&source));
    assert!(Source::parse(&files("cli/src")).unsafes.is_empty(), "cli/src has unsafe code");
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let files = files("src");
    assert_none("src", "unsafe needs a reason", &rules::unexplained_unsafe(&Source::parse(&files), &files));
}

#[test]
fn type_names_are_unique() {
    for folder in ["src", "cli/src"] {
        let found = rules::repeated_types(&Source::parse(&files(folder)));
        assert_none(folder, "types of one name", &found);
    }
}
