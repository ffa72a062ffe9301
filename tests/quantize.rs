//! Quantizing: what each type costs, that it runs, that the file is the same for any number of threads, and what
//! is refused.
#![cfg(feature = "convert")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part of this")]
mod random_model;

use std::path::{Path, PathBuf};

use esolm::config::Config;
use esolm::convert::{
    ImatrixOptions, Options, Policy, QuantizeOptions, QuantizeReport, Rule, convert, observe_text, quantize,
};
use esolm::gguf::{Gguf, TensorType, Value, Writer};
use esolm::{
    Context, ContextParams, Error, GenerateParams, KvType, LoadOptions, Model, Plan, Prompt, Sampling,
};
use random_model::{Random, RandomModel, config};
use tempfile::TempDir;

/// A model whose rows all types can pack.
fn wide() -> Config {
    Config { embedding_length: 256, feed_forward_length: 512, ..config(2, 4) }
}

/// A file in a directory of its own.
struct Scratch {
    dir: TempDir,
    input: PathBuf,
}

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.gguf");
        std::fs::write(&input, bytes).unwrap();
        Self { dir, input }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Quantizes `input` to `name`.
    fn quantize(&self, name: &str, options: &QuantizeOptions) -> Result<QuantizeReport, Error> {
        quantize(&self.input, &self.path(name), options, &mut |_| ())
    }

    fn to(&self, name: &str, ty: TensorType) -> QuantizeReport {
        self.quantize(name, &QuantizeOptions::new(ty)).unwrap()
    }

    /// The error of quantizing, which must leave nothing behind.
    fn error(&self, options: &QuantizeOptions) -> Error {
        let before = self.files();
        let error = self.quantize("out.gguf", options).unwrap_err();
        assert_eq!(self.files(), before, "a failure left files behind");
        error
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn everything(ty: TensorType) -> QuantizeOptions {
    let mut options = QuantizeOptions::new(ty);
    options.policy.rules.push(Rule::new("*", ty));
    options
}

/// A file's numbers by tensor: quantizing to f32 unpacks.
fn unpacked(path: &Path, config: &Config) -> RandomModel {
    let scratch = Scratch::new(&std::fs::read(path).unwrap());
    scratch.quantize("f32.gguf", &everything(TensorType::F32)).unwrap();
    let bytes = std::fs::read(scratch.path("f32.gguf")).unwrap();
    let gguf = Gguf::parse(&bytes, "f32").unwrap();
    let numbers = |t: &esolm::gguf::TensorInfo| {
        assert_eq!(t.ty, TensorType::F32);
        let data = bytes[t.range.clone()].as_chunks::<4>().0.iter();
        (t.name.clone(), data.map(|b| f32::from_le_bytes(*b)).collect())
    };
    RandomModel { config: config.clone(), tensors: gguf.tensors().iter().map(numbers).collect() }
}

/// The root of the mean square of a - b, over that of a.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |d: f32| f64::from(d).powi(2);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (error / a.iter().map(|a| square(*a)).sum::<f64>()).sqrt()
}

/// The most that a type may change normally distributed weights, relative to their deviation.
fn bound(ty: TensorType) -> f64 {
    match ty {
        TensorType::F32 => 0.0,
        TensorType::F16 => 3e-4,
        TensorType::Bf16 => 2.5e-3,
        TensorType::Q8_0 => 7e-3,
        TensorType::Q6K => 0.02,
        TensorType::Q5K | TensorType::Q5_0 | TensorType::Q5_1 => 0.05,
        TensorType::Q4K | TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Iq4Nl => 0.10,
        TensorType::Q3K => 0.18,
        TensorType::Q2K => 0.33,
    }
}

