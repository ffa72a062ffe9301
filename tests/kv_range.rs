//! Keys and values beyond the precision of the K/V cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
mod random_model;

use esolm::{Context, ContextParams, Error, GenerateParams, KvType, Model, Prompt};
use random_model::{RandomModel, config};

/// A model whose second block has some `what` (0 queries, 1 keys, 2 values) multiplied.
fn model(what: usize, by: f32) -> Model {
    let mut model = RandomModel::new(config(3, 4), 1);
    let width = model.config.embedding_length;
    let rows = &mut model.tensors.get_mut("blk.1.attn_qkv.weight").unwrap()[what * width * width..];
    rows[5 * width..9 * width].iter_mut().for_each(|w| *w *= by);
    model.open()
}

fn run(model: &Model, kv_type: KvType, threads: usize) -> Result<Vec<u32>, Error> {
    let params = ContextParams { kv_type, threads, ..ContextParams::default() };
    let mut context = Context::new(model, &params)?;
    let params = GenerateParams { alpha_0: 0.5, steps: 6, ..GenerateParams::default() };
    let result =
        context.generate(&[Prompt::prefix(&[1, 2, 3])], &params, |_| std::ops::ControlFlow::Continue(()));
    if let Err(error) = &result {
        assert_eq!(context.progress().0, 0, "the step was not");
        // The next time it is the same; the threads are still there.
        assert_eq!(context.step().unwrap_err().to_string(), error.to_string());
        let text: Vec<u32> = (0..48).collect();
        assert!(matches!(context.score_order(&text, &text, 0), Err(Error::NotFinite(_))));
    }
    result.map(|()| context.tokens(0).unwrap().to_vec())
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_way_out() {
    for threads in [1, 2] {
        for what in [1, 2] {
            for large in [1e6, -1e9] {
                let model = model(what, large);
                let error = run(&model, KvType::F16, threads).unwrap_err();
                let text = error.to_string();
                assert!(matches!(error, Error::NotFinite(_)) && text.contains("block 1"), "{text}");
                assert!(text.contains("kv_type") && text.contains("--kv-type f32"), "{text}");
                assert!(!run(&model, KvType::F32, threads).unwrap().contains(&100));
            }
            run(&model(what, 100.0), KvType::F16, threads).unwrap();
        }
        // Queries are not kept.
        run(&model(0, 1e6), KvType::F16, threads).unwrap();
    }
}

#[test]
fn damaged_weights_are_not_blamed_on_the_cache() {
    for kv_type in [KvType::F16, KvType::F32] {
        let error = run(&model(1, f32::INFINITY), kv_type, 1).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
