//! Quantized matrices in panels: the same values as in plain rows, and the same text.

use std::path::Path;

use esolm::gguf::{Gguf, Layout, TensorType, Writer};
use esolm::quantize::{Policy, QuantizeOptions, Rule};
use esolm::{
    Architecture, Context, ContextParams, Error, GenerateParams, Kernels, LoadMode, LoadOptions, Model,
    Prompt, Variant,
};

use super::{Scratch, all_tensors, wide};
use crate::reference::Network;
use crate::rewritten::rewritten;
use crate::runs::{default_model, diffusion, tokens};

fn open(path: &Path, mode: LoadMode) -> Model {
    Model::open(path, &LoadOptions { mode, ..LoadOptions::default() }).unwrap()
}

/// A text of several tokens a step and then of one a step, and the state after it.
fn generate(model: &Model, kernels: Kernels) -> (Vec<Vec<u32>>, Vec<u8>) {
    let params = ContextParams { kernels, length: 40, sequences: 2, ..ContextParams::default() };
    let mut context = Context::new(model, &params).unwrap();
    let alpha_0 = if model.config().variant == Variant::Ar { 0.0 } else { 0.7 };
    let params = GenerateParams { seed: 3, steps: 3, alpha_0, ..diffusion() };
    let prompts = [1, 2].map(|count| Prompt::prefix(&[5, 9][..count]).unwrap());
    context.generate(&prompts, &params, |_| std::ops::ControlFlow::Continue(())).unwrap();
    (tokens(&context), context.save().unwrap())
}

#[test]
fn the_copy_that_ggml_takes_of_panels_is_counted() {
    let scratch = Scratch::new(&Network::random(wide(), 3).to_gguf());
    let opened = |name: &str, layout: Layout| {
        scratch.quantize(name, &QuantizeOptions { layout, ..all_tensors(TensorType::Q8_0) }).unwrap();
        open(&scratch.path(name), LoadMode::Map)
    };
    let (plain, panels) = (opened("plain.gguf", Layout::Plain), opened("panels.gguf", Layout::Panels));
    let weights = |model: &Model, kernels: Kernels| {
        let params = ContextParams { kernels, ..ContextParams::default() };
        Context::memory_use(model, &params).unwrap().weights
    };
    assert_eq!(weights(&panels, Kernels::Own), panels.tensor_bytes());
    assert_eq!(weights(&panels, Kernels::Ggml), panels.tensor_bytes() + plain.tensor_bytes());
    for kernels in [Kernels::Own, Kernels::Ggml] {
        assert_eq!(weights(&plain, kernels), plain.tensor_bytes());
    }
    for (name, mode) in [
        ("panels.gguf", LoadMode::Map),
        ("plain.gguf", LoadMode::Map),
        ("plain.gguf", LoadMode::Copy),
        ("plain.gguf", LoadMode::Repack),
    ] {
        let options = LoadOptions { mode, ..LoadOptions::default() };
        let model = open(&scratch.path(name), mode);
        for kernels in [Kernels::Own, Kernels::Ggml] {
            let params = ContextParams { kernels, ..ContextParams::default() };
            let estimate = Context::estimate(scratch.path(name), &options, &params).unwrap();
            assert_eq!(estimate.weights, weights(&model, kernels), "{name} {mode:?} {kernels:?}");
        }
    }
}

#[test]
fn panels_have_the_values_of_plain_rows() {
    // A vocabulary that fills no whole panels.
    let config = esolm::Config { vocab_size: 71, mask_token_id: 70, ..wide() };
    check_panels(&Network::random(config.clone(), 3), 9);
    // The embedding is the output matrix, too.
    let architecture = Architecture { tied_output: true, ..Architecture::QWEN2 };
    let config = esolm::Config { variant: Variant::Ar, architecture, ..config };
    check_panels(&Network::random(config, 3), 15);
}