/// The largest difference between the runtime's logits and those of a plain network in f64 with the same,
/// unpacked weights, over the logits' deviation.
fn logit_error(path: &Path, reference: &RandomModel) -> f64 {
    let model = Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
    let length = 12;
    let order = Random(5).permutation(length);
    let rows: Vec<(u32, u32)> = order.iter().map(|&p| (reference.config.mask_token_id, p)).collect();
    let expected = reference.logits(&rows);
    let params = ContextParams { length, threads: 1, kv_type: KvType::F32, ..ContextParams::default() };
    let mut context = Context::new(&model, &params).unwrap();
    let plan = Plan { known: vec![], order, counts: vec![length as u32], diffusion: 0 };
    context.begin_planned(&[plan], Sampling::default(), 0).unwrap();
    let mut largest = 0.0f64;
    context
        .step_choosing(|_, choice| {
            for (a, b) in choice.logits.iter().zip(&expected[choice.slot]) {
                largest = largest.max((f64::from(*a) - b).abs());
            }
            Ok(0)
        })
        .unwrap()
        .unwrap();
    let all: Vec<f64> = expected.concat();
    largest / (all.iter().map(|v| v * v).sum::<f64>() / all.len() as f64).sqrt()
}

#[test]
fn every_type_keeps_its_bound_runs_as_its_numbers_say_and_writes() {
    let original = RandomModel::new(wide(), 11);
    let scratch = Scratch::new(&original.bytes());
    for ty in TensorType::all() {
        let name = format!("{}.gguf", ty.name());
        let report = scratch.quantize(&name, &everything(ty)).unwrap();
        assert_eq!(report.notes, Vec::<String>::new(), "{name}");
        let unpacked = unpacked(&scratch.path(&name), &original.config);
        let mut worst = 0.0f64;
        for spec in original.config.tensors() {
            let (a, b) = (&original.tensors[&spec.name], &unpacked.tensors[&spec.name]);
            match spec.dims.len() {
                1 => assert_eq!(a, b, "{name} {}", spec.name),
                _ => worst = worst.max(relative_error(a, b)),
            }
        }
        let logits = logit_error(&scratch.path(&name), &unpacked);
        println!("{:7} weights {worst:.2e} logits {logits:.2e}", ty.name());
        assert!(worst <= bound(ty), "{name}: the error {worst} is above {}", bound(ty));
        // Activations are packed too, in 8 bits for the quantized types.
        let limit = match ty {
            TensorType::F32 => 1e-5,
            TensorType::F16 => 5e-3,
            _ => 0.15,
        };
        assert!(logits <= limit, "{name}: logits differ by {logits}");

        let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
        let model = Model::open(scratch.path(&name), &options).unwrap();
        let of_type = |t: &&esolm::gguf::TensorInfo| t.dims.len() > 1 && t.ty == ty;
        assert_eq!(model.tensors().iter().filter(of_type).count(), 2 + 4 * 2, "{name}");
        let params = ContextParams { threads: 1, length: 24, ..ContextParams::default() };
        let mut context = Context::new(&model, &params).unwrap();
        let generate = GenerateParams { steps: 5, alpha_0: 0.6, ..GenerateParams::default() };
        context.begin(&[Prompt::prefix(&[1, 2, 3])], &generate).unwrap();
        while context.step().unwrap().is_some() {}
        let mask = original.config.mask_token_id;
        assert!(context.tokens(0).unwrap().iter().all(|&t| t < mask), "{name}");
    }
}

#[test]
fn the_file_is_the_same_for_any_number_of_threads() {
    // A vocabulary of several chunks.
    let config = Config { vocab_size: 1501, mask_token_id: 1500, ..wide() };
    let scratch = Scratch::new(&RandomModel::new(config, 3).bytes());
    write_importance(&scratch.path("imatrix"), &[("output.weight", vec![1.0; 256])]);
    for ty in TensorType::all() {
        let mut all = Vec::new();
        for threads in [1, 2, 3, 7] {
            let importance = Some(scratch.path("imatrix"));
            let options = QuantizeOptions { threads, force: true, importance, ..everything(ty) };
            scratch.quantize("out.gguf", &options).unwrap();
            all.push(std::fs::read(scratch.path("out.gguf")).unwrap());
        }
        assert!(all.iter().all(|bytes| *bytes == all[0]), "{}", ty.name());
    }
    let options = QuantizeOptions { threads: 513, force: true, ..everything(TensorType::F16) };
    assert!(matches!(scratch.quantize("out.gguf", &options), Err(Error::InvalidArgument(_))));
}

