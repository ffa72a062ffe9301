//! A generation allocates nothing, from its beginning to its end (on Rust's side; ffi-tests/c/alloc.c counts all); a chat
//! template that gets no memory is refused, and so is a file.
//! Without a test harness, whose own threads would be counted, too.
#![cfg(feature = "convert")]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use esolm::convert::{Options, convert};
use esolm::{
    Adaptive, Confidence, Constraints, Context, ContextParams, Dry, GenerateParams, Kernels, LoadOptions,
    Model, Order, Prompt, SamplingParams, Schedule,
};

#[path = "allocations/chat.rs"]
mod chat;
#[path = "allocations/files.rs"]
mod files;
#[path = "allocations/joining.rs"]
mod joining;
// The integration tests' networks, of which little is used here.
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod reference;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// The allocation that fails, counted from 1; 0: none.
static FAILING: AtomicUsize = AtomicUsize::new(0);
/// Bytes of the smallest allocation that is counted.
static LEAST: AtomicUsize = AtomicUsize::new(0);
/// Whether those behind it fail, too.
static FOR_GOOD: AtomicBool = AtomicBool::new(false);

/// Counts an allocation of `bytes`; whether it fails.
fn fails(bytes: usize) -> bool {
    if bytes < LEAST.load(Ordering::Relaxed) {
        return false;
    }
    let number = ALLOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match FAILING.load(Ordering::Relaxed) {
        0 => false,
        failing => number == failing || (number > failing && FOR_GOOD.load(Ordering::Relaxed)),
    }
}

