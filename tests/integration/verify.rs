//! `verify` for every variant, and for files whose arrays end early.

use std::collections::BTreeMap;
use std::path::Path;

use esolm::convert::Options;
use esolm::evaluate::verify::{Outcome, verify};
use esolm::{Error, Model};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::golden::{EXACT, Golden, LENGTH, VOCAB, model, path};
use crate::runs::params;

type Array = (Dtype, Vec<usize>, Vec<u8>);
type Arrays = BTreeMap<String, Array>;

fn arrays(folder: &str) -> Arrays {
    let bytes = std::fs::read(path(folder).join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let one = |(name, t): (&str, TensorView<'_>)| {
        (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))
    };
    file.iter().map(one).collect()
}

/// Writes a golden file, with the `golden.json` of a folder beside it.
fn write(dir: &Path, arrays: &Arrays, scalars: &serde_json::Value) -> std::path::PathBuf {
    let views = arrays
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let file = dir.join("golden.safetensors");
    std::fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(dir.join("golden.json"), scalars.to_string()).unwrap();
    file
}

fn scalars(folder: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path(folder).join("golden.json")).unwrap()).unwrap()
}

fn run(model: &Model, file: &Path) -> Vec<Outcome> {
    let outcomes = verify(model, file, &params(1), None).unwrap();
    for outcome in &outcomes {
        println!("{outcome:?}");
        assert!(outcome.largest_difference <= EXACT && outcome.differing == 0, "{outcome:?}");
    }
    outcomes
}

/// Name, rows of logits and tokens compared.
fn compared(outcomes: &[Outcome]) -> Vec<(&str, usize, usize)> {
    outcomes.iter().map(|o| (o.name.as_str(), o.rows, o.tokens)).collect()
}

/// The golden model, with another value of a setting.
fn changed(folder: &str, from: &str, to: &str) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(path(folder).join("config.json")).unwrap();
    assert!(config.contains(from));
    std::fs::write(dir.path().join("config.json"), config.replace(from, to)).unwrap();
    std::fs::copy(path(folder).join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    model(dir.path(), &Options::default())
}