#[test]
fn converting_to_a_type_is_converting_and_quantizing() {
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B/checkpoint.ckpt");
    let scratch = Scratch::new(b"");
    convert(&input, &scratch.path("in.gguf"), &Options { force: true, ..Options::default() }, &mut |_| ())
        .unwrap();
    for ty in TensorType::all() {
        let options = Options { tensor_type: ty, name: Some("in".into()), force: true, ..Options::default() };
        let converted = convert(&input, &scratch.path("a.gguf"), &options, &mut |_| ()).unwrap();
        let options = QuantizeOptions { force: true, ..QuantizeOptions::new(ty) };
        let quantized = scratch.quantize("b.gguf", &options).unwrap();
        let [a, b] = ["a.gguf", "b.gguf"].map(|name| std::fs::read(scratch.path(name)).unwrap());
        assert!(a == b, "{}", ty.name());
        assert!(quantized.notes.iter().all(|note| converted.notes.contains(note)), "{:?}", quantized.notes);
    }
}

#[test]
fn metadata_is_kept_and_the_type_is_brought_up_to_date() {
    let model = RandomModel::new(wide(), 1);
    let bytes = model.bytes();
    let gguf = Gguf::parse(&bytes, "in").unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        writer.set(key, value.clone());
    }
    writer.set("general.file_type", Value::U32(0));
    writer.set("mine.list", Value::Array(vec![Value::Str("a".into()), Value::Str("b".into())]));
    writer.set("general.alignment", Value::U32(64));
    for t in gguf.tensors() {
        writer.declare(&t.name, t.ty, &t.dims).unwrap();
    }
    let mut out = Vec::new();
    let data = |name: &str, to: &mut Vec<u8>| {
        to.extend(&bytes[gguf.tensor(name).unwrap().range.clone()]);
        Ok(())
    };
    writer.write(&mut out, data).unwrap();
    let scratch = Scratch::new(&out);
    let report = scratch.to("out.gguf", TensorType::Q4K);
    let written = std::fs::read(scratch.path("out.gguf")).unwrap();
    assert_eq!(report.file_bytes, (out.len() as u64, written.len() as u64));
    let (before, after) = (Gguf::parse(&out, "a").unwrap(), Gguf::parse(&written, "b").unwrap());
    for (key, value) in before.metadata().iter().filter(|(key, _)| key != "general.file_type") {
        assert_eq!(after.get(key), Some(value), "{key}");
    }
    assert_eq!(after.u64_in("general.file_type", 0..=99).unwrap(), 15);
    assert_eq!(after.u64_in("general.quantization_version", 0..=99).unwrap(), 2);
    assert_eq!(after.metadata().len(), before.metadata().len() + 1);
    assert!(after.tensors().iter().all(|t| t.range.start % 64 == 0));
    assert_eq!(after.tensor("output.weight").unwrap().ty, TensorType::Q6K);
    assert_eq!(after.tensor("blk.0.ffn_up.weight").unwrap().ty, TensorType::Q4K);
    let bits = report.bits_per_weight();
    assert!((4.5..6.6).contains(&bits), "{bits}");
}

#[test]
fn rows_of_no_whole_blocks_get_the_next_type_and_run() {
    let model = RandomModel::new(config(2, 2), 4);
    let scratch = Scratch::new(&model.bytes());
    for (ty, instead) in [
        (TensorType::Q2K, TensorType::Iq4Nl),
        (TensorType::Q3K, TensorType::Iq4Nl),
        (TensorType::Q4K, TensorType::Q5_0),
        (TensorType::Q5K, TensorType::Q5_1),
        (TensorType::Q6K, TensorType::Q8_0),
    ] {
        let name = format!("{}.gguf", ty.name());
        let report = scratch.to(&name, ty);
        assert!(report.notes.iter().any(|n| n.contains("rows of 160") && n.contains(instead.name())));
        let written = std::fs::read(scratch.path(&name)).unwrap();
        let gguf = Gguf::parse(&written, &name).unwrap();
        assert_eq!(gguf.tensor("blk.1.ffn_down.weight").unwrap().ty, instead);
        let unpacked = unpacked(&scratch.path(&name), &model.config);
        let error = logit_error(&scratch.path(&name), &unpacked);
        assert!(error < 0.15, "{name} {error}");
    }
}