// SAFETY: every call goes to the system's allocator unchanged, but for those that fail, which return null.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if chat::in_its_own_process()? || files::in_its_own_process()? {
        return Ok(());
    }
    chat::templates_are_refused_without_memory()?;
    println!("test templates_are_refused_without_memory ... ok");
    files::files_are_refused_without_memory()?;
    println!("test files_are_refused_without_memory ... ok");
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("model.gguf");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B/checkpoint.ckpt");
    convert(&checkpoint, &file, &Options::default(), &mut |_| ())?;
    let model = Model::open(&file, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let params = ContextParams { sequences: 2, batch_rows: 16, threads: 2, ..ContextParams::default() };
    let mut context = Context::new(&model, &params)?;
    let sampling = SamplingParams { temperature: 0.9, top_k: 20, top_p: 0.9, ..SamplingParams::FULL };
    let params =
        GenerateParams { ignore_eos: true, alpha_0: 0.7, steps: 8, sampling, ..GenerateParams::default() };
    let prompts = [Prompt::prefix(&[1, 2, 3])?, Prompt::default()];

    for _ in 0..2 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        context.begin(&prompts, &params)?;
        write_all(&mut context)?;
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    }
    println!("test generation_allocates_nothing ... ok");

    let allowed = vec![(9, vec![4, 5]), (7, vec![6])];
    let bias = vec![(1, 0.5)];
    let dry = Dry { multiplier: 0.8, breakers: vec![2], ..Dry::DEFAULT };
    let constraints = [Constraints {
        allowed,
        banned: vec![3],
        bias,
        repetition_penalty: 1.1,
        frequency_penalty: 0.1,
        dry,
        ..Constraints::default()
    }];
    let sampling = SamplingParams { min_p: 0.01, typical_p: 0.95, top_n_sigma: 3.0, ..sampling };
    let strided = Order::Strided { stride: 9, shuffle: true };
    let schedule = Schedule::Custom(&[3, 1]);
    for order in [strided, Order::Blocks { size: 10 }, Order::LeftToRight] {
        // `begin` copies the constraints; the steps allocate nothing.
        context.begin(
            &prompts,
            &GenerateParams {
                constraints: &constraints,
                sampling,
                top_log_probs: 4,
                order,
                schedule,
                ..params
            },
        )?;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        write_all(&mut context)?;
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        context.begin(&prompts, &GenerateParams { order, ..params })?;
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    }
    let adaptive =
        Some(Adaptive { confidence: Confidence::Margin, threshold: 0.1, window: 9, ..Adaptive::default() });
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    context.begin(&prompts, &GenerateParams { adaptive, alpha_0: 1.0, log_probs: true, ..params })?;
    write_all(&mut context)?;
    let sliding = Some(Adaptive { window: 7, threshold: 2.0, ..Adaptive::WEDLM });
    context.begin(&prompts, &GenerateParams { adaptive: sliding, alpha_0: 1.0, ..params })?;
    write_all(&mut context)?;
    context.begin(&prompts, &GenerateParams { length: 30, ..params })?;
    while context.step()?.is_some() {}
    context.extend(&[Prompt::default(), Prompt::default()], &params)?;
    while context.step()?.is_some() {}
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    println!("test constrained_steps_in_any_order_allocate_nothing ... ok");

    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/stories-q8_0.gguf");
    let model = Model::open(&stories, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let limits = ContextParams { sequences: 2, threads: 2, ..ContextParams::default() };
    let mut context = Context::new(&model, &limits)?;
    let stopping = GenerateParams {
        stop_tokens: &[17],
        stop_strings: &["no such text", "The end"],
        step_text: true,
        log_probs: true,
        ..GenerateParams::default()
    };
    for alpha_0 in [0.0, 0.5] {
        // `begin` copies the rules and makes room for the text; the steps allocate nothing.
        context.begin(&prompts, &GenerateParams { alpha_0, ..stopping })?;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let mut bytes = 0;
        while let Some(step) = context.step()? {
            bytes += step.text(0).len() + step.text(1).len();
        }
        assert!(bytes > 100, "{bytes} bytes of text");
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    }
    println!("test stopping_and_streaming_steps_allocate_nothing ... ok");

    // The first beginning makes room for proposals.
    for (number, lookahead) in [6, 2, GenerateParams::LOOKAHEAD_AUTO].into_iter().enumerate() {
        let params =
            GenerateParams { lookahead, ignore_eos: true, log_probs: true, ..GenerateParams::default() };
        if number == 0 {
            context.begin(&prompts, &GenerateParams { lookahead: 8, ..params })?;
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        context.begin(&prompts, &params)?;
        let mut accepted = 0;
        while let Some(step) = context.step()? {
            accepted += step.accepted;
        }
        // `auto` tries but now and then with a small model.
        assert!(
            accepted > if lookahead == GenerateParams::LOOKAHEAD_AUTO { 2 } else { 10 },
            "{accepted} tokens accepted"
        );
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    }
    println!("test lookahead_steps_allocate_nothing ... ok");

    joining::sequences_come_and_go_without_allocating()?;
    println!("test sequences_come_and_go_without_allocating ... ok");

    // ggml's graphs: a step whose graph is there, also on a device. (ESOLM_TEST_DEVICE names one.)
    let device = std::env::var("ESOLM_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let model = Model::open(stories, &LoadOptions { device, ..LoadOptions::default() })?;
    let limits = ContextParams { kernels: Kernels::Ggml, ..limits };
    let mut context = Context::new(&model, &limits)?;
    for wants in [false, true] {
        let params = GenerateParams {
            max_tokens: 40,
            ignore_eos: true,
            log_probs: wants,
            step_text: wants,
            ..GenerateParams::default()
        };
        // The first generation builds the graphs.
        let counts = [(); 2].map(|()| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            context.begin(&prompts[..1], &params)?;
            let begun = ALLOCATIONS.load(Ordering::Relaxed);
            while context.step()?.is_some() {}
            let ended = ALLOCATIONS.load(Ordering::Relaxed);
            Ok::<_, esolm::Error>((begun - before, ended - begun))
        });
        let [_, again] = counts;
        assert_eq!(again?.1, 0);
    }
    println!("test steps_of_ggml_s_graphs_allocate_nothing ... ok");
    Ok(())
}

fn write_all(context: &mut Context) -> esolm::Result<()> {
    let mut tokens = 0;
    let mut logits = [0.0; 1024];
    let logits = logits.get_mut(..context.model().config().vocab_size).unwrap_or_default();
    context.logits(0, &[20], logits)?;
    context.probabilities(1, &[5], logits)?;
    while let Some(step) = context.step_with_logits(|_, _| Ok(()))? {
        tokens += step.updates.len();
    }
    assert_eq!(tokens, 2 * context.length() - 3);
    Ok(())
}
