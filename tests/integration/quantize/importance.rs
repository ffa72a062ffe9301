//! Importance matrices: measuring them, and quantizing with them.

use esolm::gguf::TensorType;
use esolm::quantize::{ImatrixOptions, QuantizeOptions, observe_text};
use esolm::{Architecture, Config, Error, Variant};

use super::{Scratch, unpacked, wide, write_importance};
use crate::reference::{Network, config};

#[test]
fn importance_lowers_the_error_of_important_columns() {
    let original = Network::random(wide(), 21);
    let scratch = Scratch::new(&original.to_gguf());
    let name = "blk.0.ffn_up.weight";
    let columns: Vec<f32> = (0..256).map(|i| if i % 8 == 3 { 50.0 } else { 0.0 }).collect();
    write_importance(&scratch.path("imatrix"), &[(name, columns.clone())]);
    let weighted = |model: &Network| -> f64 {
        let (a, b) = (&original.tensors[name], &model.tensors[name]);
        let weights = columns.iter().cycle();
        a.iter().zip(b).zip(weights).map(|((a, b), w)| f64::from(w * (a - b).powi(2))).sum()
    };
    use TensorType::*;
    for ty in [Q2K, Q3K, Q4K, Q5K, Q6K, Q4_0, Q4_1, Q5_0, Q5_1, Iq4Nl] {
        let mut options = QuantizeOptions { force: true, ..QuantizeOptions::new(ty) };
        scratch.quantize("plain.gguf", &options).unwrap();
        options.importance = Some(scratch.path("imatrix"));
        let report = scratch.quantize("weighed.gguf", &options).unwrap();
        assert!(report.notes.iter().any(|n| n.contains("has no entry for")), "{:?}", report.notes);
        let [plain, weighed] = ["plain.gguf", "weighed.gguf"].map(|n| weighted(&unpacked(&scratch.path(n))));
        println!("{:7} {plain:.3} -> {weighed:.3}", ty.name());
        assert!(weighed < 0.9 * plain, "{}: {weighed} is not well below {plain}", ty.name());
    }
}