#[test]
fn packing_twice_is_said_and_the_same_type_is_copied() {
    let scratch = Scratch::new(&RandomModel::new(wide(), 8).bytes());
    scratch.to("q8_0.gguf", TensorType::Q8_0);
    let again = |to: &str, ty| {
        let to = scratch.path(to);
        quantize(&scratch.path("q8_0.gguf"), &to, &QuantizeOptions::new(ty), &mut |_| ()).unwrap()
    };
    let report = again("q4_k.gguf", TensorType::Q4K);
    assert!(
        report.notes.iter().any(|n| n.contains("10 matrices were quantized before")),
        "{:?}",
        report.notes
    );
    assert_eq!(again("f16.gguf", TensorType::F16).notes, Vec::<String>::new());
    assert_eq!(again("same.gguf", TensorType::Q8_0).notes, Vec::<String>::new());
    let [a, b] = ["q8_0.gguf", "same.gguf"].map(|name| std::fs::read(scratch.path(name)).unwrap());
    assert!(a == b);
}

#[test]
fn nothing_is_replaced_unasked_and_the_input_never() {
    let scratch = Scratch::new(&RandomModel::new(config(1, 1), 2).bytes());
    let before = std::fs::read(&scratch.input).unwrap();
    let options = QuantizeOptions::new(TensorType::Q8_0);
    let force = QuantizeOptions { force: true, ..options.clone() };
    assert!(matches!(scratch.quantize("in.gguf", &force), Err(Error::InvalidArgument(_))));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&scratch.input, scratch.path("link")).unwrap();
        assert!(matches!(scratch.quantize("link", &force), Err(Error::InvalidArgument(_))));
    }
    write_importance(&scratch.path("imatrix"), &[("output.weight", vec![1.0; 64])]);
    let onto = QuantizeOptions { importance: Some(scratch.path("imatrix")), ..force.clone() };
    assert!(matches!(scratch.quantize("imatrix", &onto), Err(Error::InvalidArgument(_))));
    std::fs::write(scratch.path("there.gguf"), "old").unwrap();
    assert!(matches!(scratch.quantize("there.gguf", &options), Err(Error::InvalidArgument(_))));
    assert_eq!(std::fs::read(scratch.path("there.gguf")).unwrap(), b"old");
    scratch.quantize("there.gguf", &force).unwrap();
    assert_eq!(std::fs::read(&scratch.input).unwrap(), before);
}

#[test]
fn damaged_inputs_are_refused_and_named() {
    let model = RandomModel::new(config(1, 1), 2);
    let bytes = model.bytes();
    let gguf = Gguf::parse(&bytes, "in").unwrap();
    let options = QuantizeOptions { threads: 2, ..QuantizeOptions::new(TensorType::Q4_0) };
    for (value, ty) in [(f32::NAN, "q4_0"), (f32::INFINITY, "q4_0"), (1e6, "q4_0")] {
        let mut bad = bytes.clone();
        let at = gguf.tensor("blk.0.ffn_up.weight").unwrap().range.start + 4 * 5000;
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = Scratch::new(&bad).error(&options);
        assert!(matches!(error, Error::BadFile { .. }), "{error}");
        assert!(
            error.to_string().contains("blk.0.ffn_up.weight") && error.to_string().contains(ty),
            "{error}"
        );
    }
    for len in [0, 3, 24, 1000, bytes.len() - 1] {
        assert!(matches!(Scratch::new(&bytes[..len]).error(&options), Error::BadFile { .. }), "{len}");
    }
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("x.gguf");
    assert!(quantize(directory.path(), &to, &options, &mut |_| ()).is_err());
    assert!(matches!(quantize(&to, &to, &options, &mut |_| ()), Err(Error::Io { .. })));
    // A model of another architecture, and one that lacks a tensor.
    let at = bytes.windows(5).position(|w| w == b"esolm").unwrap();
    let mut other = bytes.clone();
    other[at..at + 5].copy_from_slice(b"llama");
    assert!(matches!(Scratch::new(&other).error(&options), Error::BadFile { .. }));
    let at = bytes.windows(13).position(|w| w == b"output.weight").unwrap();
    let mut other = bytes.clone();
    other[at] = b'O';
    assert!(Scratch::new(&other).error(&options).to_string().contains("output.weight"));
}

