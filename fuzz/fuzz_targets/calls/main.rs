//! Sequences of C calls with hostile numbers, sizes and struct_size. Pointers are NULL or valid, and arrays have as many
//! entries as their count says; all else is the fuzzer's.
#![no_main]

mod callbacks;
mod generate;
mod read;
mod structs;
mod world;

use std::cell::Cell;
use std::ptr::null_mut;

use esolm::capi::*;
use esolm_fuzz::Input;
use libfuzzer_sys::fuzz_target;

use callbacks::Callbacks;
use structs::{check, defaults};
use world::{FILES, World};

/// The context length of the models.
const LENGTH: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let callbacks = Callbacks { context: Cell::new(null_mut()), left: Cell::new(0), logit: Cell::new(0.0) };
    let mut world = World {
        model: null_mut(),
        context: null_mut(),
        arena: Vec::new(),
        state: Vec::new(),
        callbacks: Box::new(callbacks),
    };
    let file = &FILES[input.below(3)];
    let params = esolm_model_params {
        mode: ESOLM_MODE_COPY,
        device: c"cpu".as_ptr(),
        ..defaults(esolm_model_params_init)
    };
    // SAFETY: all pointers are valid.
    let status =
        unsafe { esolm_model_open_memory(file.as_ptr().cast(), file.len(), &params, &mut world.model) };
    assert_eq!(status, ESOLM_OK);
    for _ in 0..40 {
        if input.is_empty() {
            break;
        }
        world.callbacks.left.set(u32::from(input.byte()) + 1);
        world.callbacks.logit.set(input.float() as f32);
        match input.below(14) {
            0 => world.open(&mut input),
            1 | 2 => world.make_context(&mut input),
            3 | 4 => world.generate(&mut input),
            5 => world.step(&mut input),
            6 => world.copy(&mut input),
            7 => world.state(&mut input),
            8 => world.text(&mut input),
            9 => world.score(&mut input),
            10 => world.sequence(&mut input),
            11 => world.evaluate(&mut input),
            // SAFETY: the context is valid or NULL.
            12 => _ = check(unsafe { esolm_context_reset(world.context(&mut input)) }),
            // SAFETY: as above.
            _ => {
                _ = check(unsafe { esolm_cancel(world.context) })
                    && check(unsafe { esolm_cancel_reset(world.context) })
            }
        }
    }
    world.free_context();
    // SAFETY: the model was made by the library.
    unsafe { esolm_model_free(world.model) };
});