#[test]
fn importance_of_another_model_is_refused() {
    let scratch = Scratch::new(&Network::random(wide(), 8).to_gguf());
    let path = scratch.path("imatrix");
    let options = QuantizeOptions { importance: Some(path.clone()), ..QuantizeOptions::new(TensorType::Q4K) };
    let good = vec![1.0; 256];
    let with = |v: f32| [&good[..255], &[v]].concat();
    for (name, values, what) in [
        ("output.weight", vec![1.0; 255], "[256]"),
        ("output.bias", vec![1.0; 101], "not a matrix"),
        ("nonsense", good.clone(), "not a matrix"),
        ("output.weight", with(f32::NAN), "not a mean square"),
        ("output.weight", with(-1.0), "not a mean square"),
        ("output.weight", vec![0.0; 256], "zero everywhere"),
    ] {
        write_importance(&path, &[(name, values)]);
        let error = scratch.error(&options);
        assert!(matches!(error, Error::BadFile { .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains(what), "{error}");
    }
    std::fs::write(&path, Network::random(wide(), 8).to_gguf()).unwrap();
    assert!(scratch.error(&options).to_string().contains("general.type"));
    std::fs::write(&path, b"GGUF").unwrap();
    scratch.error(&options);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(scratch.error(&options), Error::Io { .. }));
}

#[test]
fn importance_is_the_mean_square_of_the_inputs() {
    let reference = Network::random(config(2, 2), 6);
    let model = reference.model();
    let text: Vec<u32> = (0..50).map(|i| (i * 37 + 5) % 100).collect();
    let options = ImatrixOptions { length: 20, pieces: 0, steps: 6, threads: 1, ..ImatrixOptions::default() };
    let mut seen = Vec::new();
    let observed = observe_text(&model, &text, &options, &mut |done, all| seen.push((done, all))).unwrap();
    assert_eq!((observed.pieces, seen), ((2, 20), vec![(1, 2), (2, 2)]));
    let names: Vec<&str> = observed.matrices.iter().map(|(name, _)| name.as_str()).collect();
    let specs = reference.config.tensors().unwrap();
    let matrices = specs.iter().filter(|s| s.dims.len() > 1 && s.name != "token_embd.weight");
    assert_eq!(names, matrices.clone().map(|s| s.name.as_str()).collect::<Vec<_>>());
    for (spec, (_, columns)) in matrices.zip(&observed.matrices) {
        assert_eq!(columns.len(), spec.dims[0]);
        assert!(columns.iter().all(|&v| v > 0.0), "{}", spec.name);
    }
    // The first block is fed all 40 mask rows, and each token after its step, except those of the last steps. So the
    // means of its first matrix's inputs lie between the extremes over which tokens are left out.
    let square = |token: u32| -> Vec<f64> {
        let normalized = reference.norm("blk.0.attn_norm", &reference.embedding(token));
        normalized.iter().map(|v| v * v).collect()
    };
    let mask = square(reference.config.mask_token_id);
    let tokens: Vec<Vec<f64>> = text[..40].iter().map(|&t| square(t)).collect();
    let (_, columns) = &observed.matrices[0];
    // Steps of 3, 3, 4, 3, 3, 4 tokens: the last four of each piece are never fed.
    let fed = 2 * (20 + 16);
    assert!(observed.rows >= fed);
    let (mut lowest, mut highest) = (0.0f64, 0.0f64);
    for (column, &value) in columns.iter().enumerate() {
        let mut of_tokens: Vec<f64> = tokens.iter().map(|t| t[column]).collect();
        of_tokens.sort_by(f64::total_cmp);
        let sum = |part: &[f64]| (part.iter().sum::<f64>() + 40.0 * mask[column]) / fed as f64;
        let (low, high) = (sum(&of_tokens[..32]), sum(&of_tokens[8..]));
        let value = f64::from(value);
        assert!(
            low * (1.0 - 1e-5) <= value && value <= high * (1.0 + 1e-5),
            "{column}: {low} {value} {high}"
        );
        (lowest, highest) = (lowest.max(value / high), highest.max(low / value));
    }
    assert!(lowest > 0.5 && highest > 0.5, "the bounds are tight enough to matter");
    let again = ImatrixOptions { threads: 2, ..options };
    assert_eq!(observe_text(&model, &text, &again, &mut |_, _| ()).unwrap(), observed);
    let other = ImatrixOptions { seed: 1, ..options };
    assert_ne!(observe_text(&model, &text, &other, &mut |_, _| ()).unwrap().matrices, observed.matrices);
    for bad in [vec![], vec![100], vec![1, 101]] {
        assert!(matches!(
            observe_text(&model, &bad, &options, &mut |_, _| ()),
            Err(Error::InvalidArgument(_))
        ));
    }
    // Observing again, in another context.
    let one = ImatrixOptions { length: 9, pieces: 1, steps: 99, ..options };
    assert_eq!(observe_text(&model, &text[..9], &one, &mut |_, _| ()).unwrap().pieces, (1, 9));
}

/// Each variant is observed as it generates: in random orders, in blocks, behind a prompt.
#[test]
fn every_variant_and_architecture_is_observed() {
    let eso = |variant, block_length| Network::random(Config { variant, block_length, ..wide() }, 5);
    let qwen = |variant, architecture| Network::qwen(variant, architecture, 5);
    let tied = Architecture { tied_output: true, ..Architecture::QWEN3 };
    for network in [
        eso(Variant::EsoA, 0),
        eso(Variant::Mdlm, 0),
        eso(Variant::Ar, 0),
        eso(Variant::Bd3Lm, 4),
        qwen(Variant::Ar, Architecture::QWEN2),
        qwen(Variant::Ar, Architecture::QWEN3),
        qwen(Variant::WeDlm, Architecture::QWEN3),
        qwen(Variant::WeDlm, tied),
    ] {
        let (config, model) = (&network.config, network.model());
        let what = (config.variant, config.architecture);
        let text: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 90).collect();
        let options = ImatrixOptions { length: 20, steps: 8, threads: 1, ..ImatrixOptions::default() };
        let observed = observe_text(&model, &text, &options, &mut |_, _| ()).unwrap();
        let mut names: Vec<&str> = observed.matrices.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let specs = config.tensors().unwrap();
        let matrices = specs.iter().filter(|spec| spec.dims.len() > 1);
        let mut expected: Vec<&str> = matrices.map(|spec| spec.name.as_str()).collect();
        expected.retain(|&name| name != "token_embd.weight" || config.architecture.tied_output);
        expected.sort_unstable();
        assert_eq!(names, expected, "{what:?}");
        // All tokens of both pieces are fed but the last ones, once at least.
        assert!(observed.rows >= 2 * (20 - 8), "{what:?}: {} rows", observed.rows);
        assert_eq!(observe_text(&model, &text, &options, &mut |_, _| ()).unwrap(), observed, "{what:?}");
        // A file with these importances is what such a model is quantized with.
        let scratch = Scratch::new(&network.to_gguf());
        let matrices: Vec<_> =
            observed.matrices.iter().map(|(name, of)| (name.as_str(), of.clone())).collect();
        write_importance(&scratch.path("imatrix"), &matrices);
        let importance = Some(scratch.path("imatrix"));
        let quantizing = QuantizeOptions { importance, ..QuantizeOptions::new(TensorType::Q8_0) };
        let report = scratch.quantize("small.gguf", &quantizing).unwrap();
        assert!(!report.notes.iter().any(|note| note.contains("has no entry for")), "{:?}", report.notes);
        let short = observe_text(&model, &text[..1], &options, &mut |_, _| ());
        let needs_prompt = matches!(config.variant, Variant::Ar | Variant::WeDlm);
        assert_eq!(short.is_err(), needs_prompt, "{what:?}");
    }
}