#[test]
fn any_blocks_are_read_and_no_header_flip_crashes() {
    let scratch = Scratch::new(&RandomModel::new(wide(), 8).bytes());
    let mut random = Random(99);
    for ty in TensorType::all() {
        let path = scratch.path("packed.gguf");
        scratch.quantize("packed.gguf", &QuantizeOptions { force: true, ..everything(ty) }).unwrap();
        let good = std::fs::read(&path).unwrap();
        let gguf = Gguf::parse(&good, "packed").unwrap();
        let range = gguf.tensor("blk.1.attn_qkv.weight").unwrap().range.clone();
        for round in 0..8 {
            let mut bad = good.clone();
            bad[range.clone()].iter_mut().for_each(|b| *b = random.next() as u8);
            if round % 2 == 0 {
                // Small scales, so that every number is finite; quants stay random.
                bad[range.clone()].chunks_mut(2).for_each(|pair| pair[pair.len() - 1] &= 0x1f);
            }
            let other = Scratch::new(&bad);
            let to = if ty == TensorType::Q8_0 { TensorType::Q5_0 } else { TensorType::Q8_0 };
            match other.quantize("out.gguf", &QuantizeOptions { threads: 1, ..everything(to) }) {
                Ok(_) => {}
                Err(Error::BadFile { what, .. }) => assert!(what.contains("blk.1.attn_qkv.weight"), "{what}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
    let good = RandomModel::new(config(1, 1), 2).bytes();
    let header = Gguf::parse(&good, "in").unwrap().tensors().iter().map(|t| t.range.start).min().unwrap();
    for _ in 0..300 {
        let mut bad = good.clone();
        bad[random.below(header)] = random.next() as u8;
        let scratch = Scratch::new(&bad);
        let _ = scratch.quantize("out.gguf", &QuantizeOptions { threads: 1, ..everything(TensorType::Q4_0) });
    }
}

/// Writes an importance matrix with these tensors.
fn write_importance(path: &Path, tensors: &[(&str, Vec<f32>)]) {
    let mut writer = Writer::new();
    writer.set("general.type", Value::Str("imatrix".into()));
    for (name, values) in tensors {
        writer.declare(name, TensorType::F32, &[values.len()]).unwrap();
    }
    let mut out = Vec::new();
    let data = |name: &str, to: &mut Vec<u8>| {
        let (_, values) = tensors.iter().find(|(n, _)| *n == name).unwrap();
        to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    };
    writer.write(&mut out, data).unwrap();
    std::fs::write(path, out).unwrap();
}

#[test]
fn importance_lowers_the_error_where_it_lies() {
    let original = RandomModel::new(wide(), 21);
    let scratch = Scratch::new(&original.bytes());
    let name = "blk.0.ffn_up.weight";
    let columns: Vec<f32> = (0..256).map(|i| if i % 8 == 3 { 50.0 } else { 0.0 }).collect();
    write_importance(&scratch.path("imatrix"), &[(name, columns.clone())]);
    let weighted = |model: &RandomModel| -> f64 {
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
        assert!(report.notes.iter().any(|n| n.contains("does not know")), "{:?}", report.notes);
        let [plain, weighed] =
            ["plain.gguf", "weighed.gguf"].map(|n| weighted(&unpacked(&scratch.path(n), &original.config)));
        println!("{:7} {plain:.3} -> {weighed:.3}", ty.name());
        assert!(weighed < 0.9 * plain, "{}: {weighed} is not well below {plain}", ty.name());
    }
}

#[test]
fn importance_of_another_model_or_of_nonsense_is_refused() {
    let scratch = Scratch::new(&RandomModel::new(wide(), 8).bytes());
    let path = scratch.path("imatrix");
    let options = QuantizeOptions { importance: Some(path.clone()), ..QuantizeOptions::new(TensorType::Q4K) };
    let good = vec![1.0; 256];
    let with = |v: f32| [&good[..255], &[v]].concat();
    for (name, values, what) in [
        ("output.weight", vec![1.0; 255], "[256]"),
        ("output.bias", vec![1.0; 101], "no matrix"),
        ("nonsense", good.clone(), "no matrix"),
        ("output.weight", with(f32::NAN), "no mean square"),
        ("output.weight", with(-1.0), "no mean square"),
        ("output.weight", vec![0.0; 256], "zero everywhere"),
    ] {
        write_importance(&path, &[(name, values)]);
        let error = scratch.error(&options);
        assert!(matches!(error, Error::BadFile { .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains(what), "{error}");
    }
    std::fs::write(&path, RandomModel::new(wide(), 8).bytes()).unwrap();
    assert!(scratch.error(&options).to_string().contains("general.type"));
    std::fs::write(&path, b"GGUF").unwrap();
    scratch.error(&options);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(scratch.error(&options), Error::Io { .. }));
}

#[test]
fn rules_that_name_nothing_are_refused() {
    let scratch = Scratch::new(&RandomModel::new(wide(), 8).bytes());
    for pattern in ["blk.2.*", "outputs.weight", "*.bias"] {
        let policy =
            Policy { rules: vec![Rule::new(pattern, TensorType::Q8_0)], ..Policy::new(TensorType::Q4K) };
        let error = scratch.error(&QuantizeOptions { policy, ..QuantizeOptions::new(TensorType::Q4K) });
        assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(pattern), "{error}");
    }
}

#[test]
fn the_importance_matrix_holds_the_mean_squares_of_the_inputs() {
    let reference = RandomModel::new(config(2, 2), 6);
    let model = reference.open();
    let text: Vec<u32> = (0..50).map(|i| (i * 37 + 5) % 100).collect();
    let options = ImatrixOptions { length: 20, pieces: 0, steps: 6, threads: 1, ..ImatrixOptions::default() };
    let mut seen = Vec::new();
    let observed = observe_text(&model, &text, &options, &mut |done, all| seen.push((done, all))).unwrap();
    assert_eq!((observed.pieces, seen), ((2, 20), vec![(1, 2), (2, 2)]));
    let names: Vec<&str> = observed.matrices.iter().map(|(name, _)| name.as_str()).collect();
    let specs = reference.config.tensors();
    let matrices = specs.iter().filter(|s| s.dims.len() > 1 && s.name != "token_embd.weight");
    assert_eq!(names, matrices.clone().map(|s| s.name.as_str()).collect::<Vec<_>>());
    for (spec, (_, columns)) in matrices.zip(&observed.matrices) {
        assert_eq!(columns.len(), spec.dims[0]);
        assert!(columns.iter().all(|&v| v > 0.0), "{}", spec.name);
    }
    // Into the first block go all 40 mask rows, and each token after its step, but for those of the last steps:
    // what goes into its first matrix lies between the extremes of what these rows can be, and so do means.
    let width = reference.config.embedding_length;
    let [weight, bias] = ["blk.0.attn_norm.weight", "blk.0.attn_norm.bias"].map(|n| &reference.tensors[n]);
    let square = |token: u32| -> Vec<f64> {
        let row = &reference.tensors["token_embd.weight"][token as usize * width..][..width];
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        reference.norm(&row, weight, bias).iter().map(|v| v * v).collect()
    };
    let mask = square(reference.config.mask_token_id);
    let tokens: Vec<Vec<f64>> = text[..40].iter().map(|&t| square(t)).collect();
    let (_, columns) = &observed.matrices[0];
    // Steps of 3, 3, 4, 3, 3, 4 tokens: the last four of each piece are never fed.
    let fed = 2 * (20 + 16);
    assert!(observed.rows >= fed);
    let (mut least, mut most) = (0.0f64, 0.0f64);
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
        (least, most) = (least.max(value / high), most.max(low / value));
    }
    assert!(least > 0.5 && most > 0.5, "the bounds say something");
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
    // A context that is used afterwards is observed no more, and writes as before.
    let one = ImatrixOptions { length: 9, pieces: 1, steps: 99, ..options };
    assert_eq!(observe_text(&model, &text[..9], &one, &mut |_, _| ()).unwrap().pieces, (1, 9));
}
