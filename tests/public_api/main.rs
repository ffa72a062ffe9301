//! The public Rust interface is the one that is recorded in `esolm.txt` beside this file: `make api` records it anew.
//!
//! It is read from the source, not from the compiler (whose JSON needs a nightly, and changes with it): a line for each
//! item, field, variant, method and trait that a program may name, wherever it is declared. What the types in a
//! signature resolve to is not looked up. The C functions have a record of their own, `ffi-tests/abi`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod listing;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use listing::listing;
use source::Source;

#[test]
fn public_api_matches_the_record() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let record = root.join("tests/public_api/esolm.txt");
    let mut found = listing(
        "esolm",
        &Source::read(&root.join("src/lib.rs")),
        &["esolm::capi", "esolm::fuzzing", "esolm::limits"],
    )
    .join("\n");
    found.push('\n');
    if std::env::var_os("ESOLM_UPDATE_API").is_some() {
        std::fs::write(&record, &found).unwrap();
    }
    let recorded = std::fs::read_to_string(&record).unwrap();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (recorded.lines().collect(), found.lines().collect());
    let lines = |set: Vec<&&str>| set.iter().map(|line| format!("\n  {line}")).collect::<String>();
    let gone = lines(old.difference(&new).collect());
    assert!(gone.is_empty(), "programs may break, this is no longer so (`make api` records a change):{gone}");
    let added = lines(new.difference(&old).collect());
    assert!(added.is_empty(), "this is new; run `make api` and commit:{added}");
    assert!(found.lines().count() > 200, "only {} lines", found.lines().count());
}

/// Which no signature shows.
#[test]
fn handles_are_send_and_sync() {
    fn moved<T: Send + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    moved::<esolm::Context>();
    shared::<esolm::Model>();
    shared::<esolm::CancelToken>();
    shared::<esolm::Error>();
    shared::<esolm::GenerateParams<'static>>();
}

fn list(source: &str) -> Vec<String> {
    listing("a", &Source::parse(source), &["a::left_out"])
}

#[test]
fn private_items_are_not_listed() {
    let source = "
        mod inner {
            pub struct Hidden;
            pub(crate) fn hidden() {}
            pub fn shown(mut x: u8) -> u8 { x }
            impl Hidden { pub fn method(&self) {} }
        }
        #[cfg(test)] pub fn test() {}
        pub mod left_out { pub fn not_here() {} }
        fn hidden() {}
        use inner::Hidden;
        pub use inner::shown as renamed;
        pub use elsewhere::Thing;
    ";
    let expected = [
        "a::Thing: pub use elsewhere::Thing",
        "a::left_out: pub mod left_out",
        "a::renamed: pub fn shown(x: u8) -> u8",
    ];
    assert_eq!(list(source), expected);
}

#[test]
fn all_public_items_are_listed() {
    let source = "
        mod deep {
            mod deeper {
                /// Text.
                #[derive(Debug, Clone)]
                #[non_exhaustive]
                pub struct Shape<'a> { pub name: &'a str, hidden: u8 }
                impl<'a> Shape<'a> {
                    pub const SIDES: usize = 3;
                    pub fn grow(&mut self, by: f64) -> Result<(), String> { Ok(()) }
                    fn hidden(&self) {}
                }
                impl From<u8> for Shape<'_> { fn from(x: u8) -> Self { todo!() } }
            }
            pub use self::deeper::*;
        }
        pub use crate::deep::Shape;
        pub mod kinds {
            #[cfg(feature = \"x\")]
            pub enum Kind { One, Two(u8), Three { size: usize } }
            pub struct Pair(pub u8, u8);
            pub type Alias = Option<u8>;
            pub const LIMIT: usize = 1 + 2;
            pub trait Speak { const N: u8; type Out; fn say(&self) -> Self::Out; }
            impl Speak for super::Shape<'_> { const N: u8 = 1; type Out = (); fn say(&self) {} }
        }
    ";
    let expected = [
        "a::Shape.name: &'a str",
        "a::Shape: #[non_exhaustive] pub struct Shape<'a> { .. }",
        "a::Shape: impl Clone",
        "a::Shape: impl Debug",
        "a::Shape: impl From<u8>",
        "a::Shape: impl Speak",
        "a::Shape::SIDES: pub const SIDES: usize",
        "a::Shape::grow: pub fn grow(&mut self, by: f64) -> Result<(), String>",
        "a::kinds: pub mod kinds",
        "a::kinds::Alias: pub type Alias = Option<u8>",
        "a::kinds::Kind: #[cfg(feature = \"x\")] pub enum Kind",
        "a::kinds::Kind::One",
        "a::kinds::Kind::Three.size: usize",
        "a::kinds::Kind::Three: { }",
        "a::kinds::Kind::Two.0: u8",
        "a::kinds::Kind::Two: ( )",
        "a::kinds::LIMIT: pub const LIMIT: usize",
        "a::kinds::Pair.0: u8",
        "a::kinds::Pair: pub struct Pair( .. )",
        "a::kinds::Speak: pub trait Speak",
        "a::kinds::Speak::N: const N: u8",
        "a::kinds::Speak::Out: type Out",
        "a::kinds::Speak::say: fn say(&self) -> Self::Out",
    ];
    assert_eq!(list(source), expected);
}

#[test]
fn changed_signature_changes_the_line() {
    let long = "pub fn f(first: &'static str, second: Option<Vec<u8>>, third: impl Fn(u8) -> u8, fourth: u64) -> u8 { 1 }";
    let line = "a::f: pub fn f(first: &'static str, second: Option<Vec<u8>>, third: impl Fn(u8) -> u8, fourth: u64) -> u8";
    assert_eq!(list(long), [line]);
    assert_ne!(list(&long.replace("u64", "u32")), [line]);
    assert_ne!(list(&long.replace("-> u8 {", "-> i8 {")), [line]);
    assert_ne!(list(&long.replace("pub fn", "pub unsafe fn")), [line]);
    assert!(list(&long.replace("pub fn", "pub(crate) fn")).is_empty());
}
