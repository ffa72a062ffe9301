//! What a pass costs beside its rows: measured, said, and what `auto` makes of it.

use esolm::{
    Adaptive, Context, ContextParams, Error, GenerateParams, Kernels, Model, Order, Prompt, Schedule, Variant,
};

use crate::reference::{LENGTH, Network};
use crate::runs::{context, diffusion, masks_asked, params, texts, tokens};

/// The rows of masks whose tokens a generation asked for, and its passes.
fn work(context: &mut Context, params: &GenerateParams<'_>) -> (usize, usize) {
    context.begin(&[Prompt::default()], params).unwrap();
    let (mut rows, mut passes) = (0, 0);
    while let Some(step) = context.step().unwrap() {
        passes += 1;
        rows += step.updates.len() + step.proposed;
    }
    (rows, passes)
}

fn looks_ahead() -> GenerateParams<'static> {
    let lookahead = GenerateParams::LOOKAHEAD_AUTO;
    let schedule = Schedule::Custom(&[1]);
    GenerateParams { lookahead, schedule, order: Order::LeftToRight, ignore_eos: true, ..diffusion() }
}

/// A window that fills one place in a pass, or all.
fn slides(threshold: f32) -> GenerateParams<'static> {
    let adaptive = Adaptive { window: Adaptive::WINDOW_AUTO, threshold, ..Adaptive::WEDLM };
    GenerateParams { adaptive: Some(adaptive), alpha_0: 1.0, ignore_eos: true, ..GenerateParams::DEFAULT }
}

#[test]
fn auto_asks_for_more_the_more_a_pass_costs() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let mut proposed = |overhead| {
        context.set_pass_overhead(overhead).unwrap();
        work(&mut context, &looks_ahead()).0
    };
    let [cheap, usual, dear] = [0.1, 0.0, 256.0].map(&mut proposed);
    assert!(cheap < usual && usual < dear, "{cheap} {usual} {dear}");
    // What 0 stands for with so small a model.
    assert_eq!(proposed(2.0), usual);
}

/// How many masks a window asks for in the middle of the text.
fn largest_window(context: &mut Context, overhead: f32) -> usize {
    context.set_pass_overhead(overhead).unwrap();
    context.begin(&[Prompt::default()], &slides(0.0)).unwrap();
    masks_asked(context)[LENGTH / 2 - 1]
}

#[test]
fn automatic_window_is_larger_the_more_a_pass_costs() {
    let model = Network::small(Variant::EsoB, 92).model();
    let mut context = context(&model, 1);
    let sizes = [0.1, 0.0, 256.0].map(|overhead| largest_window(&mut context, overhead));
    assert!(sizes[0] < sizes[2] && sizes.is_sorted(), "{sizes:?}");
}

/// It is said before a generation begins; a seed and a number give a text.
#[test]
fn overhead_is_for_what_begins_behind_it() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    context.set_pass_overhead(256.0).unwrap();
    let dear = texts(&mut context, &[Prompt::default()], &looks_ahead());
    context.begin(&[Prompt::default()], &looks_ahead()).unwrap();
    context.step().unwrap().unwrap();
    context.set_pass_overhead(0.1).unwrap();
    while context.step().unwrap().is_some() {}
    assert_eq!(tokens(&context), dear);
    assert_ne!(texts(&mut context, &[Prompt::default()], &looks_ahead()), dear);
    context.set_pass_overhead(256.0).unwrap();
    assert_eq!(texts(&mut context, &[Prompt::default()], &looks_ahead()), dear);
}

/// The number that is measured can be said; the context writes afterwards what it wrote before.
fn check_measured(model: &Model, of: &ContextParams) {
    let mut context = Context::new(model, of).unwrap();
    let plain = GenerateParams { seed: 5, ..GenerateParams::DEFAULT };
    let before = texts(&mut context, &[Prompt::default()], &plain);
    let overhead = context.measure_pass_overhead().unwrap();
    assert!((0.1..=256.0).contains(&overhead), "{overhead}");
    assert_eq!(context.sequences(), 0);
    assert_eq!(texts(&mut context, &[Prompt::default()], &plain), before);
    context.set_pass_overhead(overhead).unwrap();
    assert_eq!(texts(&mut context, &[Prompt::default()], &plain), before);
    // By a generation that can go on, too.
    context.begin(&[Prompt::default()], &plain).unwrap();
    context.step().unwrap();
    context.measure_pass_overhead().unwrap();
    assert!(context.step().unwrap().is_none());
}

#[test]
fn overhead_is_measured() {
    for variant in [Variant::EsoA, Variant::EsoB, Variant::Mdlm, Variant::Ar] {
        let model = Network::small(variant, 3).model();
        for kernels in [Kernels::Own, Kernels::Ggml] {
            for batch_rows in [4, 7, 64] {
                check_measured(&model, &ContextParams { kernels, batch_rows, ..params(1) });
            }
        }
    }
}

#[test]
fn overhead_that_is_none_is_refused() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = Context::new(&model, &ContextParams { batch_rows: 3, ..params(1) }).unwrap();
    let error = context.measure_pass_overhead().unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("4 at least")), "{error}");
    for rows in [-0.1, 256.5, f32::INFINITY, f32::NAN] {
        assert!(matches!(context.set_pass_overhead(rows), Err(Error::InvalidArgument(_))), "{rows}");
    }
    let mut context = Context::new(&model, &params(1)).unwrap();
    context.cancel_token().cancel();
    assert!(matches!(context.measure_pass_overhead(), Err(Error::Cancelled)));
    context.cancel_token().reset();
    context.measure_pass_overhead().unwrap();
}