#[test]
fn every_variant_is_replayed() {
    // The rows of masks: 64 each without the known slots.
    let masks = |folder: &str, name: &str| -> usize {
        Golden::open(folder)
            .ints(&format!("{name}.num_clean"))
            .iter()
            .map(|&clean| LENGTH - clean as usize)
            .sum()
    };
    let file = |folder: &str| path(folder).join("golden.safetensors");
    let of = |folder: &str| Golden::open(folder).model();
    let a = run(&of("tiny-A"), &file("tiny-A"));
    assert_eq!(compared(&a), [("diff", masks("tiny-A", "diff"), 0), ("seq", masks("tiny-A", "seq"), 0)]);
    let mdlm = run(&of("mdlm-tiny"), &file("mdlm-tiny"));
    let masked = Golden::open("mdlm-tiny").ints("x").iter().filter(|&&token| token == 96).count();
    assert_eq!(compared(&mdlm), [("logits", masked, 0)]);
    let ar = run(&of("ar-tiny"), &file("ar-tiny"));
    // The greedy text has a prompt of three tokens besides the BOS.
    let expected = [
        ("greedy", 64, 61),
        ("logits", 46, 0),
        ("logits_cached", 46, 0),
        ("samp_p09", 0, 128),
        ("samp_p1", 0, 128),
    ];
    assert_eq!(compared(&ar), expected);
    // Models of other settings take what is theirs.
    let mask = changed("ar-tiny", r#""prepend_token": "bos""#, r#""prepend_token": "mask""#);
    let outcomes = verify(&mask, &file("ar-tiny"), &params(1), None).unwrap();
    let own = outcomes.iter().find(|o| o.name == "logits_mask").unwrap();
    assert!(own.largest_difference <= EXACT && own.rows == 46, "{own:?}");
    assert!(!outcomes.iter().any(|o| ["logits", "logits_cached"].contains(&o.name.as_str())));
    let diffusion =
        changed("tiny-A", r#""sequential_attn_mode": "mixed""#, r#""sequential_attn_mode": "causal""#);
    assert_eq!(compared(&run(&diffusion, &file("tiny-A"))), [("diff", masks("tiny-A", "diff"), 0)]);
}

#[test]
fn ar_without_a_token_before_the_text_is_replayed() {
    let model = changed("ar-tiny", r#""prepend_token": "bos""#, r#""prepend_token": "none""#);
    let dir = tempfile::tempdir().unwrap();
    let mut all = arrays("ar-tiny");
    // These arrays begin behind the BOS, which is not one of their texts' tokens.
    all.retain(|name, _| !name.starts_with("samp"));
    let outcomes = run(&model, &write(dir.path(), &all, &scalars("ar-tiny")));
    let expected = [("greedy", 63, 60), ("logits", 46, 0), ("logits_cached", 46, 0)];
    assert_eq!(compared(&outcomes), expected);
}

/// Cuts the rows of an array [B, L, V] down to the first ones of each text.
fn cut(all: &mut Arrays, name: &str, rows: usize) {
    let (_, shape, data) = all.get_mut(name).unwrap();
    let text = data.len() / shape[0];
    let kept = text / shape[1] * rows;
    *data = data.chunks(text).flat_map(|text| text[..kept].to_vec()).collect();
    shape[1] = rows;
}

#[test]
fn logits_of_the_first_slots_are_enough() {
    let dir = tempfile::tempdir().unwrap();
    let model = Golden::open("tiny-B").model();
    let mut all = arrays("tiny-B");
    all.retain(|name, _| {
        name.starts_with("traj.") || name.starts_with("samp_a05_p09.") || name.starts_with("seq.")
    });
    cut(&mut all, "traj.logits", 20);
    cut(&mut all, "samp_a05_p09.logits", 9);
    cut(&mut all, "samp_a05_p09.u", 30);
    cut(&mut all, "seq.logits", 40);
    let outcomes = run(&model, &write(dir.path(), &all, &scalars("tiny-B")));
    let seq: usize = Golden::open("tiny-B")
        .ints("seq.num_clean")
        .iter()
        .map(|&c| 40usize.saturating_sub(c as usize))
        .sum();
    assert_eq!(compared(&outcomes), [("samp_a05_p09", 18, 60), ("seq", seq, 0), ("traj", 40, 128)]);
    // A difference in them is seen.
    for row in [3, 19] {
        let mut changed = all.clone();
        changed.get_mut("traj.logits").unwrap().2[4 * (row * VOCAB + 1) + 2] ^= 0xff;
        let file = write(dir.path(), &changed, &scalars("tiny-B"));
        let outcomes = verify(&model, &file, &params(1), None).unwrap();
        let differs = |o: &Outcome| o.largest_difference > EXACT || o.largest_difference.is_nan();
        assert!(outcomes.iter().any(differs), "row {row}");
    }
    // An autoregressive model's, with the token before the text.
    let mut all = arrays("ar-tiny");
    all.retain(|name, _| name.starts_with("greedy."));
    cut(&mut all, "greedy.logits", 10);
    let file = write(dir.path(), &all, &scalars("ar-tiny"));
    assert_eq!(compared(&run(&Golden::open("ar-tiny").model(), &file)), [("greedy", 10, 61)]);
}

#[test]
fn eso_a_trajectory_has_the_length_of_its_diffusion_phase() {
    // The golden folder has none; what the model writes itself is one.
    let golden = Golden::open("tiny-A");
    let model = golden.model();
    let clean = golden.ints("seq.num_clean");
    let text = clean.iter().position(|&clean| clean > 1).unwrap();
    let clean = clean[text] as usize;
    let (order, x0) = (&golden.int_rows("seq.sort_idx")[text], &golden.int_rows("seq.x0")[text]);
    let text = crate::golden::text(order, x0);
    let plan = esolm::Plan {
        known: vec![],
        order: order.clone(),
        counts: [vec![clean as u32], vec![1; LENGTH - clean]].concat(),
        diffusion: clean,
    };
    let mut context = crate::golden::context(&model, esolm::ContextParams::default());
    let logits = crate::replay::replay_one(&mut context, &plan, &text);
    let floats: Vec<u8> = logits.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let ints = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let all: Arrays = [
        ("own.logits", (Dtype::F32, vec![1, LENGTH, VOCAB], floats)),
        ("own.tokens", (Dtype::I32, vec![1, LENGTH], ints(&text))),
        ("own.sort_idx", (Dtype::I32, vec![1, LENGTH], ints(order))),
        ("own.sched", (Dtype::I32, vec![plan.counts.len()], ints(&plan.counts))),
    ]
    .map(|(name, array)| (name.to_owned(), array))
    .into();
    let dir = tempfile::tempdir().unwrap();
    let told = |count: usize| json!({ "own": { "num_diffusion_tokens": count, "prompt_len": LENGTH } });
    let outcomes = verify(&model, &write(dir.path(), &all, &told(clean)), &params(1), None).unwrap();
    assert_eq!((outcomes[0].rows, outcomes[0].tokens), (LENGTH, 0));
    assert!(outcomes[0].largest_difference <= 1e-6, "{outcomes:?}");
    // Without the phase's length it is no trajectory, with another it is another.
    let error = verify(&model, &write(dir.path(), &all, &json!({})), &params(1), None).unwrap_err();
    assert!(error.to_string().contains("own.num_diffusion_tokens"), "{error}");
    let other = verify(&model, &write(dir.path(), &all, &told(0)), &params(1), None).unwrap();
    assert!(other[0].largest_difference > EXACT, "{other:?}");
}

#[test]
fn arrays_that_do_not_fit_the_model_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = Golden::open("tiny-B").model();
    let plain = arrays("tiny-B");
    let ints = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let cases: [(&str, Array); 9] = [
        // It would be copied for each text.
        ("traj.sched", (Dtype::I32, vec![65], ints(&[1; 65]))),
        ("traj.logits", (Dtype::F32, vec![2, 1, 96], vec![0; 4 * 192])),
        ("traj.logits", (Dtype::F32, vec![1, 1, 97], vec![0; 4 * 97])),
        ("traj.logits", (Dtype::F32, vec![2, 65, 97], vec![0; 4 * 2 * 65 * 97])),
        ("traj.tokens", (Dtype::I32, vec![2, 0], vec![])),
        ("traj.tokens", (Dtype::I32, vec![128], ints(&[1; 128]))),
        ("traj.sort_idx", (Dtype::I32, vec![1, 128], ints(&[0; 128]))),
        ("traj.sort_idx", (Dtype::I32, vec![2, 64], ints(&[1000; 128]))),
        ("seq.sort_idx", (Dtype::I32, vec![3, 64], ints(&[1000; 192]))),
    ];
    for (name, array) in cases {
        let mut all = plain.clone();
        all.retain(|other, _| other.split('.').next() == name.split('.').next());
        all.insert(name.into(), array.clone());
        let error = verify(&model, &write(dir.path(), &all, &json!({})), &params(1), None).unwrap_err();
        assert!(
            matches!(error, Error::BadFile { .. } | Error::InvalidArgument(_)),
            "{name} {:?}: {error}",
            array.1
        );
    }
    let mut none = plain.clone();
    none.retain(|name, _| name.starts_with("filter"));
    let error = verify(&model, &write(dir.path(), &none, &json!({})), &params(1), None).unwrap_err();
    assert!(error.to_string().contains("nothing to replay"), "{error}");
}
