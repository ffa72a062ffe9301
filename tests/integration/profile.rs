//! Where the time of a generation goes.

use esolm::{ContextParams, GenerateParams, Kernels, Prompt, Schedule};

use crate::runs::{context, default_model, diffusion, finish, open, params};

#[test]
fn products_count_as_products() {
    let model = open(&default_model());
    let mut context = context(&model, 1);
    // Few rows at a time, whose input each thread makes, and many.
    for count in [1, 32] {
        let started = std::time::Instant::now();
        context
            .begin(
                &[Prompt::default()],
                &GenerateParams { schedule: Schedule::Custom(&[count]), ..diffusion() },
            )
            .unwrap();
        finish(&mut context);
        let took = started.elapsed();
        let profile = context.profile().unwrap();
        assert!(profile.total() <= took, "{profile:?} in {took:?}");
        // Of the products in a block, attn_output and ffn_up are 5 of 12 parts.
        assert!(profile.blocks > 2 * profile.rest, "{count} a step: {profile:?}");
        assert!(profile.vocabulary > profile.attention / 8, "{count} a step: {profile:?}");
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