/// Compares a model's types in rows and in panels, in which are so many of its matrices.
fn check_panels(network: &Network, matrices: usize) {
    let scratch = Scratch::new(&network.to_gguf());
    for ty in TensorType::all() {
        let plain = QuantizeOptions { layout: Layout::Plain, force: true, ..all_tensors(ty) };
        let panels = QuantizeOptions { layout: Layout::Panels, ..plain.clone() };
        scratch.quantize("plain.gguf", &plain).unwrap();
        scratch.quantize("panels.gguf", &panels).unwrap();
        let read = |name: &str| std::fs::read(scratch.path(name)).unwrap();
        let (plain_bytes, panel_bytes) = (read("plain.gguf"), read("panels.gguf"));
        let in_panels = |bytes: &[u8]| {
            let gguf = Gguf::parse(bytes, "file").unwrap();
            let all = gguf.tensors().iter().filter(|tensor| tensor.layout == Layout::Panels);
            let names = all.inspect(|tensor| assert_eq!(tensor.range.start % 64, 0, "{}", tensor.name));
            names.map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
        };
        assert!(in_panels(&plain_bytes).is_empty());
        let names = in_panels(&panel_bytes);
        assert_eq!(names.len(), if ty.is_quantized() { matrices } else { 0 }, "{names:?}");
        // There and back.
        let back = |from: &str, options: &QuantizeOptions| {
            esolm::quantize::quantize(&scratch.path(from), &scratch.path("back.gguf"), options, &mut |_| ())
                .unwrap();
            read("back.gguf")
        };
        assert!(back("panels.gguf", &plain) == plain_bytes, "{}", ty.name());
        assert!(back("plain.gguf", &panels) == panel_bytes, "{}", ty.name());
        assert!(back("panels.gguf", &panels) == panel_bytes, "{}", ty.name());

        let expected = generate(&open(&scratch.path("plain.gguf"), LoadMode::Map), Kernels::Own);
        for (name, mode) in [
            ("panels.gguf", LoadMode::Map),
            ("panels.gguf", LoadMode::Copy),
            ("panels.gguf", LoadMode::Repack),
            ("plain.gguf", LoadMode::Repack),
        ] {
            let model = open(&scratch.path(name), mode);
            let layout = |tensor: &esolm::gguf::TensorInfo| tensor.layout == Layout::Panels;
            assert_eq!(model.tensors().iter().filter(|tensor| layout(tensor)).count(), names.len());
            assert!(generate(&model, Kernels::Own) == expected, "{} {name} {mode:?}", ty.name());
        }
        let by_ggml = |name: &str| generate(&open(&scratch.path(name), LoadMode::Map), Kernels::Ggml);
        assert!(by_ggml("panels.gguf") == by_ggml("plain.gguf"), "{}: ggml", ty.name());
    }
}

#[test]
fn layouts_change_without_naming_types() {
    let scratch = Scratch::new(&Network::random(wide(), 5).to_gguf());
    let rules = vec![Rule::new("blk.0.*", TensorType::Q6K), Rule::new("token_embd.weight", TensorType::Bf16)];
    let mixed = Policy { rules, ..Policy::new(TensorType::Q4K) };
    let with = |policy: &Policy, layout| QuantizeOptions {
        policy: policy.clone(),
        layout,
        ..QuantizeOptions::new(TensorType::F32)
    };
    let unchanged = Policy::unchanged();
    scratch.quantize("panels", &with(&mixed, Layout::Panels)).unwrap();
    scratch.quantize("plain", &with(&mixed, Layout::Plain)).unwrap();
    let made = |from: &str, to: &str, options: &QuantizeOptions| {
        let report =
            esolm::quantize::quantize(&scratch.path(from), &scratch.path(to), options, &mut |_| ()).unwrap();
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        std::fs::read(scratch.path(to)).unwrap()
    };
    let read = |name: &str| std::fs::read(scratch.path(name)).unwrap();
    assert!(made("panels", "a", &with(&unchanged, Layout::Plain)) == read("plain"));
    assert!(made("plain", "b", &with(&unchanged, Layout::Panels)) == read("panels"));
    // A rule changes what it names alone.
    let one = Policy { rules: vec![Rule::new("output.weight", TensorType::F32)], ..Policy::unchanged() };
    let (before, after) = (read("panels"), made("panels", "d", &with(&one, Layout::Panels)));
    let tensors = |bytes: &[u8]| Gguf::parse(bytes, "file").unwrap().tensors().to_vec();
    for (old, new) in tensors(&before).iter().zip(&tensors(&after)) {
        let is_named = old.name == "output.weight";
        assert_eq!(new.ty, if is_named { TensorType::F32 } else { old.ty }, "{}", old.name);
        assert!(is_named || before[old.range.clone()] == after[new.range.clone()], "{}", old.name);
    }
}

