//! A generation allocates nothing, from its beginning to its end (on Rust's side; ffi-tests/c/alloc.c counts all).
//! Without a test harness, whose own threads would be counted, too.
#![cfg(feature = "convert")]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use esolm::convert::{Options, convert};
use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt, Sampling};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("model.gguf");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B/checkpoint.ckpt");
    convert(&checkpoint, &file, &Options::default(), &mut |_| ())?;
    let model = Model::open(&file, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let params = ContextParams { sequences: 2, pass_rows: 16, threads: 2, ..ContextParams::default() };
    let mut context = Context::new(&model, &params)?;
    let sampling = Sampling { temperature: 0.9, top_k: 20, top_p: 0.9 };
    let params = GenerateParams { alpha_0: 0.7, steps: 8, sampling, ..GenerateParams::default() };
    let prompts = [Prompt::prefix(&[1, 2, 3]), Prompt::default()];

    for _ in 0..2 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        context.begin(&prompts, &params)?;
        let mut tokens = 0;
        while let Some(step) = context.step()? {
            tokens += step.updates.len();
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0);
        assert_eq!(tokens, 2 * context.length() - 3);
    }
    println!("test a_generation_allocates_nothing ... ok");
    Ok(())
}
