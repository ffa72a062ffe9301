//! The rules can fail: small made-up trees that break each of them, and some that only look as if they did.

use crate::rules::{
    MAX_LINES, circles, long_files, misplaced_unsafe, private_uses, repeated_types, unexplained_unsafe,
    upward_imports, uses_of_avx2,
};
use crate::source::{Files, Source};

fn files(tree: &[(&str, &str)]) -> Files {
    tree.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn source(tree: &[(&str, &str)]) -> Source {
    Source::parse(&files(tree))
}

#[test]
fn downward_imports_are_allowed() {
    let tree = [
        ("lib.rs", "mod plan; mod error; mod rng; pub use error::Error; pub use plan::Plan;"),
        ("plan/mod.rs", "pub mod order; pub use order::Order; pub struct Plan(Order);"),
        (
            "plan/order.rs",
            "use crate::error::Error; use crate::rng; pub struct Order; fn f() -> Error { rng::new() }",
        ),
        ("rng.rs", "use crate::error::Error; pub fn new() -> Error { Error }"),
        ("error.rs", "// crate::plan::Plan in a comment\npub struct Error;"),
    ];
    assert_eq!(upward_imports(&source(&tree)), Vec::<String>::new());
    assert_eq!(circles(&source(&tree)), Vec::<String>::new());
}

#[test]
fn upward_imports_are_found_in_every_form() {
    let upward = |text: &str| {
        let tree = [
            ("lib.rs", "mod model; mod score; pub use score::Bound;"),
            ("model/mod.rs", "mod header;"),
            ("model/header.rs", text),
            ("score/mod.rs", "mod bound; pub use bound::Bound; pub fn nll() {}"),
            ("score/bound.rs", "pub struct Bound;"),
        ];
        upward_imports(&source(&tree))
    };
    let is_found = |text: &str, path: &str| {
        assert_eq!(upward(text), [format!("model/header.rs:2: {path}: score is not below model")], "{text}");
    };
    is_found("\nuse crate::score::Bound;", "crate::score::Bound");
    is_found("\nuse super::super::score::Bound;", "super::super::score::Bound");
    is_found("\nuse crate::{score::{Bound as B}};", "crate::score::Bound");
    is_found("\nuse crate::score::{self};", "crate::score");
    is_found("\nuse crate::score::*;", "crate::score");
    is_found("\nuse crate::score; fn f() { score::nll() }", "crate::score");
    is_found("\nfn f() { crate::score::nll() }", "crate::score::nll");
    is_found("\nfn f() { assert!(super::super::score::nll() == ()) }", "super::super::score::nll");
    is_found("\n#[doc(alias = \"x\")] pub use crate::score::bound::Bound;", "crate::score::bound::Bound");
    is_found("\nmod inner { use super::super::super::score::Bound; }", "super::super::super::score::Bound");
    // By the name that the crate's root gives it.
    is_found("\nuse crate::Bound;", "crate::Bound");
    // In a test, too.
    is_found("#[cfg(test)] mod tests {\nuse crate::score::nll; }", "crate::score::nll");
    assert_eq!(
        upward("use score::Bound; use std::fmt; fn f(x: fmt::Error) {}"),
        Vec::<String>::new(),
        "another crate"
    );
}

#[test]
fn members_of_one_floor_do_not_know_each_other() {
    let tree =
        |text| [("lib.rs", "mod plan; mod sample;"), ("plan.rs", text), ("sample.rs", "pub struct Logits;")];
    let found = upward_imports(&source(&tree("use crate::sample::Logits;")));
    assert_eq!(found, ["plan.rs:1: crate::sample::Logits: sample is not below plan"]);
    // Their tests may.
    for test in
        ["#[cfg(test)] mod tests { use crate::sample::Logits; }", "#[cfg(test)] use crate::sample::Logits;"]
    {
        assert_eq!(upward_imports(&source(&tree(test))), Vec::<String>::new(), "{test}");
    }
}

#[test]
fn folders_without_a_floor_are_named() {
    let found = upward_imports(&source(&[("lib.rs", "mod util;"), ("util/mod.rs", "")]));
    assert_eq!(found, ["util: not in the list of floors"]);
}

#[test]
fn circles_are_reported_with_their_path() {
    let tree = [
        ("lib.rs", "mod model;"),
        ("model/mod.rs", "mod a; mod b; mod c;"),
        ("model/a.rs", "use super::b::B;\npub struct A(B);"),
        ("model/b.rs", "use crate::model::c;\npub struct B(c::C);"),
        ("model/c.rs", "pub struct C;\nfn f(_: super::a::A) {}"),
    ];
    let path = "model/a.rs:1: super::b::B -> model/b.rs:2: c::C -> model/c.rs:2: super::a::A -> model/a.rs";
    assert_eq!(circles(&source(&tree)), [path]);
}

#[test]
fn reexports_and_tests_make_no_circle() {
    let tree = |parent| {
        [
            ("lib.rs", "mod model;"),
            ("model/mod.rs", parent),
            ("model/a.rs", "use super::MAX;\n#[cfg(test)] mod tests;\npub struct A([u8; MAX]);"),
            ("model/a/tests.rs", "use super::*; fn f() -> crate::model::A { A([0; 3]) }"),
        ]
    };
    assert_eq!(
        circles(&source(&tree("mod a; pub use a::A; pub const MAX: usize = 3;"))),
        Vec::<String>::new()
    );
    let found = circles(&source(&tree("mod a; pub use a::A; pub const MAX: usize = 3;\nfn f(_: A) {}")));
    assert_eq!(found, ["model/a.rs:1: super::MAX -> model/mod.rs:1: a::A -> model/a.rs"]);
}

#[test]
fn cli_that_reaches_into_the_library_is_found() {
    let files = files(&[
        ("main.rs", "use esolm::{Context, Model};\nuse ggml_sys::ggml_init;"),
        ("input.rs", "#[path = \"../../src/rng.rs\"]\nmod rng;"),
    ]);
    let found = private_uses(&Source::parse(&files), &files);
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("main.rs:2: ggml_sys::ggml_init"), "{found:?}");
    assert!(found[1].starts_with("input.rs:1: #[path"), "{found:?}");
}

