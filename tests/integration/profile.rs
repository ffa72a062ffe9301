//! Where the time of a generation goes.

use std::time::Instant;

use esolm::{ContextParams, GenerateParams, Kernels, Prompt, Schedule};

use crate::runs::{context, default_model, diffusion, finish, open, params};

#[test]
fn products_count_as_products() {
    let model = open(&default_model());
    let mut context = context(&model, 1);
    // Few rows at a time, whose input each thread makes, and many.
    for count in [1, 32] {
        let measured = || {
            let schedule = Schedule::Custom(&[count]);
            let started = Instant::now();
            context.begin(&[Prompt::default()], &GenerateParams { schedule, ..diffusion() }).unwrap();
            finish(&mut context);
            let (took, profile) = (started.elapsed(), context.profile().unwrap());
            assert!(profile.total() <= took, "{profile:?} in {took:?}");
            profile
        };
        // The machine may interrupt any part. Of the products in a block, attn_output and ffn_up are 5 of 12 parts.
        let all: Vec<_> = std::iter::repeat_with(measured).take(9).collect();
        assert!(all.iter().any(|profile| profile.blocks > 2 * profile.rest), "{count} a step: {all:?}");
    }
}

#[test]
fn kernels_of_ggml_have_no_profile() {
    let model = open(&default_model());
    let limits = ContextParams { kernels: Kernels::Ggml, ..params(1) };
    let mut context = esolm::Context::new(&model, &limits).unwrap();
    context.begin(&[Prompt::default()], &diffusion()).unwrap();
    context.step().unwrap();
    assert!(context.profile().is_none());
}
