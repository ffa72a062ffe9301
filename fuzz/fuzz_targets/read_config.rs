//! A `config.json`: JSON as Python writes it, and the hyperparameters of a model in it.
#![no_main]

use std::sync::{LazyLock, Mutex};

use esolm::fuzzing::Shapes;
use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

static SHAPES: LazyLock<Mutex<Shapes>> = LazyLock::new(|| Mutex::new(Shapes::new().expect("this program")));

fuzz_target!(|json: &[u8]| {
    ok(SHAPES.lock().expect("no panic before").configure(json));
});
