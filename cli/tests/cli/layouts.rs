//! How matrices lie in a file: `--layout`, `--repack`, what `inspect` says of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::command_line::{built_in, err, esolm, golden, out};

/// The types and layouts of a file's matrices, as `inspect` has them.
fn layouts(model: &str) -> BTreeSet<(String, String)> {
    let report: Value = serde_json::from_str(&out(&esolm(&["inspect", model, "--json"]))).unwrap();
    let text = |tensor: &Value, name: &str| tensor[name].as_str().unwrap_or("none").to_owned();
    let tensors = report["tensors"].as_array().unwrap().iter();
    let matrices = tensors.filter(|tensor| tensor["shape"].as_array().unwrap().len() == 2);
    matrices.map(|tensor| (text(tensor, "type"), text(tensor, "layout"))).collect()
}

fn named(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(ty, layout)| ((*ty).to_owned(), (*layout).to_owned())).collect()
}

/// Runs a command that has to end well.
fn done(args: &[&str]) {
    let output = esolm(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
}

#[test]
fn files_in_panels_become_plain_and_are_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (mixed, plain, again) = (path("mixed.gguf"), path("plain.gguf"), path("again.gguf"));
    // Types that no policy gives by itself.
    let keep = ["--layout", "panels", "--keep", "blk.0.*=q4_k", "--keep", "blk.last.*=q6_k"];
    done(&[&["quantize", &built_in(), &mixed][..], &keep].concat());
    let kept = [("q8_0", "panels"), ("q4_k", "panels"), ("q6_k", "panels"), ("q8_0", "plain")];
    assert_eq!(layouts(&mixed), named(&kept));
    done(&["quantize", &mixed, &plain, "--layout", "plain"]);
    assert_eq!(layouts(&plain), named(&kept.map(|(ty, _)| (ty, "plain"))));
    done(&["quantize", &plain, &again, "--layout", "panels"]);
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&mixed).unwrap());

    let text = |model: &str, more: &[&str]| {
        let args = ["generate", "--verbose", "-m", model, "-p", "The king", "-n", "40", "--seed", "2"];
        let output = esolm(&[&args[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        (out(&output), err(&output).contains(": in memory"))
    };
    let (expected, in_memory) = text(&mixed, &[]);
    assert!(!in_memory);
    assert_eq!(text(&plain, &[]), (expected.clone(), false));
    assert_eq!(text(&plain, &["--repack"]), (expected.clone(), true));
    // Nothing is left to do.
    assert_eq!(text(&mixed, &["--repack"]), (expected, false));
}

#[test]
fn convert_writes_both_layouts() {
    let dir = tempfile::tempdir().unwrap();
    for layout in ["panels", "plain"] {
        let file = dir.path().join(layout).display().to_string();
        done(&["convert", &golden("model.safetensors"), "-o", &file, "--type", "q8_0", "--layout", layout]);
        let found = layouts(&file);
        assert!(found.contains(&("q8_0".into(), layout.into())), "{found:?}");
        assert_eq!(found.iter().any(|(_, found)| found == "panels"), layout == "panels", "{found:?}");
    }
    let file = dir.path().join("none.gguf").display().to_string();
    let refused = esolm(&["quantize", &built_in(), &file]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("--type"), "{}", err(&refused));
}