#[test]
fn what_cannot_lie_in_panels_is_refused() {
    let write = |tensor: &str, ty, dims: &[usize]| {
        let mut writer = Writer::new();
        writer.declare_in(tensor, ty, Layout::Panels, dims)
    };
    for (ty, dims) in
        [(TensorType::F32, &[32, 32][..]), (TensorType::Q8_0, &[32]), (TensorType::Q8_0, &[32, 2, 2])]
    {
        assert!(matches!(write("a", ty, dims), Err(Error::InvalidArgument(_))), "{dims:?}");
    }
    // In a file: a vector.
    let config = esolm::Config { vocab_size: 64, mask_token_id: 63, ..wide() };
    let scratch = Scratch::new(&Network::random(config, 1).to_gguf());
    let options = QuantizeOptions { layout: Layout::Plain, ..all_tensors(TensorType::Q8_0) };
    scratch.quantize("plain.gguf", &options).unwrap();
    let bytes = std::fs::read(scratch.path("plain.gguf")).unwrap();
    let name = b"output_norm.weight";
    let mut bytes = bytes.clone();
    let at = bytes.windows(name.len()).rposition(|part| part == name).unwrap() + name.len() + 4 + 8;
    assert_eq!(bytes[at..][..4], 0u32.to_le_bytes());
    bytes[at..][..4].copy_from_slice(&1600u32.to_le_bytes());
    let error = Model::from_bytes(&bytes, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("unsupported type number 1600"), "{error}");
}

/// A file whose tensors come in another order than esolm's, as those of other programs do, loses none of its keys and tensors in
/// panels and back.
#[test]
fn files_of_other_programs_lose_nothing() {
    let scratch = Scratch::new(&Network::random(wide(), 3).to_gguf());
    let plain = QuantizeOptions { layout: Layout::Plain, ..all_tensors(TensorType::Q4K) };
    scratch.quantize("plain.gguf", &plain).unwrap();
    let bytes = std::fs::read(scratch.path("plain.gguf")).unwrap();
    let read = Gguf::parse(&bytes, "file").unwrap();
    let reversed = rewritten(&bytes, read.metadata().iter().rev(), read.tensors().iter().rev());
    let other = Scratch::new(&reversed);
    let kept = |layout: Layout| QuantizeOptions {
        layout,
        policy: Policy::unchanged(),
        ..all_tensors(TensorType::F32)
    };
    other.quantize("panels.gguf", &kept(Layout::Panels)).unwrap();
    let back = Scratch::new(&std::fs::read(other.path("panels.gguf")).unwrap());
    back.quantize("back.gguf", &kept(Layout::Plain)).unwrap();
    let found = std::fs::read(back.path("back.gguf")).unwrap();
    let there = Gguf::parse(&found, "file").unwrap();
    let sorted = |gguf: &Gguf| {
        let mut all = gguf.metadata().to_vec();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    };
    assert_eq!(sorted(&there), sorted(&Gguf::parse(&reversed, "file").unwrap()));
    assert_eq!(there.tensors().len(), read.tensors().len());
    for tensor in read.tensors() {
        let same = there.tensor(&tensor.name).unwrap();
        assert_eq!((same.ty, &same.dims), (tensor.ty, &tensor.dims), "{}", tensor.name);
        assert!(found[same.range.clone()] == bytes[tensor.range.clone()], "{}", tensor.name);
    }
}

#[test]
fn default_model_lies_in_panels() {
    let model = open(&default_model(), LoadMode::Map);
    let quantized = model.tensors().iter().filter(|tensor| tensor.ty.is_quantized());
    let plain = quantized.filter(|tensor| tensor.layout == Layout::Plain).map(|tensor| &tensor.name);
    assert_eq!(plain.collect::<Vec<_>>(), ["token_embd.weight"]);
}
