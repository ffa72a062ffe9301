//! Opening models, making contexts and running generations, in the few lines that most tests begin with.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use esolm::{
    Context, ContextParams, GenerateParams, Kernels, KvType, LoadOptions, Model, Order, Prompt,
    SamplingParams, Step,
};

/// A progress callback that never stops.
pub const ON: fn(usize, usize) -> ControlFlow<()> = |_, _| ControlFlow::Continue(());

/// A step callback that never stops.
pub fn every_step(_: &Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// All of the text by diffusion in random order, drawn from the model's own distribution, whatever the defaults are.
pub fn diffusion() -> GenerateParams<'static> {
    GenerateParams {
        alpha_0: 1.0,
        steps: 128,
        order: Order::Random,
        sampling: SamplingParams::FULL,
        ..GenerateParams::default()
    }
}

/// A generation of several steps in both phases.
pub fn both_phases(seed: u64) -> GenerateParams<'static> {
    GenerateParams { alpha_0: 0.5, steps: 6, seed, ..diffusion() }
}

pub fn cpu() -> LoadOptions<'static> {
    LoadOptions { device: "cpu".into(), ..LoadOptions::default() }
}

pub fn open(path: &Path) -> Model {
    Model::open(path, &cpu()).unwrap()
}

/// The device that `ESOLM_TEST_DEVICE` names, by default the CPU.
pub fn device() -> String {
    std::env::var("ESOLM_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// The model of a file's bytes on that device.
pub fn there(bytes: &[u8]) -> Model {
    Model::from_bytes(bytes, &LoadOptions { device: device(), ..LoadOptions::default() }).unwrap()
}

/// Contexts of this library's kernels, in f32, for a model on the CPU: on two threads, and on one with nine rows at a time.
pub fn own(model: &Model, sequences: usize) -> [Context; 2] {
    [(2, 0), (1, 9)].map(|(threads, batch_rows)| {
        let params = ContextParams { kernels: Kernels::Own, threads, batch_rows, ..params(sequences) };
        Context::new(model, &params).unwrap()
    })
}

/// Contexts that have to compute the same, in f32: those of this library's kernels if the model is on the CPU, and of ggml's,
/// which are the only ones that another device has.
pub fn everywhere(model: &Model, sequences: usize) -> Vec<Context> {
    let mut contexts = if model.device() == "cpu" { own(model, sequences).into() } else { Vec::new() };
    let ggml = ContextParams { kernels: Kernels::Ggml, threads: 2, ..params(sequences) };
    contexts.push(Context::new(model, &ggml).unwrap());
    contexts
}

/// The default model's file.
pub fn default_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/stories-q8_0.gguf")
}

/// One thread, and keys and values in f32.
pub fn params(sequences: usize) -> ContextParams {
    ContextParams { sequences, threads: 1, kv_type: KvType::F32, ..ContextParams::default() }
}

pub fn context(model: &Model, sequences: usize) -> Context {
    Context::new(model, &params(sequences)).unwrap()
}

/// Runs the generation to its end.
pub fn finish(context: &mut Context) {
    while context.step().unwrap().is_some() {}
}

/// Runs the generation to its end; how many masks each step asks for.
pub fn masks_asked(context: &mut Context) -> Vec<usize> {
    let mut asked = vec![];
    loop {
        let mut masks = 0;
        let step = context.step_with_logits(|_, _| {
            masks += 1;
            Ok(())
        });
        if step.unwrap().is_none() {
            return asked;
        }
        asked.push(masks);
    }
}

/// Generates from the prompts.
pub fn texts(context: &mut Context, prompts: &[Prompt], params: &GenerateParams) -> Vec<Vec<u32>> {
    context.begin(prompts, params).unwrap();
    finish(context);
    tokens(context)
}

/// The tokens of all sequences, as they are.
pub fn tokens(context: &Context) -> Vec<Vec<u32>> {
    (0..context.sequences()).map(|number| context.tokens(number).unwrap().to_vec()).collect()
}

/// The names in a directory, hidden ones too.
pub fn file_names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