#[test]
fn long_files_are_found() {
    let text = |lines| "//\n".repeat(lines);
    let files = files(&[("a.rs", &text(MAX_LINES)), ("b.rs", &text(MAX_LINES + 1))]);
    assert_eq!(long_files(&files), ["b.rs: 401 lines, more than 400"]);
}

#[test]
fn unsafe_code_is_found_and_needs_a_reason() {
    let text = "
        // SAFETY: the pointer is valid.
        let x =
            unsafe { *p };
        // unsafe { in_a_comment() }
        let y = unsafe { *p };
        /// # Safety
        /// Valid pointers only.
        #[inline]
        unsafe fn f(g: unsafe extern \"C\" fn(u8)) {}
        unsafe fn g() {}
        // SAFETY: see above.
        unsafe impl Send for X {}
    ";
    let files = files(&[("ggml/a.rs", text), ("plan/b.rs", "// SAFETY: ok.\nunsafe impl Send for Y {}")]);
    let source = Source::parse(&files);
    assert_eq!(
        misplaced_unsafe(&source),
        ["plan/b.rs:2: unsafe outside of ggml/, capi/, forward/cpu/, memory/, simd/"]
    );
    let expected = [
        "ggml/a.rs:6: unsafe without a comment that says SAFETY:",
        "ggml/a.rs:11: unsafe without a comment that says # Safety",
        "ggml/a.rs:13: the comment says only 'see above'",
    ];
    assert_eq!(unexplained_unsafe(&source, &files), expected);
}

#[test]
fn vectors_for_some_processors_are_found_outside_of_their_folder() {
    let source = source(&[
        ("simd/wide.rs", "use super::avx2::Eight; fn f() { crate::simd::Avx2::zero(); }"),
        ("plan/a.rs", "use crate::simd::Avx2;"),
        ("plan/b.rs", "use crate::simd::{Avx2 as V, LANES};\nfn f() { crate::simd::avx2::Eight::zero(); }"),
        ("forward/c.rs", "use crate::forward::cpu::kernels::isa::Avx2; use super::avx2::Avx2;"),
    ]);
    let expected = [
        "plan/a.rs:1: crate::simd::Avx2",
        "plan/b.rs:1: crate::simd::Avx2",
        "plan/b.rs:2: crate::simd::avx2::Eight::zero",
    ];
    assert_eq!(uses_of_avx2(&source), expected);
}

#[test]
fn repeated_type_names_are_found() {
    let tree = [
        ("lib.rs", "mod a; mod b; #[cfg(unix)] mod c; #[cfg(not(unix))] mod d;"),
        ("a.rs", "pub struct Plan; struct Private; pub struct Args; #[cfg(test)] pub struct Fake;"),
        ("b.rs", "pub(crate) enum Plan {} struct Private; pub struct Args; pub struct Fake;"),
        ("c.rs", "pub struct F32x8;"),
        ("d.rs", "pub struct F32x8;"),
    ];
    assert_eq!(repeated_types(&source(&tree)), ["a.rs:1, b.rs:1: types called Plan"]);
}
