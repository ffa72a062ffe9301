//! Keys and values beyond the range of the K/V cache.

use esolm::{Context, ContextParams, Error, KvType, Model, Prompt};

use crate::reference::{MASK, Network, config};
use crate::runs::{both_phases, every_step};

/// A model whose second block has some `what` (0 queries, 1 keys, 2 values) multiplied.
fn model(what: usize, by: f32) -> Model {
    let mut model = Network::random(config(3, 2), 1);
    let width = model.config.embedding_length;
    let rows = &mut model.tensor_mut("blk.1.attn_qkv.weight")[what * width * width..];
    rows[5 * width..9 * width].iter_mut().for_each(|w| *w *= by);
    model.model()
}

fn run(model: &Model, kv_type: KvType, threads: usize) -> Result<Vec<u32>, Error> {
    let params = ContextParams { kv_type, threads, ..ContextParams::default() };
    let mut context = Context::new(model, &params)?;
    let result = context.generate(&[Prompt::prefix(&[1, 2, 3]).unwrap()], &both_phases(0), every_step);
    if let Err(error) = &result {
        assert_eq!(context.progress().0, 0, "no step was done");
        // The next step fails in the same way: the threads still run.
        assert_eq!(context.step().unwrap_err().to_string(), error.to_string());
        let text: Vec<u32> = (0..48).collect();
        assert!(matches!(context.score_order(&text, &text, 0), Err(Error::NotFinite(_))));
    }
    result.map(|()| context.tokens(0).unwrap().to_vec())
}

#[test]
fn overflow_of_the_cache_is_an_error_that_names_the_remedy() {
    for threads in [1, 2] {
        for what in [1, 2] {
            for large in [1e6, -1e9] {
                let model = model(what, large);
                let error = run(&model, KvType::F16, threads).unwrap_err();
                let text = error.to_string();
                assert!(matches!(error, Error::NotFinite(_)) && text.contains("block 1"), "{text}");
                assert!(text.contains("kv_type") && text.contains("--kv-type f32"), "{text}");
                assert!(!run(&model, KvType::F32, threads).unwrap().contains(&MASK));
            }
            run(&model(what, 100.0), KvType::F16, threads).unwrap();
            // A scale in f16 has room for 127 times as much.
            run(&model(what, 1e5), KvType::Q8_0, threads).unwrap();
            let error = run(&model(what, -1e9), KvType::Q8_0, threads).unwrap_err();
            assert!(matches!(error, Error::NotFinite(_)), "{error}");
        }
        // Queries are not cached.
        run(&model(0, 1e6), KvType::F16, threads).unwrap();
    }
}

#[test]
fn damaged_weights_are_not_blamed_on_the_cache() {
    for kv_type in [KvType::F16, KvType::F32, KvType::Q8_0] {
        let error = run(&model(1, f32::INFINITY), kv_type, 1).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
